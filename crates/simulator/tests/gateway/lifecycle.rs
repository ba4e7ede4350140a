// SPDX-License-Identifier: AGPL-3.0-only
//! A client's life: hello, identify, events, heartbeats, resume.
use std::time::Duration;

use crate::client::{Client, Got, identify};
use holdfast_simulator::{Cut, Fault, FaultKind, Keys, Limits, Options, Simulator, Traffic, Trim, guild_id};
use serde_json::json;

#[tokio::test]
async fn a_client_gets_ready_its_guilds_and_numbered_messages_in_order() {
    let discord = start(Limits { shards: 2, max_concurrency: 2, ..Limits::default() }).await;
    let mut client = Client::ready(&discord, [1, 2]).await;
    assert_eq!(client.sequence, 1 + 8, "READY and the eight guilds of this shard");
    discord.traffic(Traffic { shards: Some(vec![1]), ..Traffic::burst(80) });
    for n in 0..80 {
        let message = client.dispatch("MESSAGE_CREATE").await;
        let guild = guild_id(1 + 2 * (n % 8));
        assert_eq!(message["content"], format!("sim {guild} {}", n / 8 + 1));
    }
    assert_eq!(discord.finish_traffic().await.sent[&guild_id(3).to_string()], 10);
    assert!(discord.violations().is_empty(), "{:?}", discord.violations());
}

#[tokio::test]
async fn whatever_way_a_connection_is_cut_a_resume_brings_what_was_missed_then_resumed_then_what_follows() {
    let discord = start(Limits::default()).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    for cut in [Cut::Fin, Cut::Rst, Cut::FinRst] {
        discord.cut(0, cut);
        client.gone().await;
        discord
            .wait_until("the session alone", |d| d.state()["sessions"][0]["connected"] == false)
            .await
            .unwrap();
        discord.traffic(Traffic::burst(50));
        discord.finish_traffic().await;
        let before = client.sequence;
        client = client.resume().await;
        for n in 1..=50 {
            client.dispatch("MESSAGE_CREATE").await;
            assert_eq!(client.sequence, before + n);
        }
        client.dispatch("RESUMED").await;
        discord.wait_for_resume(0).await.unwrap();
        discord.traffic(Traffic::burst(1));
        client.dispatch("MESSAGE_CREATE").await;
    }
}

#[tokio::test]
async fn a_resume_is_refused_when_events_are_missing_the_sequence_is_wrong_or_the_session_is_over() {
    for trim in [Trim::Count, Trim::Heartbeat, Trim::None] {
        let discord =
            start(Limits { resume_trim: trim, resume_count: 10, identify_window_ms: 0, ..Limits::default() })
                .await;
        let mut client = Client::ready(&discord, [0, 1]).await;
        discord.cut(0, Cut::Rst);
        client.gone().await;
        discord
            .wait_until("the session alone", |d| d.state()["sessions"][0]["connected"] == false)
            .await
            .unwrap();
        discord.traffic(Traffic::burst(20));
        discord.finish_traffic().await;
        let mut resumed = client.resume().await;
        let first = resumed.payload().await;
        if trim == Trim::None {
            assert_eq!(first["t"], "MESSAGE_CREATE");
        } else {
            assert_eq!((&first["op"], &first["d"]), (&json!(9), &json!(false)));
        }

        let client = Client::ready(&discord, [0, 1]).await;
        assert_eq!(client.resume_from(10_000).await.closed().await, 4007);
        let mut again = client.resume().await;
        assert_eq!(again.payload().await["op"], 9, "4007 ended the session");
    }
}

#[tokio::test]
async fn what_a_heartbeat_acknowledged_is_gone_in_that_mode() {
    let discord = start(Limits { resume_trim: Trim::Heartbeat, ..Limits::default() }).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    client.send(&json!({"op": 1, "d": client.sequence})).await;
    assert_eq!(client.payload().await["op"], 11);
    let mut resumed = client.resume_from(client.sequence - 1).await;
    assert_eq!(resumed.payload().await["op"], 9);
}

#[tokio::test]
async fn closing_with_1000_ends_the_session_and_another_code_does_not() {
    for (code, connected) in [(1000, false), (4900, true)] {
        let discord = start(Limits::default()).await;
        let mut client = Client::ready(&discord, [0, 1]).await;
        let close = tokio_websockets::Message::close(Some(code.try_into().unwrap()), "");
        futures_util::SinkExt::send(&mut client.socket, close).await.unwrap();
        while client.next().await != Got::Gone {}
        discord
            .wait_until("the connection's end", |d| {
                d.state()["connections"].as_array().is_some_and(Vec::is_empty)
            })
            .await
            .unwrap();
        let mut resumed = client.resume().await;
        assert_eq!(resumed.payload().await["t"] == "RESUMED", connected);
    }
}

#[tokio::test]
async fn missed_heartbeats_are_closed_with_4009() {
    let discord = start(Limits { heartbeat_interval_ms: 100, ..Limits::default() }).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    assert_eq!(client.closed().await, 4009);
}

