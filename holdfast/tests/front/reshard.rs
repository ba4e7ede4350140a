// SPDX-License-Identifier: AGPL-3.0-only
//! The bot gets another number of shards while it runs: its clients don't notice, whatever their own count is, and who was
//! away is caught up.

use std::collections::BTreeMap;

use holdfast_simulator::{Simulator, Traffic};
use serde_json::{Value, json};
use tokio::{select, sync::watch};

use crate::support::{Client, Ended, Holdfast, TOKEN, discord_with, until};

/// Lines of `[ws]`: long enough for an event to come over both connections of this machine.
const OVERLAP: &str = "[ws.reshard]\noverlap = \"1s\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_any_count_go_on_under_traffic() {
    for (from, to) in [(4, 8), (8, 4), (4, 6)] {
        let discord = with_room(from, to).await;
        let holdfast = Holdfast::start(&discord, OVERLAP).await;
        holdfast.live().await;
        let mut shards = vec![[0, 1], [1, 2]];
        shards.extend((0..from).map(|shard| [shard, from]));
        shards.extend((0..to).map(|shard| [shard, to]));
        let (say, sent) = watch::channel(None);
        let mut clients = Vec::new();
        for shard in shards {
            let (client, _) = Client::identified(&holdfast.url, shard).await;
            clients.push(tokio::spawn(follow(client, holdfast.url.clone(), sent.clone())));
        }
        discord.traffic(Traffic::messages(200.0));
        until("messages before", async || total(&discord) > 1_000).await;
        reshard(&holdfast, to).await;
        let then = total(&discord);
        until("messages afterwards", async || total(&discord) > then + 1_000).await;
        say.send(Some(discord.stop_traffic().await.sent)).unwrap();
        for client in clients {
            let client = client.await.unwrap();
            assert_kept(&client, &own(&discord.sent().sent, client.shard));
            assert_eq!(client.seen.get("READY"), Some(&1), "{:?} didn't notice", client.shard);
            assert!(client.seen.contains_key("RESUMED"), "{:?} came back", client.shard);
        }
        assert_eq!(discord.violations().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_after_a_reshard_resumes_from_before_it() {
    let discord = with_room(4, 8).await;
    // Small blocks: much of what is missed comes from disk.
    let holdfast = Holdfast::start(&discord, &format!("{OVERLAP}[ws.log]\nmemory = \"4 MiB\"")).await;
    holdfast.live().await;
    let mut clients = Vec::new();
    for shard in [[0, 1], [1, 4], [5, 8], [2, 3]] {
        clients.push(Client::identified(&holdfast.url, shard).await.0);
    }
    discord.traffic(Traffic::burst(200));
    let had = discord.finish_traffic().await.sent;
    for client in &mut clients {
        client.until_last(&own(&had, client.shard)).await;
        client.cut();
    }
    holdfast.nobody().await;
    discord.traffic(Traffic::messages(400.0));
    until("messages before", async || total(&discord) > 4_000).await;
    reshard(&holdfast, 8).await;
    let then = total(&discord);
    until("messages afterwards", async || total(&discord) > then + 2_000).await;
    for client in &mut clients {
        // Cut in the middle of what it missed, and once more behind it.
        for more in [300, 0, 1_000] {
            client.connect(&holdfast.url).await;
            client.send(&client.resume_payload()).await;
            client.until_messages(client.ledger.count() + more).await;
            if more == 0 {
                client.until("RESUMED").await;
                client.heartbeat().await;
            }
            client.cut();
        }
        let resumed = client.resume(&holdfast.url).await;
        assert_eq!(resumed["t"], "RESUMED", "{:?}: {resumed}", client.shard);
    }
    let sent = discord.stop_traffic().await.sent;
    for client in &mut clients {
        let own = own(&sent, client.shard);
        client.until_last(&own).await;
        assert_kept(client, &own);
        assert_eq!(client.seen.get("READY"), Some(&1));
        client.cut();
        // Neither before its beginning nor under another's name.
        client.sequence = 1;
        assert_eq!(client.resume(&holdfast.url).await["op"], 9);
        client.cut();
        client.session = "unknown".into();
        assert_eq!(client.resume(&holdfast.url).await["op"], 9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_was_away_over_a_reshard_is_caught_up() {
    for shard in [[1, 4], [0, 1], [5, 8]] {
        let (discord, holdfast, had) = away_over_a_reshard(&[shard]).await;
        let (mut new, opened) = Client::identified(&holdfast.url, shard).await;
        assert_eq!(opened.guilds.len(), own(&had, shard).len());
        finish(&discord, &mut [&mut new], &had).await;
        // Caught up, it resumes like any other, and isn't caught up again.
        new.heartbeat().await;
        new.cut();
        assert_eq!(new.resume(&holdfast.url).await["t"], "RESUMED");
        new.cut();
        holdfast.nobody().await;
        let before = discord.sent().sent;
        let (mut again, _) = Client::identified(&holdfast.url, shard).await;
        discord.traffic(Traffic::burst(30));
        discord.finish_traffic().await;
        finish(&discord, &mut [&mut again], &before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_comes_back_with_the_new_count_is_caught_up() {
    let (discord, holdfast, had) = away_over_a_reshard(&[[0, 4], [1, 4], [2, 4], [3, 4]]).await;
    let mut clients = Vec::new();
    for shard in 0..8 {
        clients.push(Client::identified(&holdfast.url, [shard, 8]).await.0);
    }
    finish(&discord, &mut clients.iter_mut().collect::<Vec<_>>(), &had).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_to_the_new_shards() {
    let discord = with_room(4, 8).await;
    let holdfast = Holdfast::start(&discord, OVERLAP).await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [1, 4]).await;
    tokio::join!(reshard(&holdfast, 8), farewell(&mut client));
    assert_eq!(client.resume(&holdfast.url).await["t"], "RESUMED");
    discord.clear_records();
    client.send(&json!({ "op": 3, "d": { "status": "idle" } })).await;
    let records = discord.wait_for_records(3, 2).await.unwrap();
    let mut shards: Vec<_> = records.iter().map(|record| record.shard).collect();
    shards.sort_unstable();
    assert_eq!(shards, [Some([1, 8]), Some([5, 8])]);
    let guild = discord.guilds(5, 8)[0].to_string();
    client.send(&json!({ "op": 43, "d": { "guild_id": guild, "fields": ["status"] } })).await;
    assert_eq!(client.until("CHANNEL_INFO").await["d"]["guild_id"], guild);
}

/// Voice ends with the session that began it.
#[tokio::test(flavor = "multi_thread")]
async fn presence_and_voice_are_asked_for_by_the_new_shards() {
    let discord = with_room(4, 8).await;
    let holdfast = Holdfast::start(&discord, OVERLAP).await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [1, 4]).await;
    let guild = discord.guilds(5, 8)[0];
    let channels = discord.guild(guild).expect("a guild")["channels"].clone();
    let channel = channels.as_array().and_then(|all| all.iter().find(|c| c["type"] == 2)).expect("voice");
    let wanted = json!({
        "guild_id": guild.to_string(), "channel_id": channel["id"], "self_mute": false, "self_deaf": true,
    });
    client.send(&json!({ "op": 4, "d": wanted })).await;
    client.until("VOICE_SERVER_UPDATE").await;
    let presence = json!({ "since": null, "activities": [], "status": "idle", "afk": false });
    client.send(&json!({ "op": 3, "d": presence })).await;
    discord.wait_for_records(3, 1).await.expect("the presence");
    tokio::join!(reshard(&holdfast, 8), farewell(&mut client));
    let voice = discord.wait_for_records(4, 2).await.expect("the new shard's");
    assert_eq!((voice[1].shard, &voice[1].d["channel_id"]), (Some([5, 8]), &channel["id"]));
    let mut presences = discord.wait_for_records(3, 1 + 8).await.expect("the new shards'").split_off(1);
    presences.sort_unstable_by_key(|record| record.shard);
    let shards: Vec<_> = presences.iter().map(|record| record.shard.expect("identified")).collect();
    assert_eq!(shards, (0..8).map(|shard| [shard, 8]).collect::<Vec<_>>());
    assert!(presences.iter().all(|record| record.d["status"] == "idle"));
    assert_eq!(client.resume(&holdfast.url).await["t"], "RESUMED");
    if client.seen.get("VOICE_SERVER_UPDATE") == Some(&1) {
        client.until("VOICE_SERVER_UPDATE").await;
    }
    assert_eq!(discord.violations().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_from_before_a_reshard_outlive_a_restart_after_it() {
    let discord = with_room(4, 8).await;
    let mut holdfast = Holdfast::start(&discord, OVERLAP).await;
    holdfast.live().await;
    let mut clients = Vec::new();
    for shard in [[3, 4], [0, 1], [5, 8]] {
        clients.push(Client::identified(&holdfast.url, shard).await.0);
    }
    let all = futures_util::future::join_all(clients.iter_mut().map(farewell));
    tokio::join!(reshard(&holdfast, 8), all);
    discord.traffic(Traffic::messages(100.0));
    for _ in 0..2 {
        for client in &mut clients {
            assert_eq!(client.resume(&holdfast.url).await["t"], "RESUMED", "{:?}", client.shard);
            client.until_messages(client.ledger.count() + 200).await;
            client.heartbeat().await;
        }
        let all = futures_util::future::join_all(clients.iter_mut().map(farewell));
        tokio::join!(holdfast.terminate_and_restart(), all);
    }
    for client in &mut clients {
        assert_eq!(client.resume(&holdfast.url).await["t"], "RESUMED", "{:?}", client.shard);
    }
    let sent = discord.stop_traffic().await.sent;
    for client in &mut clients {
        let own = own(&sent, client.shard);
        client.until_last(&own).await;
        assert_kept(client, &own);
        assert_eq!(client.seen.get("READY"), Some(&1));
    }
}

/// A Discord that both counts can identify at.
async fn with_room(from: u32, to: u32) -> Simulator {
    discord_with(from, 24, |limits| limits.max_concurrency = from.max(to)).await
}

/// Clients of four shards of ours got some messages and left; four became eight. Gives what they had.
async fn away_over_a_reshard(shards: &[[u32; 2]]) -> (Simulator, Holdfast, BTreeMap<String, u64>) {
    let discord = with_room(4, 8).await;
    let holdfast = Holdfast::start(&discord, OVERLAP).await;
    holdfast.live().await;
    let mut clients = Vec::new();
    for shard in shards {
        clients.push(Client::identified(&holdfast.url, *shard).await.0);
    }
    discord.traffic(Traffic::burst(50));
    let had = discord.finish_traffic().await.sent;
    for client in &mut clients {
        client.until_last(&own(&had, client.shard)).await;
        client.cut();
    }
    holdfast.nobody().await;
    discord.traffic(Traffic::burst(300));
    discord.finish_traffic().await;
    discord.traffic(Traffic::messages(200.0));
    reshard(&holdfast, 8).await;
    let then = total(&discord);
    until("messages afterwards", async || total(&discord) > then + 500).await;
    discord.stop_traffic().await;
    (discord, holdfast, had)
}

/// Each client gets what was sent to its guilds since `had`, and what comes now; nothing else.
async fn finish(discord: &Simulator, clients: &mut [&mut Client], had: &BTreeMap<String, u64>) {
    discord.traffic(Traffic::burst(50));
    let sent = discord.finish_traffic().await.sent;
    for client in clients {
        let own = own(&sent, client.shard);
        assert!(!own.is_empty());
        client.until_last(&own).await;
        for (guild, last) in &own {
            let got = client.ledger.got().get(guild).cloned().unwrap_or_default();
            let first = had.get(guild).copied().unwrap_or(0) + 1;
            assert_in_order(guild, &got, first..=*last);
        }
    }
    assert_eq!(discord.violations().len(), 0);
}

/// What a library does: it confirms when asked, comes back when told, and resumes. Until all that was sent is here.
async fn follow(
    mut client: Client,
    url: String,
    mut sent: watch::Receiver<Option<BTreeMap<String, u64>>>,
) -> Client {
    loop {
        let all = sent.borrow_and_update().as_ref().map(|sent| own(sent, client.shard));
        if all.is_some_and(|all| client.ledger.has_last(&all)) {
            return client;
        }
        let next = select! {
            next = client.next() => next,
            _ = sent.changed() => continue,
        };
        match next {
            Ok(payload) if payload["op"] == 1 => confirm(&mut client).await,
            Ok(_) => {}
            Err(ended) => {
                assert!(matches!(ended, Ended::Closed(4000) | Ended::Cut), "{:?}: {ended:?}", client.shard);
                client.cut();
                let resumed = client.resume(&url).await;
                assert_eq!(resumed["t"], "RESUMED", "{:?}: {resumed}", client.shard);
            }
        }
    }
}

/// Confirms when asked, and is sent away.
async fn farewell(client: &mut Client) {
    while let Ok(payload) = client.next().await {
        if payload["op"] == 1 {
            confirm(client).await;
        }
    }
    client.cut();
}

async fn confirm(client: &mut Client) {
    let confirmation = json!({ "op": 1, "d": client.sequence });
    // The connection may be over.
    let _ = client.try_send(&confirmation).await;
}

/// Has the bot's shards changed to so many, and waits until they are.
async fn reshard(holdfast: &Holdfast, shards: u32) {
    let (status, begun) = ask(holdfast, "POST", &format!("/reshard?shards={shards}")).await;
    assert_eq!(status, 202, "{begun}");
    until("the new shards", async || {
        let (status, answer) = ask(holdfast, "GET", "/reshard").await;
        assert_eq!(status, 200, "{answer}");
        answer["phase"].is_null() && answer["shards"] == shards
    })
    .await;
    holdfast.live().await;
}

/// Status and JSON of an answer of the admin listener's.
async fn ask(holdfast: &Holdfast, method: &str, path: &str) -> (u16, Value) {
    let head = format!("{method} {path} HTTP/1.1\r\nauthorization: Bot {TOKEN}\r\ncontent-length: 0");
    let (status, body) = holdfast.request(&head).await;
    (status, serde_json::from_str(&body).unwrap_or_default())
}

/// The client got all of these messages, each guild's once and in order.
fn assert_kept(client: &Client, own: &BTreeMap<String, u64>) {
    assert!(!own.is_empty());
    for (guild, last) in own {
        let got = client.ledger.got().get(guild).cloned().unwrap_or_default();
        assert_in_order(&format!("{:?}, {guild}", client.shard), &got, 1..=*last);
    }
    assert_eq!(client.ledger.last().len(), own.len(), "{:?}: no other's guilds", client.shard);
}

fn assert_in_order(what: &str, got: &[u64], expected: std::ops::RangeInclusive<u64>) {
    assert!(got.iter().copied().eq(expected.clone()), "{what}: {got:?} should be {expected:?}");
}

/// The messages of a client's guilds.
pub(super) fn own(sent: &BTreeMap<String, u64>, [shard, count]: [u32; 2]) -> BTreeMap<String, u64> {
    let is_own = |guild: &String| {
        let guild: u64 = guild.parse().unwrap();
        (guild >> 22) % u64::from(count) == u64::from(shard)
    };
    sent.iter().filter(|(guild, _)| is_own(guild)).map(|(guild, last)| (guild.clone(), *last)).collect()
}

/// How many messages were sent in all.
pub(super) fn total(discord: &Simulator) -> u64 {
    discord.sent().sent.values().sum()
}
