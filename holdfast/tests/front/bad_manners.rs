// SPDX-License-Identifier: AGPL-3.0-only
//! Connections that are slow, silent, too many, or no WebSockets: each is ended in time.

use std::collections::BTreeMap;

use holdfast_simulator::Traffic;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Client, Holdfast, TEXT, Wire, demand, discord, frame, read_close, request, until, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_takes_too_long_is_ended() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "handshake_timeout = \"1s\"").await;
    let whole = request("/?v=10");
    let mut silent = Wire::tcp(&holdfast.url).await;
    let mut half = Wire::tcp(&holdfast.url).await;
    half.write(&whole.as_bytes()[..40]).await;
    let mut endless = Wire::tcp(&holdfast.url).await;
    // A byte now and then, never nothing for long: slow is what is tried here.
    let (mut dripping, mut drip) = Wire::tcp(&holdfast.url).await.tcp.into_split();
    let drip = tokio::spawn(async move {
        for byte in whole.bytes().filter(|byte| *byte != b'\n').cycle() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            if drip.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    endless.write(&b"GET / HTTP/1.1\r\nX: y\r\n".repeat(1000)).await;
    silent.ended().await;
    half.ended().await;
    endless.ended().await;
    let end = within("the end of the dripping connection", dripping.read_to_end(&mut Vec::new())).await;
    assert!(end.is_err() || end.is_ok_and(|count| count == 0));
    drip.abort();
    Client::identified(&holdfast.url, [0, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_idle_connections_are_closed_in_time() {
    // Long enough for all to be open at once on a busy machine.
    let (idle, timeout) = demand::usually((2_000, "5s"), (10_000, "20s"));
    let timeouts = format!("handshake_timeout = \"{timeout}\"\nidentify_timeout = \"{timeout}\"");
    holdfast_service::raise_file_limit();
    let limit = holdfast_service::file_limit().unwrap_or(u64::MAX);
    assert!(limit > idle + 200, "{limit} open files are too few for this test: raise the hard limit");
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, &timeouts).await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 1]).await;
    discord.traffic(Traffic::messages(100.0));
    let before = holdfast.resident_mib();
    let mut wires = Vec::new();
    for number in 0..idle {
        // Ports are counted per address. Half of the connections are WebSockets that never identify, half never ask
        // for one.
        let mut wire =
            Wire::tcp_from(&holdfast.url, [127, 0, 1, u8::try_from(number / 1_000).unwrap() + 1]).await;
        if number % 2 == 0 {
            wire.upgrade("v=10").await;
        }
        wires.push(wire);
    }
    let open = holdfast.metric("process_open_fds").await;
    assert!(open >= idle as f64, "{open} connections are open at once");
    let each_kib = (holdfast.resident_mib() - before) * 1024 / idle;
    assert!(each_kib <= 32, "{each_kib} KiB for an idle connection");
    for (number, wire) in wires.iter_mut().enumerate() {
        let (code, _) = wire.closed().await;
        assert_eq!(code, if number % 2 == 0 { 4009 } else { 0 });
        wire.ended().await;
    }
    Client::identified(&holdfast.url, [0, 1]).await.0.heartbeat().await;
    let sent = discord.stop_traffic().await.sent;
    good.until_last(&sent).await;
    good.ledger.assert_each_once(&sent, &BTreeMap::new());
    drop(wires);
    until("all connections forgotten", async || {
        holdfast.metric("holdfast_ws_client_connections").await <= 2.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_ends_is_no_reason_to_stay() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "identify_timeout = \"1s\"").await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let wire = Wire::open(&holdfast.url).await;
    let (mut read, mut write) = wire.tcp.into_split();
    let endless = tokio::spawn(async move {
        let begin = [TEXT, 0x80, 0, 0, 0, 0];
        let empty = [0_u8, 0x80, 0, 0, 0, 0].repeat(1000);
        let mut written = write.write_all(&begin).await;
        while written.is_ok() {
            written = write.write_all(&empty).await;
        }
    });
    discord.traffic(Traffic::burst(500));
    let sent = discord.finish_traffic().await.sent;
    good.until_last(&sent).await;
    let (code, _) = read_close(&mut read).await;
    assert!([4002, 4008, 4009].contains(&code), "{code}");
    endless.abort();
    good.heartbeat().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_heartbeats_is_closed_and_may_resume() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "heartbeat_interval = \"1s\"").await;
    let (mut silent, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let ended = silent.until_end().await;
    assert_eq!(ended, crate::support::Ended::Closed(4009));
    silent.cut();
    discord.traffic(Traffic::burst(20));
    let sent = discord.finish_traffic().await.sent;
    assert_eq!(silent.resume(&holdfast.url).await["t"], "RESUMED");
    silent.until_last(&sent).await;
    silent.ledger.assert_each_once(&sent, &BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_is_told_so() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "").await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426"),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_owned(), "426"),
        (request("/elsewhere"), "404"),
    ] {
        let mut wire = Wire::tcp(&holdfast.url).await;
        wire.write(request.as_bytes()).await;
        let head = wire.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        wire.ended().await;
    }
    // TLS, or anything else, spoken to a port without it.
    let mut wire = Wire::tcp(&holdfast.url).await;
    wire.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await;
    wire.ended().await;
    Client::identified(&holdfast.url, [0, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_allowed_are_refused_until_one_goes() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "max_clients = 3").await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let mut second = Wire::open(&holdfast.url).await;
    let third = Wire::open(&holdfast.url).await;
    Wire::tcp(&holdfast.url).await.ended().await;
    drop(third);
    // Until the front has seen its end, a new one may still be refused.
    until("a place", async || {
        let mut wire = Wire::tcp(&holdfast.url).await;
        wire.write(request("/?v=10").as_bytes()).await;
        wire.head().await.starts_with("HTTP/1.1 101")
    })
    .await;
    second.write(&frame(TEXT, json!({ "op": 1, "d": null }).to_string().as_bytes())).await;
    assert!(second.frame().await.is_some());
    good.heartbeat().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_bots_on_a_shard_than_allowed_are_refused() {
    let discord = discord(1, 4).await;
    let holdfast = Holdfast::start(&discord, "max_clients_per_shard = 2").await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let _second = Client::identified(&holdfast.url, [0, 1]).await;
    let mut third = Client::new([0, 1]);
    third.connect(&holdfast.url).await;
    third.send_identify().await;
    assert_eq!(third.until_end().await, crate::support::Ended::Closed(4008));
    good.heartbeat().await;
}