#[tokio::test]
async fn identifies_too_close_together_get_an_invalid_session_and_those_of_other_buckets_do_not() {
    let discord = start(Limits { shards: 4, max_concurrency: 2, ..Limits::default() }).await;
    let _zero = Client::ready(&discord, [0, 4]).await;
    let _one = Client::ready(&discord, [1, 4]).await;
    let mut two = Client::connect(discord.gateway_url()).await;
    two.send(&identify([2, 4])).await;
    let payload = two.payload().await;
    assert_eq!((&payload["op"], &payload["d"]), (&json!(9), &json!(false)));
    assert_eq!(discord.violations()[0].kind, "identify_too_early");
}

#[tokio::test]
async fn the_last_identify_of_the_day_costs_all_sessions() {
    let discord = start(Limits { identifies_remaining: 1, identify_window_ms: 0, ..Limits::default() }).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    let mut another = Client::connect(discord.gateway_url()).await;
    another.send(&identify([0, 1])).await;
    assert_eq!(another.closed().await, 4004);
    assert_eq!(client.closed().await, 4004);
}

#[tokio::test]
async fn op_7_and_op_9_and_lasting_faults_do_what_they_say() {
    let discord = start(Limits { identify_window_ms: 0, ..Limits::default() }).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    discord.fault(&Fault::new(0, FaultKind::Op7).lasting(Duration::from_millis(50)));
    assert_eq!(client.payload().await["op"], 7);
    client.gone().await;
    client = client.resume().await;
    client.dispatch("RESUMED").await;

    discord.fault(&Fault::new(0, FaultKind::Op9).resumable(true));
    assert_eq!(client.payload().await["d"], true);
    client = client.resume().await;
    client.dispatch("RESUMED").await;

    discord.fault(&Fault::new(0, FaultKind::Silence));
    client.send(&json!({"op": 1, "d": null})).await;
    discord.wait_for_records(1, 1).await.unwrap();
    discord.clear_faults();
    assert_eq!(client.payload().await["op"], 11, "what silence held back comes after it");

    discord.fault(&Fault::new(0, FaultKind::NoAck));
    client.send(&json!({"op": 1, "d": null})).await;
    discord.wait_for_records(1, 2).await.unwrap();
    discord.traffic(Traffic::burst(1));
    client.dispatch("MESSAGE_CREATE").await;

    discord.fault(&Fault::new(0, FaultKind::Op9));
    assert_eq!(client.payload().await["d"], false);
    assert_eq!(client.resume().await.payload().await["op"], 9);
}

#[tokio::test]
async fn an_outage_takes_a_guild_away_and_its_end_brings_it_back() {
    let discord = start(Limits { identify_window_ms: 0, ..Limits::default() }).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    let guild = discord.guilds(0, 1)[2];
    let whole = discord.guild(guild).unwrap();
    discord.outage(guild);
    assert_eq!(client.dispatch("GUILD_DELETE").await, json!({"id": guild.to_string(), "unavailable": true}));
    let mut meanwhile = Client::connect(discord.gateway_url()).await;
    meanwhile.send(&identify([0, 1])).await;
    assert_eq!(meanwhile.take_ready().await, 16, "it is listed as unavailable");
    for _ in 0..15 {
        assert_ne!(meanwhile.dispatch("GUILD_CREATE").await["id"], whole["id"]);
    }
    discord.recover(guild);
    assert_eq!(client.dispatch("GUILD_CREATE").await, whole);
    assert_eq!(meanwhile.dispatch("GUILD_CREATE").await, whole);
}

#[tokio::test]
async fn a_client_is_asked_for_a_heartbeat_and_keys_come_in_any_order() {
    for keys in [Keys::Discord, Keys::DataFirst, Keys::Spaced] {
        let discord = start(Limits { keys, ..Limits::default() }).await;
        let mut client = Client::ready(&discord, [0, 1]).await;
        discord.fault(&Fault::new(0, FaultKind::HeartbeatRequest));
        assert_eq!(client.payload().await["op"], 1);
        discord.traffic(Traffic::burst(1));
        assert!(client.dispatch("MESSAGE_CREATE").await["content"].is_string());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_bounded_memory_and_gets_all_once_it_does() {
    let discord = start(Limits { resume_count: 100, ..Limits::default() }).await;
    let mut client = Client::ready(&discord, [0, 1]).await;
    discord.traffic(Traffic { bytes: 4_000, ..Traffic::burst(5_000) });
    discord.finish_traffic().await;
    for _ in 0..5_000 {
        client.dispatch("MESSAGE_CREATE").await;
    }
    discord.change_limits(|limits| limits.resume_bytes = 1 << 20);
    discord.traffic(Traffic { bytes: 4_000, ..Traffic::burst(20_000) });
    discord.finish_traffic().await;
    assert!(discord.state()["sessions"][0]["buffered"].as_u64().is_none_or(|events| events < 300));
    assert_eq!(client.closed().await, 4000);
    assert_eq!(discord.violations()[0].kind, "too_slow");
}

async fn start(limits: Limits) -> Simulator {
    Simulator::start(Options { limits, ..Options::default() }).await.unwrap()
}
