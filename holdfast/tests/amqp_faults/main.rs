// SPDX-License-Identifier: AGPL-3.0-only
//! What happens to RabbitMQ as a whole: an alarm, a stop. Nothing else may use it meanwhile, so these tests run alone
//! (.config/nextest.toml), and set right what they did however they end.
#![cfg(test)]

#[path = "../amqp/stage/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with the tests of one process's faults, which need more"
)]
mod stage;
#[path = "../front/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the tests of the WebSocket front, which need more")]
mod support;

use std::collections::BTreeMap;
use std::process::Command;

use holdfast_simulator::Traffic;

use crate::stage::{Front, Stage};
use crate::support::{discord_with, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_holds_up_events_and_nothing_else() {
    let alarm = Fault { undo: &["set_vm_memory_high_watermark", "0.4"] };
    outlasts(&["set_vm_memory_high_watermark", "0.00001"], alarm, "takes no messages").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_and_starts_loses_nothing() {
    let stop = Fault { undo: &["start_app"] };
    outlasts(&["stop_app"], stop, "connecting").await;
}

/// Something done to RabbitMQ, undone at the end in any case.
struct Fault {
    undo: &'static [&'static str],
}

impl Drop for Fault {
    fn drop(&mut self) {
        rabbitmqctl(self.undo);
    }
}

/// Holdfast goes through it under traffic; `said` is what /readyz says meanwhile.
async fn outlasts(act: &[&str], fault: Fault, said: &str) {
    // Heartbeats every second: a shard that is held up would be closed.
    let discord = discord_with(2, 4, |limits| limits.heartbeat_interval_ms = 1000).await;
    let mut stage = Stage::new().await;
    let holdfast = stage.holdfast(&discord, &Front::default()).await;
    holdfast.live().await;
    let mut inbox = stage.inbox("all");
    discord.traffic(Traffic::messages(200.0));
    inbox.until_messages(200).await;
    rabbitmqctl(act);
    until("it is said", async || {
        let (status, why) = holdfast.answer("/readyz").await;
        status == 503 && why.contains(said)
    })
    .await;
    until("events wait", async || holdfast.metric("holdfast_ws_amqp_lag_events").await > 500.0).await;
    drop(fault);
    let sent = discord.stop_traffic().await.sent;
    inbox.until_last(&sent).await;
    inbox.ledger.assert_each_once(&sent, &BTreeMap::new());
    inbox.assert_unbroken();
    assert_eq!(inbox.gaps().len(), 0);
    until("it is ready", async || holdfast.answer("/readyz").await.0 == 200).await;
    assert!(holdfast.metric("holdfast_ws_amqp_outage_seconds_total").await > 0.0);
    assert_eq!((discord.records(2).len(), discord.records(6).len()), (2, 0), "the shards noticed nothing");
    assert!(discord.violations().is_empty(), "{:?}", discord.violations());
    drop(holdfast);
    stage.end().await;
}

fn rabbitmqctl(arguments: &[&str]) {
    let status = Command::new("rabbitmqctl").arg("--quiet").args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "rabbitmqctl {arguments:?}");
}
