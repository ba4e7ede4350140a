// SPDX-License-Identifier: AGPL-3.0-only
//! Which guilds and events such a client gets, in which order, and what happens when it doesn't keep up.

use std::collections::BTreeMap;

use holdfast_simulator::{Emit, Traffic};
use serde_json::json;

use super::{all_guilds, finish, ids, of_client, own};
use crate::support::{Client, Ended, Holdfast, discord};

#[tokio::test(flavor = "multi_thread")]
async fn one_shard_before_sixteen_sees_all_guilds_and_every_event_once() {
    let discord = discord(16, 32).await;
    let holdfast = Holdfast::start(&discord, "").await;
    // It waits until all shards have their READY.
    let (mut client, opened) = Client::identified(&holdfast.url, [0, 1]).await;
    assert_eq!(opened.ready["d"]["shard"], json!([0, 1]));
    assert_eq!(opened.ready["d"]["user"]["id"], holdfast_simulator::BOT_USER.to_string());
    assert_eq!(ids(&opened.guilds), all_guilds(&discord));
    for guild in &opened.guilds {
        let id = guild["id"].as_str().unwrap().parse().unwrap();
        let expected = discord.guild_as_seen(id, client.intents, 50).unwrap();
        for field in ["name", "member_count", "owner_id"] {
            assert_eq!(guild[field], expected[field]);
        }
    }
    discord.traffic(Traffic::burst(300));
    let sent = discord.finish_traffic().await.sent;
    client.until_last(&sent).await;
    client.ledger.assert_each_once(&sent, &BTreeMap::new());
    // Its sequences are its own: READY, guilds, messages.
    assert_eq!(client.sequence, 1 + 32 + 16 * 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn within_each_of_our_shards_the_order_is_kept() {
    let discord = discord(4, 32).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let (mut merged, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let mut direct = Vec::new();
    for shard in 0..4 {
        direct.push(Client::identified(&holdfast.url, [shard, 4]).await.0);
    }
    discord.traffic(Traffic { burst: 200, rate: 500.0, seconds: Some(1.0), ..Traffic::default() });
    let count = discord.finish_traffic().await.sent.values().sum::<u64>();
    let order = messages(&mut merged, count).await;
    for (shard, client) in (0..).zip(&mut direct) {
        let guilds = discord.guilds(shard, 4);
        let ours = |(guild, _): &&(u64, String)| guilds.contains(guild);
        let expected: Vec<_> = order.iter().filter(ours).cloned().collect();
        assert_eq!(messages(client, expected.len() as u64).await, expected, "shard {shard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_shards_than_ours_see_everything_once_together() {
    for (ours, count, guilds) in [(8, 32, 64), (4, 3, 24), (1, 5, 15)] {
        let discord = discord(ours, guilds).await;
        let holdfast = Holdfast::start(&discord, "").await;
        let mut clients = Vec::new();
        for shard in 0..count {
            let (client, opened) = Client::identified(&holdfast.url, [shard, count]).await;
            assert_eq!(opened.ready["d"]["shard"], json!([shard, count]));
            assert_eq!(ids(&opened.guilds), of_client(&all_guilds(&discord), shard, count));
            clients.push(client);
        }
        discord.traffic(Traffic::burst(200));
        let sent = discord.finish_traffic().await.sent;
        for client in &mut clients {
            let [shard, count] = client.shard;
            let own = sent.iter().filter(|(guild, _)| {
                guild.parse::<u64>().is_ok_and(|guild| (guild >> 22) % u64::from(count) == u64::from(shard))
            });
            let own: BTreeMap<String, u64> = own.map(|(guild, last)| (guild.clone(), *last)).collect();
            client.until_last(&own).await;
            client.ledger.assert_each_once(&own, &BTreeMap::new());
            assert_eq!(client.ledger.last().len(), own.len(), "{shard} of {count}: no other's guilds");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_messages_reach_the_clients_shard_0_and_the_bots_user_everyone() {
    let discord = discord(2, 8).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let mut clients = Vec::new();
    for shard in 0..4 {
        clients.push(Client::identified(&holdfast.url, [shard, 4]).await.0);
    }
    let direct = json!({ "id": "5", "channel_id": "6", "content": "hello", "author": { "id": "7" } });
    let entitlement = json!({ "id": "8", "guild_id": discord.guilds(1, 2)[0].to_string() });
    let user = json!({ "id": holdfast_simulator::BOT_USER.to_string(), "username": "new" });
    for (name, data, shard) in [
        ("MESSAGE_CREATE", direct, Some(0)),
        // Discord sends these to shard 0, whatever their guild.
        ("ENTITLEMENT_CREATE", entitlement, Some(0)),
        ("USER_UPDATE", user.clone(), Some(0)),
        ("USER_UPDATE", user, Some(1)),
    ] {
        discord.emit(&Emit { t: name.to_owned(), d: data, shard, guild: None });
    }
    discord.traffic(Traffic::burst(80));
    let sent = discord.finish_traffic().await.sent;
    for (shard, client) in (0..).zip(&mut clients) {
        let own = of_client(&all_guilds(&discord), shard, 4);
        let own = own.iter().map(|guild| (guild.to_string(), sent[&guild.to_string()])).collect();
        client.until_last(&own).await;
        let seen = |name: &str| client.seen.get(name).copied().unwrap_or(0);
        let messages: u64 = own.values().sum();
        assert_eq!(seen("MESSAGE_CREATE") - messages, u64::from(shard == 0), "shard {shard}");
        assert_eq!(seen("ENTITLEMENT_CREATE"), u64::from(shard == 0), "shard {shard}");
        assert_eq!(seen("USER_UPDATE"), 1, "shard {shard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_gets_everything_later_and_in_bounded_memory() {
    const EACH: u64 = 5_000;
    let discord = discord(4, 8).await;
    let settings = "[ws.log]\nmemory = \"16 MiB\"\ndisk = \"512 MiB\"";
    let holdfast = Holdfast::start(&discord, settings).await;
    let (mut slow, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (mut good, _) = Client::identified(&holdfast.url, [1, 4]).await;
    let before = holdfast.resident_mib();
    let mut most = before;
    // 80 MB, in steps that a busy machine keeps up with.
    for _ in 0..EACH / 250 {
        discord.traffic(Traffic { burst: 250, bytes: 4_000, ..Traffic::default() });
        let sent = discord.finish_traffic().await.sent;
        good.until_last(&own(&sent, [1, 4])).await;
        most = most.max(holdfast.resident_mib());
    }
    let sent = discord.sent().sent;
    assert_eq!(sent.values().sum::<u64>(), 4 * EACH);
    finish(&discord, &mut slow, &sent, &BTreeMap::new()).await;
    most = most.max(holdfast.resident_mib());
    assert!(most < before + 48, "from {before} MiB to {most} MiB");
    assert_eq!(holdfast.metric("holdfast_ws_client_fell_behind_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_a_log_no_longer_reaches_is_told_so() {
    let discord = discord(2, 4).await;
    let settings = "[ws.log]\nmemory = \"8 MiB\"\ndisk = \"32 MiB\"";
    let holdfast = Holdfast::start(&discord, settings).await;
    let (mut slow, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 2]).await;
    // Slowly enough for the disk, more than log and sockets hold; only one of the shards.
    let much = Traffic {
        rate: 1_600.0,
        seconds: Some(7.0),
        bytes: 4_000,
        shards: Some(vec![0]),
        ..Traffic::default()
    };
    discord.traffic(much);
    let (sent, ()) = tokio::join!(discord.finish_traffic(), good.until_messages(11_200));
    assert_eq!(slow.until_end().await, Ended::Closed(4009));
    let got = slow.ledger.last();
    slow.ledger.assert_each_once(&got, &BTreeMap::new());
    slow.cut();
    assert_eq!(slow.resume(&holdfast.url).await["op"], 9);
    slow.cut();
    slow.session.clear();
    assert_eq!(slow.identify(&holdfast.url).await.guilds.len(), 4);
    discord.traffic(Traffic::burst(20));
    let after = discord.finish_traffic().await.sent;
    slow.until_last(&after).await;
    assert_eq!(slow.seen.get("HOLDFAST_GAP"), Some(&1));
    slow.ledger.assert_tail(&after, &sent.sent, "after the gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_refused_when_a_shard_of_its_is_held_elsewhere() {
    let discord = discord(4, 16).await;
    let holdfast = Holdfast::start(&discord, "shards = { total = 4, start = 2, end = 4 }").await;
    for (shard, code) in [([0, 1], 4010), ([1, 2], 4010), ([4, 8], 4010)] {
        let mut client = Client::new(shard);
        client.connect(&holdfast.url).await;
        client.send_identify().await;
        assert_eq!(client.until_end().await, Ended::Closed(code));
    }
    let (_, opened) = Client::identified(&holdfast.url, [2, 8]).await;
    assert_eq!(opened.guilds.len(), 2);
}

/// Reads so many messages: guild and id of each.
async fn messages(client: &mut Client, count: u64) -> Vec<(u64, String)> {
    let mut messages = Vec::new();
    while (messages.len() as u64) < count {
        let message = client.until("MESSAGE_CREATE").await["d"].take();
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        messages.push((text("guild_id").parse().unwrap(), text("id")));
    }
    messages
}
