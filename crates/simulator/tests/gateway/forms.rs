// SPDX-License-Identifier: AGPL-3.0-only
//! The forms a payload may take on the wire: plain, compressed in three ways, ETF.
use std::io::Write as _;

use crate::client::{Client, identify};
use flate2::{Decompress, FlushDecompress};
use futures_util::{SinkExt as _, StreamExt as _};
use holdfast_simulator::{Options, Simulator, Traffic};
use serde_json::{Value, json};
use tokio_websockets::Message;

#[tokio::test]
async fn zlib_stream_is_one_context_and_every_message_ends_with_the_marker() {
    let mut inflate = Decompress::new(true);
    all_arrive("v=10&encoding=json&compress=zlib-stream", json!(null), |message| {
        let bytes = message.as_payload();
        assert!(message.is_binary() && bytes.ends_with(&[0, 0, 0xff, 0xff]));
        let mut plain = Vec::with_capacity(1 << 20);
        inflate.decompress_vec(bytes, &mut plain, FlushDecompress::Sync).unwrap();
        plain
    })
    .await;
}

#[tokio::test]
async fn zstd_stream_is_one_context_and_each_frame_one_payload() {
    let mut decoder = zstd::stream::write::Decoder::new(Vec::new()).unwrap();
    all_arrive("v=10&encoding=json&compress=zstd-stream", json!(true), |message| {
        assert!(message.is_binary());
        decoder.write_all(message.as_payload()).unwrap();
        decoder.flush().unwrap();
        std::mem::take(decoder.get_mut())
    })
    .await;
}

#[tokio::test]
async fn payload_compression_packs_only_large_payloads_each_on_its_own() {
    let mut packed = 0;
    all_arrive("v=10&encoding=json", json!(true), |message| {
        if message.is_text() {
            return message.as_payload().to_vec();
        }
        packed += 1;
        let mut plain = Vec::with_capacity(1 << 20);
        Decompress::new(true)
            .decompress_vec(message.as_payload(), &mut plain, FlushDecompress::Finish)
            .unwrap();
        plain
    })
    .await;
    assert!(packed > 16, "READY, the guilds and the messages are large");
}

#[tokio::test]
async fn etf_is_spoken_both_ways() {
    let discord = Simulator::start(Options::default()).await.unwrap();
    let mut client = Client::open(discord.gateway_url(), "v=10&encoding=etf").await;
    let hello = client.socket.next().await.unwrap().unwrap();
    assert!(hello.is_binary());
    let bytes = hello.as_payload();
    assert_eq!(&bytes[..2], &[131, 116], "a map");
    let interval = [&b"heartbeat_interval"[..], &[98], &41_250_i32.to_be_bytes()].concat();
    assert!(bytes.windows(interval.len()).any(|window| window == interval));
    client.socket.send(Message::binary(term(&identify([0, 1])))).await.unwrap();
    let ready = client.socket.next().await.unwrap().unwrap();
    assert!(ready.as_payload().windows(5).any(|window| window == b"READY"));
    let message = Message::text(r#"{"op":1,"d":null}"#);
    client.socket.send(message).await.unwrap();
    loop {
        let message = client.socket.next().await.unwrap().unwrap();
        if let Some((code, _)) = message.as_close() {
            assert_eq!(u16::from(code), 4002, "JSON isn't a term");
            break;
        }
    }
}

/// Identifies with this query and `compress`, and checks that all comes in order and readable.
async fn all_arrive(query: &str, compress: Value, mut read: impl FnMut(&Message) -> Vec<u8>) {
    let discord = Simulator::start(Options::default()).await.unwrap();
    let mut client = Client::open(discord.gateway_url(), query).await;
    let mut payload = identify([0, 1]);
    payload["d"]["compress"] = compress;
    client.send(&payload).await;
    let mut expected = 1;
    loop {
        let message = client.socket.next().await.unwrap().unwrap();
        let payload: Value = serde_json::from_slice(&read(&message)).unwrap();
        if payload["op"] == 10 {
            continue;
        }
        assert_eq!(payload["s"], expected);
        match expected {
            17 => drop(discord.traffic(Traffic::burst(100))),
            117 => return,
            _ => {}
        }
        expected += 1;
    }
}

/// A term as a client would write it, from Erlang's description of the format.
fn term(value: &Value) -> Vec<u8> {
    let mut out = vec![131];
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    let length = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
    match value {
        Value::String(text) => {
            out.push(109);
            out.extend_from_slice(&length(text.len()));
            out.extend_from_slice(text.as_bytes());
        }
        Value::Number(number) => {
            out.push(98);
            out.extend_from_slice(&i32::try_from(number.as_i64().unwrap()).unwrap().to_be_bytes());
        }
        Value::Array(items) => {
            out.push(108);
            out.extend_from_slice(&length(items.len()));
            items.iter().for_each(|item| write(item, out));
            out.push(106);
        }
        Value::Object(map) => {
            out.push(116);
            out.extend_from_slice(&length(map.len()));
            for (key, item) in map {
                write(&Value::String(key.clone()), out);
                write(item, out);
            }
        }
        other => panic!("not needed: {other}"),
    }
}
