// SPDX-License-Identifier: AGPL-3.0-only
//! Bots over the WebSocket front, while their shard moves to another replica.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use holdfast_simulator::Traffic;
use serde_json::json;
use tokio::sync::watch;

use crate::support::{Client, Ended, Fleet};

type Sent = Option<BTreeMap<String, u64>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_shard_moves_resumes_at_its_new_owner_without_loss() {
    const SHARDS: u32 = 8;
    let fleet = Fleet::new(SHARDS, 32).await;
    let first = fleet.replica().await;
    fleet.settled(&[&first]).await;
    let mut clients = Vec::new();
    for shard in 0..SHARDS {
        clients.push(Client::identified(&first.url, [shard, SHARDS]).await.0);
    }
    fleet.discord.traffic(Traffic::mixed(20.0));
    fleet.worker.until_more(100).await;
    let (urls, url) = watch::channel(String::new());
    let (ends, end) = watch::channel(None);
    let followers = join_all(clients.into_iter().map(|client| follow(client, url.clone(), end.clone())));
    let scene = async {
        let second = fleet.replica().await;
        fleet.settled(&[&first, &second]).await;
        // Not before: until it has the shard it would refuse.
        urls.send_replace(second.url.clone());
        fleet.worker.until_more(200).await;
        let sent = fleet.discord.stop_traffic().await.sent;
        let of = |shard| {
            let guilds: Vec<String> =
                fleet.discord.guilds(shard, SHARDS).iter().map(u64::to_string).collect();
            let sent = sent.iter().filter(|(guild, _)| guilds.contains(guild));
            (shard, sent.map(|(guild, last)| (guild.clone(), *last)).collect::<BTreeMap<_, _>>())
        };
        ends.send_replace(Some((0..SHARDS).map(of).collect::<BTreeMap<_, _>>()));
        (second.shards_here().await, second)
    };
    let (moved, (there, _second)) = tokio::join!(followers, scene);
    let moved: Vec<u32> = moved.into_iter().flatten().collect();
    assert_eq!(moved, there, "those whose shard moved went with it");
    assert!(!moved.is_empty());
    fleet.assert_whole().await;
    fleet.assert_no_session_lost();
    fleet.end().await;
}

/// Reads until the end of the traffic; goes to the second replica when it is asked to go. `Some`: it was.
async fn follow(
    mut client: Client,
    mut url: watch::Receiver<String>,
    mut end: watch::Receiver<Option<BTreeMap<u32, BTreeMap<String, u64>>>>,
) -> Option<u32> {
    let shard = client.shard[0];
    let mut moved = None;
    let mut asked = Vec::new();
    loop {
        let sent: Sent = end.borrow_and_update().as_ref().map(|sent| sent[&shard].clone());
        if let Some(sent) = sent.filter(|sent| client.ledger.has_last(sent)) {
            client.ledger.assert_each_once(&sent, &BTreeMap::new());
            return moved;
        }
        let payload = tokio::select! {
            payload = client.next() => payload,
            _ = end.changed() => continue,
        };
        match payload {
            Ok(payload) if payload["op"] == 1 => {
                asked.push(1);
                client.send(&json!({ "op": 1, "d": client.sequence })).await;
            }
            Ok(payload) if payload["op"] == 7 => asked.push(7),
            Ok(_) => {}
            Err(ended) => {
                assert_eq!(ended, Ended::Closed(4000), "shard {shard}");
                // Twice: while events still came, and when the last had been written.
                assert_eq!(asked, [1, 1, 7], "it was asked to confirm, then to go");
                assert_eq!(moved, None, "once");
                client.cut();
                let there = url.wait_for(|url| !url.is_empty()).await.expect("it starts").clone();
                resume(&mut client, &there).await;
                moved = Some(shard);
            }
        }
    }
}

/// Resumes at the shard's new owner, as soon as that has it.
async fn resume(client: &mut Client, url: &str) {
    let resumed = client.resume(url).await;
    assert_eq!(resumed["t"], "RESUMED", "{resumed}");
}
