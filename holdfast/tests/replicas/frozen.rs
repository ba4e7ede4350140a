// SPDX-License-Identifier: AGPL-3.0-only
//! A replica that stands still for longer than its leases hold, and wakes.

use std::collections::BTreeMap;

use holdfast_simulator::Traffic;

use crate::support::{Fleet, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_wakes_sends_a_confirm_window_at_most_and_touches_no_record() {
    const WINDOW: u64 = 16;
    let mut fleet = Fleet::new(4, 16).await;
    fleet.ws = "amqp.confirm_window = 16";
    let frozen = fleet.replica().await;
    fleet.settled(&[&frozen]).await;
    fleet.discord.traffic(Traffic::messages(100.0));
    fleet.worker.until_more(200).await;
    frozen.signal("-STOP");
    let other = fleet.replica().await;
    fleet.settled(&[&other]).await;
    fleet.worker.until_more(500).await;
    let taken = fleet.worker.account().generations();
    let mut progress = Progress::default();
    progress.look(&fleet);
    frozen.signal("-CONT");
    until("the frozen one finds out", async || {
        progress.look(&fleet);
        frozen.metric("holdfast_cluster_leases_lost_total").await >= 4.0
    })
    .await;
    // It lives again: what should be its own is handed over to it.
    fleet.settled(&[&frozen, &other]).await;
    progress.look(&fleet);
    fleet.worker.until_more(200).await;
    progress.look(&fleet);
    let stale = fleet.worker.account().stale();
    let now = fleet.worker.account().generations();
    println!("stale: {stale:?}");
    assert!(stale.values().all(|stale| *stale <= WINDOW), "{stale:?}");
    assert!(taken.iter().all(|(shard, generation)| now[shard] >= *generation), "{taken:?} {now:?}");
    fleet.assert_whole().await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

/// How far the records in the store have come: they never go back.
#[derive(Default)]
struct Progress(BTreeMap<String, u64>);

impl Progress {
    fn look(&mut self, fleet: &Fleet) {
        for key in fleet.prefix.keys(":session") {
            let Some(progress) = fleet.prefix.field(&key, "progress") else { continue };
            let progress: serde_json::Value = serde_json::from_str(&progress).expect("JSON");
            let position = progress["position"].as_u64().expect("a position");
            let before = self.0.insert(key.clone(), position).unwrap_or(0);
            assert!(before <= position, "{key} went back from {before} to {position}");
        }
    }
}
