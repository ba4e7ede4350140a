// SPDX-License-Identifier: AGPL-3.0-only
//! Requests about guilds, the world that changes, and the control routes.
use crate::client::{Client, identify};
use holdfast_simulator::{Limits, Options, RestLimits, Simulator, Traffic, WorldSpec};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn all_members_come_in_chunks_and_only_once_per_window() {
    let world = WorldSpec { members: 2_500, guilds: 2, ..WorldSpec::default() };
    let discord = start(world, Limits::default()).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    let guild = discord.guilds(0, 1)[0].to_string();
    let request =
        json!({"op": 8, "d": {"guild_id": guild, "query": "", "limit": 0, "presences": true, "nonce": "n1"}});
    client.send(&request).await;
    let mut members = 0;
    for index in 0..3 {
        let chunk = client.dispatch("GUILD_MEMBERS_CHUNK").await;
        assert_eq!(
            (&chunk["chunk_index"], &chunk["chunk_count"], &chunk["nonce"]),
            (&json!(index), &json!(3), &json!("n1"))
        );
        members += chunk["members"].as_array().unwrap().len();
        assert_eq!(chunk["presences"].as_array().unwrap().is_empty(), index > 0);
    }
    assert_eq!(members, 2_500);
    client.send(&request).await;
    let limited = client.dispatch("RATE_LIMITED").await;
    assert_eq!(
        (&limited["opcode"], &limited["meta"]),
        (&json!(8), &json!({"guild_id": guild, "nonce": "n1"}))
    );
    assert!(limited["retry_after"].as_f64().unwrap() > 25.0);
}

#[tokio::test]
async fn members_are_found_by_id_and_prefix_and_long_nonces_are_ignored() {
    let discord = start(WorldSpec::default(), Limits::default()).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    let guild = discord.guilds(0, 1)[0];
    let member = discord.guild(guild).unwrap()["members"][7]["user"].clone();
    let ids = json!([member["id"], "99"]);
    client
        .send(
            &json!({"op": 8, "d": {"guild_id": guild.to_string(), "user_ids": ids, "nonce": "x".repeat(33)}}),
        )
        .await;
    let chunk = client.dispatch("GUILD_MEMBERS_CHUNK").await;
    assert_eq!((&chunk["members"][0]["user"], &chunk["not_found"]), (&member, &json!(["99"])));
    assert!(chunk.get("nonce").is_none() && chunk.get("presences").is_none());
    let prefix = &member["username"].as_str().unwrap()[..6];
    client.send(&json!({"op": 8, "d": {"guild_id": guild.to_string(), "query": prefix, "limit": 5}})).await;
    let chunk = client.dispatch("GUILD_MEMBERS_CHUNK").await;
    assert!(chunk["members"].as_array().unwrap().iter().any(|found| found["user"] == member));
}

#[tokio::test]
async fn voice_sounds_and_channel_info_are_answered() {
    let discord = start(WorldSpec::default(), Limits::default()).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    let id = discord.guilds(0, 1)[0];
    let (guild, whole) = (id.to_string(), discord.guild(id).unwrap());
    let channel = whole["channels"][1]["id"].clone();
    let join = json!({"guild_id": guild, "channel_id": channel, "self_mute": true, "self_deaf": false});
    client.send(&json!({"op": 4, "d": join})).await;
    let state = client.dispatch("VOICE_STATE_UPDATE").await;
    assert_eq!(
        (&state["user_id"], &state["self_mute"]),
        (&json!(discord.bot_user().to_string()), &json!(true))
    );
    assert_eq!(state["session_id"].as_str(), Some(client.session.as_str()));
    assert!(client.dispatch("VOICE_SERVER_UPDATE").await["endpoint"].is_string());
    assert_eq!(discord.guild(id).unwrap()["voice_states"].as_array().unwrap().len(), 4);
    client.send(&json!({"op": 4, "d": {"guild_id": guild, "channel_id": null, "self_mute": false, "self_deaf": false}})).await;
    assert!(client.dispatch("VOICE_STATE_UPDATE").await["channel_id"].is_null());

    client.send(&json!({"op": 31, "d": {"guild_ids": [guild]}})).await;
    assert_eq!(client.dispatch("SOUNDBOARD_SOUNDS").await["soundboard_sounds"], whole["soundboard_sounds"]);

    discord.emit_in(
        id,
        "VOICE_CHANNEL_STATUS_UPDATE",
        json!({"id": channel, "guild_id": guild, "status": "hi"}),
    );
    client.dispatch("VOICE_CHANNEL_STATUS_UPDATE").await;
    client.send(&json!({"op": 43, "d": {"guild_id": guild, "fields": ["status"]}})).await;
    assert_eq!(client.dispatch("CHANNEL_INFO").await["channels"][0], json!({"id": channel, "status": "hi"}));
}

