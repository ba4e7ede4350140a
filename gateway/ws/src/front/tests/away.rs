// SPDX-License-Identifier: AGPL-3.0-only
//! The count of our shards changes while a bot is away that has forgotten its session: it is caught up.

use std::collections::BTreeMap;

use holdfast_service::Secret;

use super::{CHANGES, Client, Stage, TOKEN};
use crate::front::{
    identify::Resume,
    link::About,
    merge::{self, Part},
    query::Query,
};

#[tokio::test]
async fn sequences_rise_although_a_new_shards_log_is_younger_than_its_guilds() {
    let mut stage = Stage::start(4).await;
    stage.reshard(8);
    let mut client = Client::identified(&stage, [3, 8]).await;
    assert_eq!(client.sequence, 4, "READY and three guilds");
    for _ in 0..3 {
        stage.send(1);
        client.read(2).await;
        client.cut();
        assert!(client.resume().await);
    }
    client.finish(&stage, &BTreeMap::new()).await;
    client.cut();
    stage.nobody().await;
    let had = stage.sent.clone();
    stage.send(2);
    Client::identified(&stage, [3, 8]).await.finish(&stage, &had).await;
}

#[tokio::test]
async fn a_bot_that_identifies_afterwards_gets_what_it_missed_once() {
    for (from, to) in CHANGES {
        for shard in [[1, from], [0, 1], [2, to], [2, 3]] {
            let mut stage = Stage::start(from).await;
            let mut old = Client::identified(&stage, shard).await;
            stage.send(10);
            old.finish(&stage, &BTreeMap::new()).await;
            old.cut();
            stage.nobody().await;
            let had = stage.sent_to(shard);
            stage.send(10);
            stage.reshard(to);
            stage.send(10);
            let mut new = Client::identified(&stage, shard).await;
            stage.send(5);
            new.finish(&stage, &had).await;
            new.heartbeat().await;
            new.cut();
            assert!(new.resume().await);
            new.cut();
            stage.nobody().await;
            let had = stage.sent_to(shard);
            stage.send(3);
            let mut again = Client::identified(&stage, shard).await;
            again.finish(&stage, &had).await;
        }
    }
}

#[tokio::test]
async fn a_bot_that_had_everything_of_the_former_shards_gets_all_of_the_new_ones() {
    let mut stage = Stage::start(4).await;
    let mut old = Client::identified(&stage, [1, 4]).await;
    stage.send(10);
    old.finish(&stage, &BTreeMap::new()).await;
    old.cut();
    stage.nobody().await;
    let had = stage.sent_to([1, 4]);
    stage.reshard(8);
    stage.send(10);
    Client::identified(&stage, [1, 4]).await.finish(&stage, &had).await;
}

#[tokio::test]
async fn a_bot_that_comes_back_with_the_new_count_is_caught_up_once() {
    for (from, to) in CHANGES {
        let mut stage = Stage::start(from).await;
        for shard in 0..from {
            let mut old = Client::identified(&stage, [shard, from]).await;
            stage.send(2);
            old.finish(&stage, &before(&stage, 2)).await;
            old.cut();
        }
        stage.nobody().await;
        stage.send(5);
        stage.reshard(to);
        stage.send(5);
        let mut clients = Vec::new();
        for shard in 0..to {
            clients.push(Client::identified(&stage, [shard, to]).await);
        }
        stage.send(5);
        for client in &mut clients {
            client.until_last(&stage).await;
            for got in client.got.values() {
                let rest: Vec<u64> = (got[0]..=*got.last().unwrap()).collect();
                assert_eq!(*got, rest, "{:?}", client.shard);
                assert!(got.len() >= 15);
            }
            // Of the former shards it has had everything: the next time it is one of ours like others.
            client.heartbeat().await;
            client.cut();
        }
        stage.nobody().await;
        let had = stage.sent.clone();
        stage.send(3);
        for shard in 0..to {
            Client::identified(&stage, [shard, to]).await.finish(&stage, &had).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_nobody_knows_gets_nothing_from_before_it_came() {
    let mut stage = Stage::start(4).await;
    let mut living = Client::identified(&stage, [0, 1]).await;
    stage.send(5);
    stage.reshard(8);
    stage.send(5);
    living.cut();
    assert!(living.resume().await);
    living.heartbeat().await;
    let had = stage.sent.clone();
    // One of the new count, whose sequences rise although its shard's log has hardly begun, and one like that which lives.
    for shard in [[3, 8], [0, 1]] {
        let mut client = Client::identified(&stage, shard).await;
        stage.send(2);
        client.read(1).await;
        client.cut();
        assert!(client.resume().await);
        let had: BTreeMap<u64, u64> =
            stage.sent_to(shard).into_iter().map(|(guild, last)| (guild, last - 2)).collect();
        client.finish(&stage, &had).await;
        client.cut();
    }
    assert!(stage.sent.values().zip(had.values()).all(|(now, then)| *now == then + 4));
    living.finish(&stage, &BTreeMap::new()).await;
}

#[tokio::test]
async fn who_goes_while_its_shards_are_asked_leaves_them_to_whoever_comes_next() {
    let mut stage = Stage::start(4).await;
    let mut client = Client::identified(&stage, [0, 1]).await;
    stage.send(2);
    client.until_last(&stage).await;
    client.cut();
    stage.nobody().await;
    let about = About {
        query: Query::plain(),
        peer: "127.0.0.1:1".parse().unwrap(),
        number: 1_000,
        invalidated: false,
        spliced: false,
        leg: None,
    };
    let resume =
        Resume { token: Secret::new(TOKEN), session_id: client.session.clone(), sequence: client.sequence };
    let part = Part::of([0, 1], 4, |shard| stage.front.holder(shard, false)).unwrap();
    let opened = merge::resume(&stage.front, &part, &about, &resume).await.unwrap();
    assert!(opened.is_some());
    drop(opened);
    stage.nobody().await;
    let had = stage.sent.clone();
    stage.send(2);
    Client::identified(&stage, [0, 1]).await.finish(&stage, &had).await;
}

/// What had been sent before the last so many messages of each guild.
fn before(stage: &Stage, last: u64) -> BTreeMap<u64, u64> {
    stage.sent.iter().map(|(guild, sent)| (*guild, sent - last)).collect()
}
