// SPDX-License-Identifier: AGPL-3.0-only
//! What clients send to Discord: it arrives, within Discord's limits, and the answers reach those who asked.

use std::collections::BTreeMap;

use holdfast_simulator::{Fault, FaultKind, Simulator, Traffic};
use serde_json::{Value, json};

use crate::support::{Client, Ended, Holdfast, discord, discord_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_presence_reaches_discord_whole() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let presence = json!({ "since": 91879201, "activities": [{ "name": "x", "type": 0 }], "status": "dnd", "afk": true });
    client.send(&json!({ "op": 3, "d": presence })).await;
    assert_eq!(discord.wait_for_records(3, 1).await.unwrap()[0].d, presence);
    // Libraries leave out what Discord insists on.
    client.send(&json!({ "op": 3, "d": { "status": null, "activities": null } })).await;
    let whole = json!({ "since": null, "activities": [], "status": "online", "afk": false });
    assert_eq!(discord.wait_for_records(3, 2).await.unwrap()[1].d, whole);
    client.heartbeat().await;
    no_violations(&discord);
}

#[tokio::test(flavor = "multi_thread")]
async fn voice_credentials_reach_the_client_and_come_again_after_its_restart() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (guild, voice) = join_voice(&discord, &mut client).await;
    client.cut();
    let (mut again, _) = Client::identified(&holdfast.url, [0, 1]).await;
    assert_eq!(credentials(&mut again).await, voice, "the same again");
    assert_eq!(discord.records(4).len(), 1, "without asking Discord");
    // The voice server goes away: what is known is stale, and a client that comes then must get new credentials.
    discord.emit_in(
        guild,
        "VOICE_SERVER_UPDATE",
        json!({ "token": "x", "guild_id": guild.to_string(), "endpoint": null }),
    );
    again.until("VOICE_SERVER_UPDATE").await;
    again.cut();
    let (mut third, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let new = credentials(&mut third).await;
    assert_ne!(new[1]["token"], voice[1]["token"]);
    assert!(new[1]["endpoint"].is_string());
    assert_eq!(discord.records(4).len(), 2, "asked anew");
    // The bot has left: there is nothing to restore.
    third.send(&json!({ "op": 4, "d": { "guild_id": guild.to_string(), "channel_id": null, "self_mute": false, "self_deaf": false } })).await;
    while third.until("VOICE_STATE_UPDATE").await["d"]["channel_id"] != Value::Null {}
    third.cut();
    assert_eq!(restored(&discord, &holdfast).await, 0);
    no_violations(&discord);
}

