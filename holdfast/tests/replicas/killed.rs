// SPDX-License-Identifier: AGPL-3.0-only
//! Replicas that die without a word.

use std::time::Duration;

use holdfast_simulator::Traffic;

use crate::support::{Fleet, now};

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_is_killed_five_times_and_nothing_is_lost() {
    let fleet = Fleet::new(6, 24).await;
    let mut replicas = [fleet.replica().await, fleet.replica().await, fleet.replica().await];
    fleet.settled(&replicas.each_ref()).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    for round in 0..5 {
        fleet.worker.until_more(100).await;
        replicas[round % 3].kill();
        let living: Vec<_> = replicas.iter().enumerate().filter(|(at, _)| *at != round % 3).collect();
        fleet.settled(&living.iter().map(|(_, it)| *it).collect::<Vec<_>>()).await;
        replicas[round % 3].restart().await;
        fleet.settled(&replicas.each_ref()).await;
    }
    fleet.worker.until_more(100).await;
    fleet.assert_whole().await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

/// Leases hold for six seconds here; their lapse is looked for every second.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_replica_had_is_taken_over_two_seconds_after_its_leases_lapse() {
    const EXPIRY: Duration = Duration::from_secs(6);
    let fleet = Fleet::new(8, 32).await;
    let (mut first, second) = (fleet.replica().await, fleet.replica().await);
    fleet.settled(&[&first, &second]).await;
    fleet.discord.traffic(Traffic::messages(20.0));
    fleet.worker.until_more(200).await;
    let had = first.shards_here().await;
    let killed = now();
    first.kill();
    fleet.settled(&[&second]).await;
    fleet.worker.until_more(400).await;
    let taken: Vec<Duration> =
        had.iter().map(|shard| fleet.worker.account().taken_over(*shard).saturating_sub(killed)).collect();
    println!("after the kill, events came again after {taken:?}");
    // As much again for a machine that is busy building.
    assert!(taken.iter().all(|taken| *taken < EXPIRY + 2 * Duration::from_secs(2)), "{taken:?}");
    assert!(!taken.is_empty());
    fleet.assert_whole().await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

/// Who owns the folder knows that the process before is dead.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_starts_again_has_its_shards_back_without_waiting_for_their_leases() {
    let mut fleet = Fleet::new(4, 16).await;
    // Longer than anything here is waited for.
    fleet.cluster = fleet.cluster.replace("\"6s\"", "\"90s\"");
    let (mut first, second) = (fleet.replica().await, fleet.replica().await);
    fleet.settled(&[&first, &second]).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    let (owned, others) = (first.shards_here().await, second.shards_here().await);
    first.kill_and_restart().await;
    fleet.settled(&[&first, &second]).await;
    assert_eq!((first.shards_here().await, second.shards_here().await), (owned, others));
    fleet.worker.until_more(100).await;
    fleet.assert_whole().await;
    assert_eq!(fleet.discord.records(2).len(), 4, "IDENTIFYs");
    fleet.end().await;
}