#[tokio::test]
async fn after_mixed_traffic_a_new_identify_shows_the_world_as_it_is_now() {
    let limits = Limits { identify_window_ms: 0, ..Limits::default() };
    let discord = start(WorldSpec { guilds: 4, ..WorldSpec::default() }, limits).await;
    let mut watching = Client::ready(&discord, [0, 1]).await;
    let before = discord.guild(discord.guilds(0, 1)[0]).unwrap();
    discord.traffic(Traffic { burst: 2_000, ..Traffic::mixed(0.0) });
    let sent = discord.finish_traffic().await;
    assert!(sent.sent.values().sum::<u64>() > 800);
    let mut last = watching.sequence;
    discord.emit_in(discord.guilds(0, 1)[0], "WEBHOOKS_UPDATE", json!({}));
    loop {
        let payload = watching.payload().await;
        assert_eq!(payload["s"], last + 1, "none is missing");
        last += 1;
        if payload["t"] == "WEBHOOKS_UPDATE" {
            break;
        }
    }
    let mut fresh = Client::connect(discord.gateway_url()).await;
    fresh.send(&identify([0, 1])).await;
    for _ in 0..fresh.take_ready().await {
        let mut shown = fresh.dispatch("GUILD_CREATE").await;
        let id = shown["id"].as_str().unwrap().parse().unwrap();
        shown["large"] = Value::Bool(false);
        assert_eq!(Some(shown), discord.guild(id));
        assert_ne!(discord.guild(id).unwrap()["name"], before["name"]);
    }
}

#[tokio::test]
async fn a_world_rate_is_kept_and_stops_when_told() {
    let limits = Limits { shards: 2, max_concurrency: 2, ..Limits::default() };
    let discord = start(WorldSpec::default(), limits).await;
    let mut client = Client::ready(&discord, [1, 2]).await;
    let start = std::time::Instant::now();
    discord.traffic(Traffic::messages(500.0));
    while client.sequence < 9 + 250 {
        client.dispatch("MESSAGE_CREATE").await;
    }
    let elapsed = start.elapsed().as_secs_f64();
    assert!((0.4..1.5).contains(&elapsed), "250 events at 500 a second took {elapsed} s");
    let sent = discord.stop_traffic().await;
    assert!(!sent.running);
    let count: u64 = discord.guilds(1, 2).iter().map(|guild| sent.sent[&guild.to_string()]).sum();
    while client.sequence < 9 + count {
        client.dispatch("MESSAGE_CREATE").await;
    }
}

