// SPDX-License-Identifier: AGPL-3.0-only
//! What the tests are told with: a simulated Discord, a Holdfast process, clients, and a count of messages.

mod client;
pub(crate) mod demand;
pub(crate) mod etf;
mod fleet;
mod ledger;
mod process;
mod wire;

pub(crate) use client::{Client, Ended};
pub(crate) use fleet::{Fleet, back, try_back};
pub(crate) use ledger::Ledger;
pub(crate) use process::{Holdfast, Setup};
pub(crate) use wire::{BINARY, CLOSE, PING, TEXT, Wire, frame, identify, read_close, request};

use std::{collections::BTreeMap, time::Duration};

use holdfast_simulator::{Limits, Options, Simulator, WorldSpec};

/// Longer than anything takes on a machine that is busy building; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The bot's token, which the simulated Discord knows.
pub(crate) const TOKEN: &str = "sim-token";

/// All intents of the documentation.
pub(crate) const ALL: u64 = 53_608_447;

/// A Discord with `shards` shards that may identify all at once, and `guilds` small guilds.
pub(crate) async fn discord(shards: u32, guilds: u32) -> Simulator {
    discord_with(shards, guilds, |_| {}).await
}

/// The same with other limits.
pub(crate) async fn discord_with(shards: u32, guilds: u32, change: impl FnOnce(&mut Limits)) -> Simulator {
    discord_of(shards, WorldSpec { guilds, ..WorldSpec::default() }, change).await
}

/// The same with guilds of one's own liking.
pub(crate) async fn discord_of(shards: u32, world: WorldSpec, change: impl FnOnce(&mut Limits)) -> Simulator {
    let mut limits = Limits { shards, max_concurrency: shards, ..Limits::default() };
    change(&mut limits);
    Simulator::start(Options { world, limits, ..Options::default() }).await.expect("the simulator starts")
}

/// Waits for something, and says what for when it doesn't come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// The messages of one shard's guilds among all that were sent.
pub(crate) fn of_shard(
    discord: &Simulator,
    sent: &BTreeMap<String, u64>,
    shard: u32,
    count: u32,
) -> BTreeMap<String, u64> {
    let guilds: Vec<String> = discord.guilds(shard, count).iter().map(u64::to_string).collect();
    sent.iter().filter(|(guild, _)| guilds.contains(guild)).map(|(guild, n)| (guild.clone(), *n)).collect()
}

/// Nothing that Discord punishes was done in a long outage. After three failures in a row a shard tries Discord's general
/// address: the one for resuming may be what is gone.
pub(crate) fn assert_well_behaved(discord: &Simulator) {
    let violations = discord.violations();
    assert!(violations.iter().all(|violation| violation.kind == "resume_url"), "{violations:?}");
}

/// Waits for something that only asking again can tell.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
