// SPDX-License-Identifier: AGPL-3.0-only
//! Every close code, and the payload that earns it.
use std::time::Duration;

use crate::client::{ALL, Client, Got, identify};
use holdfast_simulator::{Fault, FaultKind, Limits, Options, Simulator, Traffic, WorldSpec};
use serde_json::{Value, json};

#[tokio::test]
async fn payloads_that_cannot_be_decoded_are_closed_with_4002() {
    let discord = start(Limits::default()).await;
    let long = json!({"op": 1, "d": null, "x": "x".repeat(4_100)}).to_string();
    for text in ["not json", "[]", "{}", r#"{"op":"1"}"#, r#"{"op":1,"d":"x"}"#, r#"{"op":2,"d":{}}"#, &long]
    {
        let mut client = Client::connect(discord.gateway_url()).await;
        client.send_text(text).await;
        assert_eq!(client.closed().await, 4002, "{text}");
    }
}

#[tokio::test]
async fn identifies_are_judged_by_token_shard_and_intents() {
    let discord = start(Limits { disallowed_intents: 1 << 8, ..Limits::default() }).await;
    for (field, value, code) in [
        ("token", json!("wrong"), 4004),
        ("token", json!(7), 4002),
        ("properties", Value::Null, 4002),
        ("shard", json!([1, 1]), 4010),
        ("shard", json!([0, 0]), 4010),
        ("shard", json!([0]), 4010),
        ("shard", json!("0"), 4010),
        ("intents", json!(1_u64 << 17), 4013),
        ("intents", Value::Null, 4013),
        ("intents", json!("1"), 4002),
        ("intents", json!(ALL), 4014),
    ] {
        let mut payload = identify([0, 1]);
        payload["d"]["intents"] = json!(1);
        payload["d"][field] = value.clone();
        let mut client = Client::connect(discord.gateway_url()).await;
        client.send(&payload).await;
        assert_eq!(client.closed().await, code, "{field}: {value}");
    }
    assert!(discord.records(2).iter().all(|record| record.d["token"] == "***"));
}

#[tokio::test]
async fn what_discord_does_not_care_about_in_an_identify_it_accepts() {
    let discord = start(Limits { identify_window_ms: 0, ..Limits::default() }).await;
    for (field, value) in [
        ("token", json!("Bot sim-token")),
        ("shard", Value::Null),
        ("presence", Value::Null),
        ("presence", json!({"status": "online", "activities": null, "since": "x", "afk": null})),
        ("properties", json!({"$os": "linux"})),
        ("guild_subscriptions", json!(true)),
        ("large_threshold", json!("many")),
    ] {
        let mut payload = identify([0, 1]);
        payload["d"][field] = value;
        let mut client = Client::connect(discord.gateway_url()).await;
        client.send(&payload).await;
        assert_eq!(client.take_ready().await, 16, "{field}");
    }
}

#[tokio::test]
async fn without_a_shard_ready_names_none() {
    let discord = start(Limits::default()).await;
    let mut payload = identify([0, 1]);
    payload["d"].as_object_mut().unwrap().remove("shard");
    let mut client = Client::connect(discord.gateway_url()).await;
    client.send(&payload).await;
    let ready = client.dispatch("READY").await;
    assert!(ready.get("shard").is_none());
    assert_eq!(ready["user"]["id"], ready["application"]["id"]);
}

#[tokio::test]
async fn sharding_is_required_and_large_bots_need_a_multiple() {
    let discord =
        start(Limits { guilds_per_shard: 4, shards: 4, large_bot: true, ..Limits::default() }).await;
    for (shard, code) in [([0, 1], 4010), ([0, 2], 4010)] {
        let mut client = Client::connect(discord.gateway_url()).await;
        client.send(&identify(shard)).await;
        assert_eq!(client.closed().await, code, "{shard:?}");
    }
    let _ready = Client::ready(&discord, [0, 4]).await;
    discord.change_limits(|limits| limits.large_bot = false);
    let mut client = Client::connect(discord.gateway_url()).await;
    client.send(&identify([0, 2])).await;
    assert_eq!(client.closed().await, 4011);
}

#[tokio::test]
async fn opcodes_out_of_order_get_their_codes() {
    let discord = start(Limits { identify_window_ms: 0, ..Limits::default() }).await;
    for op in [3, 4, 8, 31, 43] {
        let mut client = Client::connect(discord.gateway_url()).await;
        client.send(&json!({"op": op, "d": {}})).await;
        assert_eq!(client.closed().await, 4003, "op {op} before IDENTIFY");
    }
    for op in [0, 5, 7, 9, 10, 11, 99] {
        let mut client = Client::connect(discord.gateway_url()).await;
        client.send(&json!({"op": op, "d": null})).await;
        assert_eq!(client.closed().await, 4001, "op {op}");
    }
    let mut client = Client::ready(&discord, [0, 1]).await;
    client.send(&identify([0, 1])).await;
    assert_eq!(client.closed().await, 4005);
}

#[tokio::test]
async fn the_121st_payload_within_a_minute_is_closed_with_4008_and_the_session_lives() {
    let discord = start(Limits::default()).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    for _ in 0..119 {
        client.send(&json!({"op": 1, "d": client.sequence})).await;
        assert_eq!(client.payload().await["op"], 11);
    }
    client.send(&json!({"op": 1, "d": client.sequence})).await;
    assert_eq!(client.closed().await, 4008);
    client.resume().await.dispatch("RESUMED").await;
    assert_eq!(discord.violations()[0].kind, "close_4008");
}

#[tokio::test]
async fn the_query_is_checked() {
    let discord = start(Limits::default()).await;
    for (query, code) in [
        ("v=9&encoding=json", 4012),
        ("encoding=json", 4012),
        ("v=10&encoding=xml", 4002),
        ("v=10&encoding=json&compress=brotli", 4002),
    ] {
        let mut client = Client::open(discord.gateway_url(), query).await;
        assert_eq!(client.next().await, Got::Closed(code), "{query}");
    }
}

#[tokio::test]
async fn each_close_code_asked_for_is_sent_and_only_resumable_ones_leave_the_session() {
    let discord = start(Limits { identify_window_ms: 0, ..Limits::default() }).await;
    for (code, resumable) in [(4000, true), (4008, true), (4007, false), (4009, false), (4014, false)] {
        let mut client = Client::ready(&discord, [0, 1]).await;
        discord.fault(&Fault::new(0, FaultKind::Close).code(code));
        assert_eq!(client.closed().await, code);
        assert_eq!(client.resume().await.payload().await["t"] == "RESUMED", resumable, "{code}");
    }
    let mut client = Client::ready(&discord, [0, 1]).await;
    discord.fault(&Fault::new(0, FaultKind::Close).code(4000).resumable(false));
    assert_eq!(client.closed().await, 4000);
    assert_eq!(client.resume().await.payload().await["op"], 9);
}

#[tokio::test]
async fn garbage_and_truncated_frames_arrive_as_such_and_refused_connections_are_reset() {
    let discord = start(Limits { identify_window_ms: 0, ..Limits::default() }).await;
    for variant in [0, 3] {
        let mut client = Client::ready(&discord, [0, 1]).await;
        discord.fault(&Fault::new(0, FaultKind::Garbage).code(variant));
        let message = futures_util::StreamExt::next(&mut client.socket).await.unwrap().unwrap();
        assert!(serde_json::from_slice::<Value>(message.as_payload()).is_err());
    }
    for (kind, code) in [(FaultKind::Garbage, 1), (FaultKind::Garbage, 2), (FaultKind::Truncate, 0)] {
        let mut client = Client::ready(&discord, [0, 1]).await;
        discord.fault(&Fault::new(0, kind).code(code));
        assert_eq!(client.next().await, Got::Gone);
    }
    discord.fault(&Fault::everywhere(FaultKind::Refuse));
    let uri = format!("{}/?v=10", discord.gateway_url()).parse().unwrap();
    assert!(tokio_websockets::ClientBuilder::from_uri(uri).connect().await.is_err());
    discord.clear_faults();
    discord.fault(&Fault::new(1, FaultKind::Refuse));
    let mut refused = Client::connect(discord.gateway_url()).await;
    refused.send(&identify([1, 2])).await;
    assert_eq!(refused.next().await, Got::Gone);
    let _accepted = Client::ready(&discord, [0, 2]).await;
}

#[tokio::test]
async fn a_late_ack_is_late_and_an_expired_session_cannot_be_resumed() {
    let discord = start(Limits::default()).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    discord.fault(&Fault::new(0, FaultKind::LateAck).lasting(Duration::from_millis(120)));
    let sent = std::time::Instant::now();
    client.send(&json!({"op": 1, "d": null})).await;
    assert_eq!(client.payload().await["op"], 11);
    assert!(sent.elapsed() >= Duration::from_millis(120));
    discord.fault(&Fault::new(0, FaultKind::ExpireSession));
    assert_eq!(client.resume().await.payload().await["op"], 9);
}

#[tokio::test]
async fn ready_can_be_held_back_while_the_connection_lives() {
    let discord = start(Limits::default()).await;
    discord.fault(&Fault::new(0, FaultKind::HoldReady));
    let mut client = Client::connect(discord.gateway_url()).await;
    client.send(&identify([0, 1])).await;
    discord.wait_for_identify(0).await.unwrap();
    client.send(&json!({"op": 1, "d": null})).await;
    assert_eq!(client.payload().await["op"], 11);
    discord.clear_faults();
    assert_eq!(client.take_ready().await, 16);
}

#[tokio::test]
async fn events_pass_only_with_their_intent() {
    let discord = start(Limits::default()).await;
    let mut payload = identify([0, 1]);
    payload["d"]["intents"] = json!(1 << 11);
    let mut client = Client::connect(discord.gateway_url()).await;
    client.send(&payload).await;
    client.take_ready().await;
    discord.traffic(Traffic::burst(5));
    discord.finish_traffic().await;
    let guild = discord.guilds(0, 1)[0];
    discord.emit_in(guild, "TYPING_START", json!({"guild_id": guild.to_string()}));
    client.dispatch("TYPING_START").await;
    assert_eq!(client.sequence, 2);
}

async fn start(limits: Limits) -> Simulator {
    let world = WorldSpec { guilds: 16, ..WorldSpec::default() };
    Simulator::start(Options { limits, world, ..Options::default() }).await.unwrap()
}