#[tokio::test]
async fn rest_wants_a_token_and_the_control_routes_do_what_the_methods_do() {
    let discord = start(WorldSpec::default(), Limits { shards: 3, ..Limits::default() }).await;
    let (status, _) = http(&discord, "GET", "/api/v10/gateway/bot", "", "").await;
    assert_eq!(status, 401);
    let (_, bot) =
        http(&discord, "GET", "/api/v10/gateway/bot", "authorization: Bot sim-token\r\n", "").await;
    assert_eq!((&bot["shards"], &bot["url"]), (&json!(3), &json!(discord.gateway_url())));
    let (status, _) = http(&discord, "GET", "/api/v10/nowhere", "", "").await;
    assert_eq!(status, 404);
    let seen: Vec<_> =
        discord.requests().iter().map(|request| (request.path.clone(), request.status)).collect();
    assert_eq!(seen[2], ("/api/v10/nowhere".to_owned(), 404));

    let (_, limits) = http(&discord, "POST", "/control/limits", "", r#"{"max_concurrency": 16}"#).await;
    assert_eq!(limits["max_concurrency"], 16);
    let (status, _) = http(&discord, "POST", "/control/fault", "", r#"{"kind": "nonsense"}"#).await;
    assert_eq!(status, 400);
    let (_, guild) =
        http(&discord, "GET", &format!("/control/guild/{}", discord.guilds(0, 1)[0]), "", "").await;
    assert_eq!(guild["members"].as_array().unwrap().len(), 40);
    let traffic = r#"{"kind": "messages", "rate": 0, "burst": 3, "shards": null}"#;
    http(&discord, "POST", "/control/traffic", "", traffic).await;
    discord.finish_traffic().await;
    let (_, sent) = http(&discord, "DELETE", "/control/traffic", "", "").await;
    assert_eq!(sent["sent"].as_object().unwrap().len(), 9, "three guilds of each of three shards");
    let (_, state) = http(&discord, "GET", "/control/state", "", "").await;
    assert_eq!(state["identifies_remaining"], 1_000);
}

#[tokio::test]
async fn a_message_sent_by_rest_is_an_event_and_the_channels_latest() {
    let discord = start(WorldSpec::default(), Limits::default()).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    let guild = discord.guilds(0, 1)[0];
    let channel = discord.guild(guild).unwrap()["channels"][0]["id"].clone();
    let path = format!("/api/v10/channels/{}/messages", channel.as_str().unwrap());
    let (status, message) =
        http(&discord, "POST", &path, "authorization: Bot sim-token\r\n", r#"{"content": "hello"}"#).await;
    assert_eq!((status, &message["content"]), (200, &json!("hello")));
    let event = client.dispatch("MESSAGE_CREATE").await;
    assert_eq!((&event["id"], &event["guild_id"]), (&message["id"], &json!(guild.to_string())));
    assert_eq!(discord.guild(guild).unwrap()["channels"][0]["last_message_id"], message["id"]);
    let (status, unknown) =
        http(&discord, "GET", "/api/v10/channels/1", "authorization: Bot sim-token\r\n", "").await;
    assert_eq!((status, &unknown["code"]), (404, &json!(10_003)));
}

#[tokio::test]
async fn rest_limits_answer_429_and_then_a_ban_page() {
    let discord = start(WorldSpec::default(), Limits::default()).await;
    discord.set_rest_limits(RestLimits {
        invalid_requests: 3,
        default_limit: 10,
        default_seconds: 5.0,
        ..RestLimits::default()
    });
    let token = "authorization: Bot sim-token\r\n";
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(http(&discord, "GET", "/api/v10/guilds/1/bans", token, "").await.0);
    }
    assert_eq!(statuses, [vec![200; 10], vec![429; 2]].concat());
    let (_, limited) = http(&discord, "GET", "/api/v10/guilds/1/bans", token, "").await;
    assert!(limited["retry_after"].as_f64().unwrap() > 3.0 && limited["global"] == false, "{limited}");
    let (status, page) = http(&discord, "GET", "/api/v10/guilds/2/bans", token, "").await;
    assert_eq!((status, page), (429, Value::Null), "banned, and not in JSON");
}

/// One request on a connection of its own.
async fn http(discord: &Simulator, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
    let address = discord.api_url().trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let mut tcp = tokio::net::TcpStream::connect(&address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn start(world: WorldSpec, limits: Limits) -> Simulator {
    Simulator::start(Options { world, limits, ..Options::default() }).await.unwrap()
}
