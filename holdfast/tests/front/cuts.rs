// SPDX-License-Identifier: AGPL-3.0-only
//! Connections that end, on either side, while events flow: nothing is lost, nothing comes twice.

use std::{collections::BTreeMap, time::Duration};

use holdfast_simulator::{Fault, FaultKind, Traffic};

use crate::support::{Client, Holdfast, discord, of_shard, within};

#[tokio::test(flavor = "multi_thread")]
async fn upstream_cut_in_every_way_loses_nothing() {
    let discord = discord(2, 8).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 2]).await;
    discord.traffic(Traffic::messages(200.0));
    for fault in [
        Fault::new(0, FaultKind::Fin),
        Fault::new(0, FaultKind::Rst),
        Fault::new(0, FaultKind::FinRst),
        Fault::new(0, FaultKind::Op7),
        Fault::new(0, FaultKind::Op9).resumable(true),
        Fault::new(0, FaultKind::Close).code(4000),
        Fault::new(0, FaultKind::Close).code(4008),
        Fault::new(0, FaultKind::Truncate),
        Fault::new(0, FaultKind::Garbage),
        Fault::new(0, FaultKind::Garbage).code(1),
        Fault::new(0, FaultKind::Garbage).code(3),
    ] {
        let before = client.ledger.count();
        assert_eq!(discord.fault(&fault), 1, "{fault:?} hits the connection");
        discord.wait_for_resume(0).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        client.until_messages(before + 50).await;
    }
    let sent = discord.stop_traffic().await.sent;
    let ours = of_shard(&discord, &sent, 0, 2);
    client.until_last(&ours).await;
    client.ledger.assert_each_once(&ours, &BTreeMap::new());
    assert_eq!(holdfast.metric("holdfast_ws_gaps_total").await, 0.0);
    let violations = discord.violations();
    assert!(violations.is_empty(), "{violations:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_gets_what_it_missed() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::messages(200.0));
    for _ in 0..3 {
        client.until_messages(client.ledger.count() + 100).await;
        client.cut();
        // Away while at least 400 events come: two seconds.
        let away_from: u64 = discord.sent().sent.values().sum();
        within("events while the client is away", async {
            while discord.sent().sent.values().sum::<u64>() < away_from + 400 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let resumed = client.resume(&holdfast.url).await;
        assert_eq!(resumed["t"], "RESUMED", "{resumed}");
    }
    let sent = discord.stop_traffic().await.sent;
    client.until_last(&sent).await;
    client.ledger.assert_each_once(&sent, &BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_on_every_shard_at_once_reaches_all_clients() {
    const SHARDS: u32 = 16;
    let discord = discord(SHARDS, 32).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let mut clients = Vec::new();
    for shard in 0..SHARDS {
        clients.push(Client::identified(&holdfast.url, [shard, SHARDS]).await.0);
    }
    discord.traffic(Traffic::burst(5_000));
    let sent = discord.finish_traffic().await.sent;
    assert_eq!(sent.values().sum::<u64>(), 80_000);
    for client in &mut clients {
        let ours = of_shard(&discord, &sent, client.shard[0], SHARDS);
        client.until_last(&ours).await;
        client.ledger.assert_each_once(&ours, &BTreeMap::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_is_told_and_the_client_identifies_again() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::burst(20));
    let sent = discord.finish_traffic().await.sent;
    client.until_last(&sent).await;
    discord.fault(&Fault::new(0, FaultKind::Op9).resumable(false));
    let gap = client.until("HOLDFAST_GAP").await;
    let (from, to) = (gap["d"]["from"].as_u64().unwrap(), gap["d"]["to"].as_u64().unwrap());
    assert!(from >= client.sequence - 1 && to > from, "{gap}");
    let invalid = client.next().await.expect("INVALID_SESSION comes");
    assert_eq!((invalid["op"].as_u64(), invalid["d"].as_bool()), (Some(9), Some(false)));
    // The old session can't be resumed any more; a new one can be begun.
    client.cut();
    assert_eq!(client.resume(&holdfast.url).await["op"], 9);
    client.cut();
    client.session.clear();
    let opened = client.identify(&holdfast.url).await;
    assert_eq!(opened.guilds.len(), 4);
    assert_eq!(holdfast.metric("holdfast_ws_gaps_total").await, 1.0);
}