#[tokio::test(flavor = "multi_thread")]
async fn voice_is_not_restored_when_the_settings_say_so() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "restore_voice = false").await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    join_voice(&discord, &mut client).await;
    client.cut();
    assert_eq!(restored(&discord, &holdfast).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_and_voice_outlive_discords_session() {
    let discord = discord(1, 4).await;
    let settings = "presence = { status = \"idle\", activity = { type = 0, name = \"on shard {{shard}}\" } }";
    let holdfast = Holdfast::start(&discord, settings).await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let first = discord.records(2)[0].d["presence"].clone();
    assert_eq!((&first["status"], &first["activities"][0]["name"]), (&json!("idle"), &json!("on shard 0")));
    let presence = json!({ "since": null, "activities": [], "status": "dnd", "afk": false });
    client.send(&json!({ "op": 3, "d": presence })).await;
    let (guild, _) = join_voice(&discord, &mut client).await;
    discord.fault(&Fault::new(0, FaultKind::Op9).resumable(false));
    let identifies = discord.wait_for_records(2, 2).await.unwrap();
    assert_eq!(identifies[1].d["presence"], presence);
    let states = discord.wait_for_records(4, 2).await.unwrap();
    assert_eq!(states[1].d, states[0].d);
    assert_eq!(states[1].d["guild_id"], guild.to_string());
    no_violations(&discord);
}

#[tokio::test(flavor = "multi_thread")]
async fn sounds_and_channel_info_are_asked_and_answered() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let guild = discord.guilds(0, 1)[0];
    client.send(&json!({ "op": 31, "d": { "guild_ids": [guild.to_string()] } })).await;
    let sounds = client.until("SOUNDBOARD_SOUNDS").await;
    assert_eq!(sounds["d"]["soundboard_sounds"], discord.guild(guild).unwrap()["soundboard_sounds"]);
    let wanted = json!({ "guild_id": guild.to_string(), "fields": ["status"] });
    client.send(&json!({ "op": 43, "d": wanted })).await;
    let info = client.until("CHANNEL_INFO").await;
    assert_eq!(info["d"]["guild_id"], guild.to_string());
    no_violations(&discord);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opcode_nobody_here_knows_is_discords_to_judge() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    client.send(&json!({ "op": 77, "d": { "any": [1, "x", null] } })).await;
    let record = &discord.wait_for_records(77, 1).await.unwrap()[0];
    assert_eq!(record.d, json!({ "any": [1, "x", null] }));
    // Discord refuses it and closes our connection: we are back without anybody noticing.
    discord.wait_for_resume(0).await.unwrap();
    holdfast.live().await;
    client.heartbeat().await;
    // Now it is known to be none: whoever sends it again is told, and Discord isn't.
    client.send(&json!({ "op": 77, "d": {} })).await;
    assert_eq!(client.until_end().await, Ended::Closed(4001));
    discord.traffic(Traffic::burst(40));
    let sent = discord.finish_traffic().await.sent;
    good.until_last(&sent).await;
    good.ledger.assert_each_once(&sent, &BTreeMap::new());
    assert_eq!(discord.records(77).len(), 1);
    let kinds: Vec<_> = discord.violations().into_iter().map(|violation| violation.kind).collect();
    assert_eq!(kinds, ["close_4001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_busy_clients_share_what_discord_allows_and_heartbeats_go_on() {
    const EACH: usize = 100;
    let discord = discord_with(1, 4, |limits| limits.heartbeat_interval_ms = 8_000).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::identified(&holdfast.url, [0, 1]).await.0);
    }
    let (guild, _) = join_voice(&discord, &mut clients[0]).await;
    for number in 0..EACH {
        for (client, name) in clients.iter_mut().zip(["a", "b", "c"]) {
            let activity = json!({ "name": name, "type": 0, "state": number.to_string() });
            let presence =
                json!({ "since": null, "activities": [activity], "status": "online", "afk": false });
            client.send(&json!({ "op": 3, "d": presence })).await;
        }
    }
    discord.wait_for_records(3, 90).await.unwrap();
    let heartbeats = discord.records(1).len();
    discord.wait_for_records(1, heartbeats + 2).await.unwrap();
    let sent = discord.records(3);
    assert!((90..=120).contains(&sent.len()), "{}", sent.len());
    for name in ["a", "b", "c"] {
        let states: Vec<_> = sent
            .iter()
            .filter(|record| record.d["activities"][0]["name"] == name)
            .map(|record| record.d["activities"][0]["state"].as_str().unwrap().parse::<usize>().unwrap())
            .collect();
        assert!(states.len() >= sent.len() / 3 - 1, "{name} had {} of {}", states.len(), sent.len());
        assert!(states.is_sorted(), "{name} in order");
    }
    for client in &mut clients {
        client.heartbeat().await;
    }
    no_violations(&discord);
    assert!(guild > 0);
    assert_eq!(holdfast.metric("holdfast_ws_commands_dropped_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_floods_is_closed_before_discord_sees_it() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    for _ in 0..121 {
        client.send(&json!({ "op": 3, "d": { "status": "online" } })).await;
    }
    assert_eq!(client.until_end().await, Ended::Closed(4008));
    good.heartbeat().await;
    no_violations(&discord);
}

/// The bot joins the first guild's voice channel: the guild, and the `d` of both events.
async fn join_voice(discord: &Simulator, client: &mut Client) -> (u64, [Value; 2]) {
    let guild = discord.guilds(0, 1)[0];
    let channels = discord.guild(guild).expect("a guild")["channels"].clone();
    let channel = channels.as_array().and_then(|all| all.iter().find(|c| c["type"] == 2)).expect("voice");
    let wanted = json!({
        "guild_id": guild.to_string(), "channel_id": channel["id"], "self_mute": false, "self_deaf": true,
    });
    client.send(&json!({ "op": 4, "d": wanted })).await;
    (guild, credentials(client).await)
}

/// Reads on to the bot's own voice state and its server.
async fn credentials(client: &mut Client) -> [Value; 2] {
    let own = holdfast_simulator::BOT_USER.to_string();
    let state = loop {
        let state = client.until("VOICE_STATE_UPDATE").await;
        if state["d"]["user_id"] == own.as_str() {
            break state["d"].clone();
        }
    };
    assert!(state["session_id"].is_string());
    [state, client.until("VOICE_SERVER_UPDATE").await["d"].clone()]
}

/// A client that identifies now: how many voice servers it is told of.
async fn restored(discord: &Simulator, holdfast: &Holdfast) -> u64 {
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    // Messages behind whatever would have been restored.
    discord.traffic(Traffic::burst(20));
    client.until_last(&discord.finish_traffic().await.sent).await;
    client.seen.get("VOICE_SERVER_UPDATE").copied().unwrap_or(0)
}

fn no_violations(discord: &Simulator) {
    let violations = discord.violations();
    assert!(violations.is_empty(), "{violations:?}");
}
