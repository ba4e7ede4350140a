// SPDX-License-Identifier: AGPL-3.0-only
//! What the tests are told with: a fleet of processes, the store that they share, a worker that counts.

mod account;
mod fleet;
mod store;
mod worker;

#[path = "../../front/support/client.rs"]
#[expect(dead_code, reason = "the tests of the front need more of it")]
mod client;
#[path = "../../front/support/ledger.rs"]
#[expect(dead_code, reason = "the tests of the front need more of it")]
mod ledger;
#[path = "../../front/support/process.rs"]
#[expect(dead_code, reason = "the tests of the front need more of it")]
mod process;

pub(crate) use account::now;
pub(crate) use client::{Client, Ended};
pub(crate) use fleet::{Fleet, TIMES};
pub(crate) use ledger::Ledger;
pub(crate) use process::{Holdfast, Setup};
pub(crate) use store::{REDIS, Server, free_port};
pub(crate) use worker::Worker;

use std::time::Duration;

/// Longer than anything takes on a machine that is busy building; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The bot's token, which the simulated Discord knows.
pub(crate) const TOKEN: &str = "sim-token";

/// All intents of the documentation.
pub(crate) const ALL: u64 = 53_608_447;

/// Waits for something, and says what for when it doesn't come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Waits for something that only asking again can tell.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
