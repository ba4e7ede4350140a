// SPDX-License-Identifier: AGPL-3.0-only
//! Clients of one shard with different intents: each gets exactly what Discord would have sent it.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_simulator::{Emit, Simulator, Traffic};
use serde_json::{Value, json};

use crate::support::{ALL, Client, Holdfast, Setup, discord, discord_with};

/// Each bit alone, none, all, and what bots usually ask for.
fn sets() -> Vec<u64> {
    let bits = (0..=16).chain([20, 21, 24, 25]).map(|bit| 1_u64 << bit);
    bits.chain([0, ALL, 513, 33_281, 3_276_799]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_gets_the_events_of_its_intents_and_no_others() {
    let discord = discord_with(1, 6, |limits| limits.identify_window_ms = 0).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let mut pairs = Vec::new();
    for intents in sets() {
        let (ours, opened) = Client::with_intents(&holdfast.url, [0, 1], intents).await;
        assert_eq!(opened.ready["d"]["guilds"].as_array().map(Vec::len), Some(6), "{intents:b}");
        // The same intents at Discord itself: what comes there is what should come here.
        let (direct, _) = Client::with_intents(discord.gateway_url(), [0, 1], intents).await;
        pairs.push((ours, direct));
    }
    discord.traffic(Traffic { burst: 3_000, ..Traffic::mixed(0.0) });
    discord.finish_traffic().await;
    direct_messages(&discord);
    own_memberships(&discord);
    // An event that needs no intent comes last: with it, everything before it is there.
    discord.emit(&end());
    let mut kinds = BTreeSet::new();
    for (ours, direct) in &mut pairs {
        let (got, expected) = (events_until_end(ours).await, events_until_end(direct).await);
        kinds.extend(expected.iter().cloned());
        assert_eq!(count(&got), count(&expected), "intents {:b}", ours.intents);
        assert!(got == expected, "intents {:b}: in another order", ours.intents);
    }
    assert!(kinds.len() > 25, "the traffic is mixed: {kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guilds_show_what_the_intents_allow() {
    let discord = discord(1, 3).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    for intents in sets().into_iter().filter(|intents| intents & 1 == 1) {
        let (_, opened) = Client::with_intents(&holdfast.url, [0, 1], intents).await;
        for guild in &opened.guilds {
            let id = guild["id"].as_str().unwrap().parse().unwrap();
            let expected = discord.guild_as_seen(id, intents, 50).unwrap();
            for list in ["members", "presences", "voice_states", "guild_scheduled_events", "channels"] {
                let count = |guild: &Value| guild[list].as_array().map(Vec::len);
                assert_eq!(count(guild), count(&expected), "{list} with {intents:b}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_intent_guilds_there_are_no_guilds() {
    let discord = discord(1, 3).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    let (mut client, opened) = Client::with_intents(&holdfast.url, [0, 1], 512).await;
    assert_eq!(opened.ready["d"]["guilds"].as_array().map(Vec::len), Some(3));
    discord.traffic(Traffic::burst(60));
    let sent = discord.finish_traffic().await.sent;
    client.until_last(&sent).await;
    client.ledger.assert_each_once(&sent, &BTreeMap::new());
    let names: Vec<&String> = client.seen.keys().collect();
    assert_eq!(names, ["MESSAGE_CREATE", "READY"]);
    // What is left out counts as had: the session goes on behind it.
    client.heartbeat().await;
    client.cut();
    assert_eq!(client.resume(&holdfast.url).await["t"], "RESUMED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_keeps_its_intents() {
    let discord = discord(1, 3).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let (mut client, _) = Client::with_intents(&holdfast.url, [0, 1], 1 << 11).await;
    client.cut();
    discord.traffic(Traffic { burst: 500, ..Traffic::mixed(0.0) });
    discord.finish_traffic().await;
    client.seen.clear();
    assert_eq!(client.resume(&holdfast.url).await["t"], "RESUMED");
    discord.emit(&end());
    events_until_end(&mut client).await;
    let names: Vec<&String> = client.seen.keys().collect();
    assert_eq!(names, [END, "RESUMED", "TYPING_START"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn intents_beyond_ours_are_served_with_a_warning() {
    let discord = discord(1, 3).await;
    let setup = Setup { intents: 513, ..Setup::default() };
    let holdfast = Holdfast::start_with(&discord, &setup).await;
    for _ in 0..2 {
        let (mut client, opened) = Client::with_intents(&holdfast.url, [0, 1], 513 | 1 << 11).await;
        assert_eq!(opened.guilds.len(), 3);
        discord.traffic(Traffic::burst(20));
        let sent = discord.finish_traffic().await.sent;
        client.until_last(&sent).await;
        client.cut();
    }
    assert_eq!(holdfast.metric("holdfast_ws_client_intents_missing_total").await, 2.0);
    let said = holdfast.output();
    let warnings = said.lines().filter(|line| line.contains("WARN") && line.contains("intents")).count();
    assert_eq!(warnings, 1, "once for each intent: {said}");
}

const END: &str = "ENTITLEMENT_CREATE";

fn end() -> Emit {
    Emit { t: END.into(), d: json!({ "id": "1", "application_id": "2" }), shard: Some(0), guild: None }
}

/// Events that come to shard 0 and belong to no guild.
fn direct_messages(discord: &Simulator) {
    for name in [
        "MESSAGE_CREATE",
        "MESSAGE_REACTION_ADD",
        "TYPING_START",
        "CHANNEL_PINS_UPDATE",
        "MESSAGE_POLL_VOTE_ADD",
    ] {
        for _ in 0..3 {
            let data = json!({ "id": "5", "channel_id": "6", "user_id": "7" });
            discord.emit(&Emit { t: name.into(), d: data, shard: Some(0), guild: None });
        }
    }
}

/// The bot's own member changes, and it joins a thread and leaves it: these need less than others' do.
fn own_memberships(discord: &Simulator) {
    let (guild, own) = (discord.guilds(0, 1)[0], holdfast_simulator::BOT_USER.to_string());
    let of_guild = |name: &str, mut data: Value| {
        data["guild_id"] = json!(guild.to_string());
        discord.emit_in(guild, name, data);
    };
    of_guild("GUILD_MEMBER_UPDATE", json!({ "user": { "id": own }, "nick": "me", "roles": [] }));
    let joined = json!({ "id": "8", "member_count": 2, "added_members": [{ "id": "8", "user_id": own }] });
    of_guild("THREAD_MEMBERS_UPDATE", joined);
    of_guild("THREAD_MEMBERS_UPDATE", json!({ "id": "8", "member_count": 1, "removed_member_ids": [own] }));
}

/// The names of what comes, up to the last event.
async fn events_until_end(client: &mut Client) -> Vec<String> {
    let mut events = Vec::new();
    while events.last().is_none_or(|name| name != END) {
        let payload = client.next().await.expect("more events come");
        events.push(payload["t"].as_str().unwrap_or_default().to_owned());
    }
    events
}

fn count(events: &[String]) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for name in events {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}
