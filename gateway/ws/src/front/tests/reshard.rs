// SPDX-License-Identifier: AGPL-3.0-only
//! The count of our shards changes: clients go on where they were.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{CHANGES, Client, Stage, append, until};
use crate::shard::unix_ms;

#[tokio::test]
async fn a_client_of_any_count_resumes_over_the_change() {
    for (from, to) in CHANGES {
        for shard in [[1, from], [0, 1], [2, to], [2, 3]] {
            let mut stage = Stage::start(from).await;
            let mut client = Client::identified(&stage, shard).await;
            stage.send(20);
            client.read(20).await;
            client.cut();
            stage.send(10);
            stage.reshard(to);
            stage.send(10);
            // Cut again on its way, on both sides of the change.
            for _ in 0..5 {
                client.begin_resume().await;
                client.read(15).await;
                client.cut();
            }
            assert!(client.resume().await, "{shard:?}, from {from} to {to}");
            stage.send(10);
            client.finish(&stage, &BTreeMap::new()).await;
            assert_eq!(client.readies, 1);
        }
    }
}

#[tokio::test]
async fn who_is_connected_is_asked_to_go_and_goes_on() {
    for (from, to) in CHANGES {
        for shard in [[1, from], [0, 1]] {
            let mut stage = Stage::start(from).await;
            let mut client = Client::identified(&stage, shard).await;
            stage.send(20);
            client.read(5).await;
            stage.reshard(to);
            stage.send(10);
            let mut asked = Vec::new();
            while let Some(payload) = client.next().await {
                match payload["op"].as_u64() {
                    Some(1) => {
                        asked.push(1);
                        client.send(json!({ "op": 1, "d": client.sequence })).await;
                    }
                    Some(op @ 7) => asked.push(op),
                    _ => {}
                }
            }
            assert_eq!(asked, [1, 7]);
            assert!(client.resume().await);
            client.finish(&stage, &BTreeMap::new()).await;
            assert_eq!(client.readies, 1);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_resumed_is_invalid_and_caught_up_as_far_as_it_is_there() {
    // The log holds little.
    let mut stage = Stage::with_memory(4, 64 << 10).await;
    let mut client = Client::identified(&stage, [1, 4]).await;
    stage.send(3);
    client.read(3).await;
    client.cut();
    stage.nobody().await;
    stage.send(500);
    stage.reshard(8);
    stage.send(3);
    assert!(!client.resume().await, "the log doesn't reach back");
    client.cut();
    let known = std::mem::replace(&mut client.session, "unknown".into());
    assert!(!client.resume().await);
    client.cut();
    (client.session, client.sequence) = (known, u64::from(u32::MAX));
    assert!(!client.resume().await, "nobody has given it that");
    client.cut();
    stage.nobody().await;
    client.got.clear();
    client.identify().await;
    client.until_last(&stage).await;
    for got in client.got.values() {
        let rest: Vec<u64> = (got[0]..=506).collect();
        assert!(got[0] > 100 && *got == rest, "behind the gap: {got:?}");
    }
    client.cut();
    assert!(client.resume().await);
}

#[tokio::test]
async fn new_shards_that_no_longer_have_their_beginning_make_a_session_invalid() {
    let mut stage = Stage::with_memory(4, 64 << 10).await;
    for shard in [[1, 4], [0, 1]] {
        let mut client = Client::identified(&stage, shard).await;
        client.cut();
        stage.reshard(if stage.front.hubs.total() == 4 { 8 } else { 4 });
        stage.send(500);
        for _ in 0..2 {
            assert!(!client.resume().await);
            client.cut();
        }
        stage.nobody().await;
        client.identify().await;
        client.until_last(&stage).await;
        assert!(client.got.values().all(|got| got[0] > 1 && got.is_sorted()));
        client.cut();
        assert!(client.resume().await);
    }
}

#[tokio::test]
async fn commands_go_to_the_new_shards_only() {
    let mut stage = Stage::start(4).await;
    let mut client = Client::identified(&stage, [1, 4]).await;
    client.cut();
    stage.send(5);
    stage.reshard(8);
    assert!(client.resume().await);
    client.send(json!({ "op": 3, "d": { "status": "idle" } })).await;
    client
        .send(json!({ "op": 4, "d": { "guild_id": (13_u64 << 22 | 1).to_string(), "channel_id": null } }))
        .await;
    let wanted =
        json!({ "guild_id": (5_u64 << 22 | 1).to_string(), "query": "a", "limit": 1, "nonce": "mine" });
    client.send(json!({ "op": 8, "d": wanted })).await;
    client.heartbeat().await;
    let ops = |told: &[Value]| told.iter().map(|payload| payload["op"].as_u64().unwrap()).collect::<Vec<_>>();
    let told = stage.told(5, 8);
    assert_eq!((ops(&stage.told(1, 8)), ops(&told)), (vec![3], vec![3, 4, 8]));
    assert_eq!(ops(&stage.told(1, 4)), Vec::<u64>::new());
    // The answer comes to who asked.
    let data = json!({ "guild_id": wanted["guild_id"], "members": [], "nonce": told[2]["d"]["nonce"] });
    let hub = stage.front.hubs.get(5).unwrap();
    append(&hub, &json!({ "t": "GUILD_MEMBERS_CHUNK", "s": 1, "op": 0, "d": data }), unix_ms());
    hub.readers.wake();
    assert_eq!(client.next().await.unwrap()["d"]["nonce"], "mine");
}

#[tokio::test]
async fn former_shards_go_when_their_clients_have_everything_of_them() {
    let mut stage = Stage::start(4).await;
    let mut clients = [Client::identified(&stage, [1, 4]).await, Client::identified(&stage, [0, 1]).await];
    for client in &mut clients {
        client.cut();
    }
    stage.send(5);
    stage.reshard(8);
    stage.send(5);
    for client in &mut clients {
        assert!(client.resume().await);
        client.finish(&stage, &BTreeMap::new()).await;
    }
    let former: Vec<_> = stage.front.hubs.retired().unwrap().hubs.values().map(Arc::downgrade).collect();
    stage.forget_retired();
    assert!(former.iter().all(|hub| hub.upgrade().is_some()), "nothing is confirmed yet");
    for client in &mut clients {
        client.heartbeat().await;
    }
    until("the former shards are gone", || former.iter().all(|hub| hub.upgrade().is_none())).await;
    for client in &mut clients {
        client.cut();
        stage.send(5);
        assert!(client.resume().await);
    }
    for client in &mut clients {
        client.finish(&stage, &BTreeMap::new()).await;
        assert_eq!(client.readies, 1);
    }
}

#[tokio::test]
async fn a_session_goes_on_over_several_changes() {
    let mut stage = Stage::start(4).await;
    let mut clients = [
        Client::identified(&stage, [1, 4]).await,
        Client::identified(&stage, [0, 1]).await,
        Client::identified(&stage, [2, 3]).await,
    ];
    for total in [8, 4, 6, 4] {
        stage.send(5);
        for client in &mut clients {
            client.cut();
        }
        stage.reshard(total);
        stage.send(5);
        for client in &mut clients {
            assert!(client.resume().await, "{:?} at {total}", client.shard);
            client.finish(&stage, &BTreeMap::new()).await;
            client.heartbeat().await;
        }
    }
}

#[tokio::test]
async fn a_later_process_resumes_sessions_that_have_come_to_the_new_shards() {
    let mut stage = Stage::start(4).await;
    for shard in [[1, 4], [0, 1], [5, 6]] {
        let mut client = Client::identified(&stage, shard).await;
        client.cut();
        stage.reshard(if stage.front.hubs.total() == 4 { 9 } else { 4 });
        assert!(client.resume().await);
        client.heartbeat().await;
        let had = stage.sent_to(shard);
        let total = stage.front.hubs.total();
        let unsettled = || {
            let hubs = stage.front.hubs.all();
            hubs.iter().any(|hub| {
                let core = hub.core();
                let part = core.sessions.part_of(&client.session);
                part.is_some_and(|(_, record)| record.spread.as_ref().unwrap().owed.is_some())
            })
        };
        until("its places are noted", || !unsettled()).await;
        client.cut();
        stage.nobody().await;
        stage.send(5);
        // What a later process doesn't have.
        stage.front.merged.remove(&client.session);
        stage.forget_retired();
        assert!(client.resume().await, "{shard:?} at {total}");
        client.finish(&stage, &had).await;
        client.cut();
        stage.nobody().await;
    }
}

#[tokio::test]
async fn a_later_process_resumes_nothing_that_needs_the_former_shards() {
    let mut stage = Stage::start(4).await;
    for shard in [[1, 4], [0, 1], [3, 8]] {
        let mut client = Client::identified(&stage, shard).await;
        stage.send(5);
        client.cut();
        stage.nobody().await;
        stage.reshard(if stage.front.hubs.total() == 4 { 8 } else { 4 });
        stage.send(5);
        client.begin_resume().await;
        client.read(20).await;
        client.cut();
        stage.nobody().await;
        stage.front.merged.remove(&client.session);
        stage.forget_retired();
        assert!(!client.resume().await, "{shard:?}: its sequences stand for nothing any more");
    }
}

#[tokio::test]
async fn a_resume_takes_nothing_from_others_of_the_same_shard() {
    let mut stage = Stage::start(4).await;
    let mut clients = [Client::identified(&stage, [0, 1]).await, Client::identified(&stage, [0, 1]).await];
    for client in &mut clients {
        client.cut();
    }
    stage.send(5);
    stage.reshard(8);
    for _ in 0..3 {
        stage.send(5);
        for client in &mut clients {
            assert!(client.resume().await);
            client.finish(&stage, &BTreeMap::new()).await;
            client.cut();
            stage.nobody().await;
        }
    }
}

#[tokio::test]
async fn what_shards_have_on_disk_comes_too() {
    let mut stage = Stage::on_disk(4).await;
    let mut clients = [Client::identified(&stage, [1, 4]).await, Client::identified(&stage, [0, 1]).await];
    for client in &mut clients {
        client.cut();
    }
    stage.store(200).await;
    stage.reshard(8);
    stage.store(200).await;
    let retired = stage.front.hubs.retired().unwrap();
    for hub in stage.front.hubs.all().iter().chain(retired.hubs.values()) {
        assert!(hub.core().log.oldest_in_memory() > 100, "little is in memory");
    }
    drop(retired);
    for client in &mut clients {
        client.begin_resume().await;
        client.read(500).await;
        client.cut();
        assert!(client.resume().await);
        client.finish(&stage, &BTreeMap::new()).await;
    }
}
