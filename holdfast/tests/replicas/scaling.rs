// SPDX-License-Identifier: AGPL-3.0-only
//! Replicas come and go in order.

use holdfast_simulator::Traffic;

use crate::support::Fleet;

#[tokio::test(flavor = "multi_thread")]
async fn replicas_come_and_go_under_traffic_and_nothing_is_lost() {
    let fleet = Fleet::new(16, 64).await;
    let mut first = fleet.replica().await;
    fleet.settled(&[&first]).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(200).await;
    let mut second = fleet.replica().await;
    fleet.settled(&[&first, &second]).await;
    let third = fleet.replica().await;
    fleet.settled(&[&first, &second, &third]).await;
    for replica in [&first, &second, &third] {
        assert!(!replica.shards_here().await.is_empty(), "each has its share");
        assert_eq!(replica.metric("holdfast_cluster_replicas").await, 3.0);
    }
    fleet.worker.until_more(200).await;
    for replica in [&mut second, &mut first] {
        let status = replica.terminate().await;
        assert_eq!(status.code(), Some(0), "{}", replica.output());
    }
    fleet.settled(&[&third]).await;
    assert_eq!(third.metric("holdfast_cluster_shards_owned").await, 16.0);
    fleet.worker.until_more(200).await;
    fleet.assert_whole().await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_and_bounds_say_who_gets_how_many() {
    let fleet = Fleet::new(12, 12).await;
    let bounded = fleet.replica_with("max_shards = 2").await;
    let free = fleet.replica().await;
    fleet.settled(&[&bounded, &free]).await;
    assert_eq!((bounded.shards_here().await.len(), free.shards_here().await.len()), (2, 10));
    fleet.end().await;
}
