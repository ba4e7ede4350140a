// SPDX-License-Identifier: AGPL-3.0-only
//! Sessions that have only just begun, and those that can't go on: what becomes of the day's IDENTIFYs.

use holdfast_simulator::{Fault, FaultKind, Traffic};

use crate::support::{Client, Fleet, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_under_way_when_its_replica_is_told_to_end_is_handed_over() {
    let fleet = Fleet::new(4, 16).await;
    fleet.discord.fault(&Fault::everywhere(FaultKind::HoldReady));
    let mut first = fleet.replica().await;
    fleet.discord.wait_for_records(2, 4).await.expect("each shard identifies");
    first.signal("-TERM");
    until("the hand-over begins", async || first.metric("holdfast_cluster_handovers_total").await >= 4.0)
        .await;
    fleet.discord.clear_faults();
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.output());
    goes_on_elsewhere(fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_under_way_when_another_replica_comes_is_handed_over() {
    let fleet = Fleet::new(16, 32).await;
    fleet.discord.fault(&Fault::everywhere(FaultKind::HoldReady));
    let first = fleet.replica().await;
    fleet.discord.wait_for_records(2, 16).await.expect("each shard identifies");
    let second = fleet.replica().await;
    until("the hand-over begins", async || first.metric("holdfast_cluster_handovers_total").await >= 1.0)
        .await;
    fleet.discord.clear_faults();
    fleet.settled(&[&first, &second]).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    fleet.assert_whole().await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_kill_as_soon_as_it_is_live() {
    let fleet = Fleet::new(4, 16).await;
    let mut first = fleet.replica().await;
    until("the shards are live", async || first.shards_here().await.len() == 4).await;
    first.kill();
    goes_on_elsewhere(fleet).await;
}

/// Another replica resumes what the first has begun.
async fn goes_on_elsewhere(fleet: Fleet) {
    let second = fleet.replica().await;
    fleet.settled(&[&second]).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    for shard in 0..4 {
        let guilds = Client::identified(&second.url, [shard, 4]).await.1.guilds;
        assert_eq!(guilds.len(), fleet.discord.guilds(shard, 4).len(), "all guilds of shard {shard}");
    }
    fleet.assert_whole().await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_checkpoints_a_shard_that_moves_begins_a_session_with_all_its_guilds() {
    const SHARDS: u32 = 8;
    let mut fleet = Fleet::new(SHARDS, 32).await;
    fleet.cluster.push_str("\ncheckpoints = false");
    let mut first = fleet.replica().await;
    fleet.settled(&[&first]).await;
    let mut client = Client::identified(&first.url, [3, SHARDS]).await.0;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    let second = fleet.replica().await;
    fleet.settled(&[&first, &second]).await;
    let moved = second.shards_here().await.len();
    assert_eq!(fleet.discord.records(2).len(), SHARDS as usize + moved, "IDENTIFYs");
    assert_eq!(first.terminate().await.code(), Some(0), "{}", first.output());
    fleet.settled(&[&second]).await;
    assert_eq!(fleet.discord.records(2).len(), 2 * SHARDS as usize, "each shard moved once");
    assert_eq!(fleet.discord.records(6).len(), 0, "RESUMEs");
    client.cut();
    assert_eq!(client.resume(&second.url).await["op"], 9, "its session went with Discord's");
    for shard in 0..SHARDS {
        let guilds = Client::identified(&second.url, [shard, SHARDS]).await.1.guilds;
        assert_eq!(guilds.len(), fleet.discord.guilds(shard, SHARDS).len(), "all guilds of shard {shard}");
    }
    // Where a shard stays it has its guilds, and resumes.
    fleet.discord.fault(&Fault::everywhere(FaultKind::Op7));
    fleet.discord.wait_for_records(6, SHARDS as usize).await.expect("each shard resumes");
    fleet.settled(&[&second]).await;
    fleet.worker.until_more(100).await;
    fleet.discord.stop_traffic().await;
    assert_eq!(fleet.discord.records(2).len(), 2 * SHARDS as usize, "IDENTIFYs");
    assert_eq!(fleet.prefix.keys(":state"), [""; 0], "the store has no guilds");
    let told = fleet.worker.account().gaps;
    assert_eq!(told, u64::from(SHARDS), "each new session is told");
    assert_eq!(fleet.worker.account().wrong, [""; 0]);
    fleet.end().await;
}
