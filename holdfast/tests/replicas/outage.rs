// SPDX-License-Identifier: AGPL-3.0-only
//! The store is away, and comes back with everything or with nothing.

use std::time::Duration;

use holdfast_simulator::{Fault, FaultKind, Traffic};

use crate::support::{Fleet, Holdfast, Server, Setup, free_port, until};

#[tokio::test(flavor = "multi_thread")]
async fn owners_go_on_while_the_store_is_away_and_nobody_else_takes_over() {
    let mut store = Server::start();
    let fleet = Fleet::at(&store.url(), 4, 16, |_| {}).await;
    let replicas = [fleet.replica().await, fleet.replica().await];
    let all = replicas.each_ref();
    fleet.settled(&all).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    let before = owners(&all).await;
    let resumed = fleet.discord.records(6).len();

    store.freeze();
    unready(&all).await;
    // Three times as long as leases hold.
    tokio::time::sleep(Duration::from_secs(20)).await;
    fleet.worker.until_more(100).await;
    store.thaw();
    fleet.settled(&all).await;
    assert_eq!(owners(&all).await, before);

    store.kill();
    unready(&all).await;
    fleet.worker.until_more(100).await;
    store.start_again();
    fleet.settled(&all).await;
    // It has nothing any more: previous owners come back for one expiry, then whoever should own a shard may have it.
    tokio::time::sleep(Duration::from_secs(8)).await;
    fleet.settled(&all).await;
    assert_eq!(owners(&all).await, before);
    fleet.worker.until_more(100).await;
    for replica in all {
        assert_eq!(replica.metric("holdfast_cluster_leases_lost_total").await, 0.0);
    }
    assert_eq!(fleet.discord.records(6).len(), resumed, "nobody had to resume");

    // The records are there again: a crash loses nothing.
    let [mut first, second] = replicas;
    until("records are in the store again", async || fleet.prefix.keys(":session").len() == 4).await;
    fleet.worker.until_more(100).await;
    first.kill();
    fleet.settled(&[&second]).await;
    fleet.assert_whole().await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

/// Whether somebody else has the session by now can't be known before the store answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_discord_closes_while_the_store_is_away_resumes_when_it_is_back() {
    let store = Server::start();
    let fleet = Fleet::at(&store.url(), 2, 8, |_| {}).await;
    let replica = fleet.replica().await;
    fleet.settled(&[&replica]).await;
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(50).await;
    store.freeze();
    unready(&[&replica]).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    fleet.discord.fault(&Fault::new(0, FaultKind::Op7));
    until("the connection ends", async || replica.shards_here().await == [1]).await;
    fleet.worker.until_more(50).await;
    assert_eq!(fleet.discord.records(6).len(), 0);
    store.thaw();
    fleet.settled(&[&replica]).await;
    fleet.assert_whole().await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_reached_is_waited_for_and_readyz_says_so() {
    let port = free_port();
    let mut fleet = Fleet::new(2, 4).await;
    fleet.cluster = format!("url = \"redis://127.0.0.1:{port}\"\n{}", crate::support::TIMES);
    let replica = fleet.replica().await;
    unready(&[&replica]).await;
    assert_eq!(fleet.discord.records(2).len(), 0, "nobody begins without the store");
    let _store = Server::start_at(port, &[]);
    fleet.settled(&[&replica]).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_waits_for_the_store_ends_when_it_is_asked_to() {
    let mut fleet = Fleet::new(2, 4).await;
    fleet.cluster = format!("url = \"redis://127.0.0.1:{}\"", free_port());
    let ws = fleet.settings("");
    let mut replica =
        Holdfast::start_with(&fleet.discord, &Setup { ws: &ws, cache: "", ..Setup::default() }).await;
    unready(&[&replica]).await;
    assert_eq!(replica.terminate().await.code(), Some(0), "{}", replica.output());
    fleet.end().await;
}

async fn unready(replicas: &[&Holdfast]) {
    for replica in replicas {
        until("/readyz tells of the store", async || {
            let (status, page) = replica.answer("/readyz").await;
            status == 503 && page.contains("cluster: the shared store")
        })
        .await;
    }
}

async fn owners(replicas: &[&Holdfast]) -> Vec<Vec<u32>> {
    let mut owners = Vec::new();
    for replica in replicas {
        owners.push(replica.shards_here().await);
    }
    owners
}
