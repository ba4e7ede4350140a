// SPDX-License-Identifier: AGPL-3.0-only
//! Sessions of such clients: cut, resumed, taken over, and ended.

use std::collections::BTreeMap;

use holdfast_simulator::{Fault, FaultKind, Traffic};

use super::{all_guilds, finish, ids, of_client, own};
use crate::support::{Client, Ended, Holdfast, discord, until};

#[tokio::test(flavor = "multi_thread")]
async fn cuts_under_traffic_lose_nothing_and_repeat_nothing() {
    let discord = discord(4, 16).await;
    // Small blocks: much of what is missed comes from disk.
    let holdfast = Holdfast::start(&discord, "[ws.log]\nmemory = \"1 MiB\"").await;
    let mut clients = Vec::new();
    for shard in [[0, 1], [1, 2], [5, 8]] {
        clients.push(Client::identified(&holdfast.url, shard).await.0);
    }
    discord.traffic(Traffic::messages(400.0));
    for round in 0..5 {
        for client in &mut clients {
            client.until_messages(client.ledger.count() + 200).await;
            if round % 2 == 0 {
                client.heartbeat().await;
            }
            client.cut();
        }
        let away: u64 = discord.sent().sent.values().sum();
        until("events while they are away", async || {
            discord.sent().sent.values().sum::<u64>() > away + 1_500
        })
        .await;
        for client in &mut clients {
            let resumed = client.resume(&holdfast.url).await;
            assert_eq!(resumed["t"], "RESUMED", "{:?}: {resumed}", client.shard);
        }
    }
    let sent = discord.stop_traffic().await.sent;
    for client in &mut clients {
        finish(&discord, client, &sent, &BTreeMap::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_takes_the_session_from_a_connection_that_still_has_it() {
    let discord = discord(2, 8).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let (mut old, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::burst(50));
    let sent = discord.finish_traffic().await.sent;
    old.until_last(&sent).await;
    let mut new = Client::new([0, 1]);
    (new.session, new.sequence) = (old.session.clone(), old.sequence);
    assert_eq!(new.resume(&holdfast.url).await["t"], "RESUMED");
    assert_eq!(old.until_end().await, Ended::Closed(4000));
    discord.traffic(Traffic::burst(50));
    let after = discord.finish_traffic().await.sent;
    finish(&discord, &mut new, &after, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_reaches_back_to_the_last_confirmation_or_the_windows_length() {
    let discord = discord(2, 8).await;
    let holdfast = Holdfast::start(&discord, "resume_window = 1024").await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::burst(600));
    let sent = discord.finish_traffic().await.sent;
    client.until_last(&sent).await;
    let last = client.sequence;
    let mut from = async |sequence: u64| {
        client.cut();
        client.sequence = sequence;
        client.resume(&holdfast.url).await
    };
    assert_eq!(from(last - 1_024).await["t"], "RESUMED");
    assert_eq!(from(last - 1_025).await["op"], 9);
    // Refused, it can identify; the dead session is taken over.
    client.cut();
    client.session.clear();
    assert_eq!(client.identify(&holdfast.url).await.guilds.len(), 8);
    client.heartbeat().await;
    let confirmed = client.sequence;
    discord.traffic(Traffic::burst(20));
    client.until_last(&discord.finish_traffic().await.sent).await;
    client.cut();
    client.sequence = confirmed - 1;
    assert_eq!(client.resume(&holdfast.url).await["op"], 9);
    for (session, sequence) in [("", 5), ("unknown", 5)] {
        client.cut();
        (client.session, client.sequence) = (session.to_owned(), sequence);
        assert_eq!(client.resume(&holdfast.url).await["op"], 9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_identifies_again_gets_what_came_while_it_was_away() {
    let discord = discord(4, 16).await;
    let holdfast = Holdfast::start(&discord, "").await;
    for shard in [[0, 1], [5, 8]] {
        let (mut old, _) = Client::identified(&holdfast.url, shard).await;
        discord.traffic(Traffic::burst(50));
        let had = discord.finish_traffic().await.sent;
        old.until_last(&own(&had, shard)).await;
        old.cut();
        holdfast.nobody().await;
        discord.traffic(Traffic::burst(500));
        discord.finish_traffic().await;
        let (mut new, opened) = Client::identified(&holdfast.url, shard).await;
        assert_eq!(ids(&opened.guilds), of_client(&all_guilds(&discord), shard[0], shard[1]));
        discord.traffic(Traffic::burst(50));
        let sent = discord.finish_traffic().await.sent;
        finish(&discord, &mut new, &sent, &had).await;
        // Caught up, it resumes like any other.
        new.cut();
        assert_eq!(new.resume(&holdfast.url).await["t"], "RESUMED");
        new.cut();
        holdfast.nobody().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holdfast_restarted_under_traffic_loses_nothing() {
    for kill in [true, false] {
        let discord = discord(4, 16).await;
        let mut holdfast = Holdfast::start(&discord, "").await;
        holdfast.live().await;
        let mut clients = Vec::new();
        for shard in [[0, 1], [1, 2], [5, 8]] {
            clients.push(Client::identified(&holdfast.url, shard).await.0);
        }
        discord.traffic(Traffic::messages(100.0));
        for _ in 0..3 {
            for client in &mut clients {
                client.until_messages(client.ledger.count() + 100).await;
            }
            let ends = async {
                for client in &mut clients {
                    client.until_end().await;
                }
            };
            if kill {
                tokio::join!(holdfast.kill_and_restart(), ends);
            } else {
                tokio::join!(holdfast.terminate_and_restart(), ends);
            }
            for client in &mut clients {
                let resumed = client.resume(&holdfast.url).await;
                assert_eq!(resumed["t"], "RESUMED", "{:?}: {resumed}", client.shard);
            }
        }
        let sent = discord.stop_traffic().await.sent;
        for client in &mut clients {
            let own = own(&sent, client.shard);
            client.until_last(&own).await;
            let twice = client.ledger.assert_none_lost(&own);
            // What its numbers stand for is stored every few seconds, and when we stop in order.
            assert!(kill || twice == 0, "{:?}: {twice} came twice", client.shard);
        }
        assert_eq!(discord.records(2).len(), 4, "Holdfast resumes instead of identifying");
        assert_eq!(discord.violations().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_of_both_the_bot_is_caught_up_at_every_shard() {
    let discord = discord(4, 16).await;
    let mut holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::messages(100.0));
    for _ in 0..2 {
        client.until_messages(client.ledger.count() + 300).await;
        let session = client.session.clone();
        tokio::join!(holdfast.kill_and_restart(), client.until_end());
        client.session.clear();
        client.identify(&holdfast.url).await;
        // Taken over, the old one is gone.
        let mut old = Client::new([0, 1]);
        (old.session, old.sequence) = (session, 1_000);
        assert_eq!(old.resume(&holdfast.url).await["op"], 9);
    }
    let sent = discord.stop_traffic().await.sent;
    client.until_last(&sent).await;
    client.ledger.assert_none_lost(&sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_of_one_of_our_shards_is_told_and_the_client_identifies_again() {
    let discord = discord(4, 8).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (mut other, _) = Client::identified(&holdfast.url, [1, 2]).await;
    discord.fault(&Fault::new(2, FaultKind::Op9).resumable(false));
    client.until("HOLDFAST_GAP").await;
    let invalid = client.next().await.expect("INVALID_SESSION comes");
    assert_eq!((invalid["op"].as_u64(), invalid["d"].as_bool()), (Some(9), Some(false)));
    client.send_identify().await;
    client.session.clear();
    client.until("READY").await;
    discord.traffic(Traffic::burst(40));
    let sent = discord.finish_traffic().await.sent;
    finish(&discord, &mut client, &sent, &BTreeMap::new()).await;
    // Shard 2 doesn't serve it.
    finish(&discord, &mut other, &sent, &BTreeMap::new()).await;
    assert_eq!(other.seen.get("HOLDFAST_GAP"), None);
}
