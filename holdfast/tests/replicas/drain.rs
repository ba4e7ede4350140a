// SPDX-License-Identifier: AGPL-3.0-only
//! A replica with many shards is told to end.

use std::time::{Duration, Instant};

use holdfast_simulator::Traffic;

use crate::support::Fleet;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_shards_are_handed_over_within_seconds() {
    let fleet = Fleet::new(100, 200).await;
    let mut first = fleet.replica_with("weight = 10000").await;
    fleet.settled(&[&first]).await;
    let second = fleet.replica_with("weight = 1").await;
    fleet.settled(&[&first, &second]).await;
    assert!(first.shards_here().await.len() > 90);
    fleet.discord.traffic(Traffic::messages(5.0));
    fleet.worker.until_more(2_000).await;
    fleet.worker.account().delays();
    let begun = Instant::now();
    let rest = [&second];
    let (status, ()) = tokio::join!(first.terminate(), fleet.settled(&rest));
    let all = begun.elapsed();
    assert_eq!(status.code(), Some(0), "{}", first.output());
    fleet.worker.until_more(1_000).await;
    // Before: whatever is late is among it.
    fleet.assert_whole().await;
    let delays = fleet.worker.account().delays();
    let mut pauses: Vec<Duration> = delays.iter().map(|delays| delays.to_owner).collect();
    pauses.sort_unstable();
    let (median, longest) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
    let to_consumer = delays.iter().map(|delays| delays.to_consumer).max().unwrap_or_default();
    println!(
        "all live elsewhere after {all:?}; an event waited for its new owner for {median:?} (median of the shards' \
         longest), {longest:?} at most; for the consumer {to_consumer:?}"
    );
    // On a busy machine, unoptimised: the optimised build stays below a second.
    assert!(all < Duration::from_secs(30), "{all:?}");
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    fleet.assert_no_session_lost();
    fleet.end().await;
}
