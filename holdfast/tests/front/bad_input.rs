// SPDX-License-Identifier: AGPL-3.0-only
//! Clients that send what they shouldn't: each is closed with Discord's code, and nobody else notices.

use std::collections::BTreeMap;

use holdfast_simulator::{Simulator, Traffic};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{
    ALL, BINARY, Client, Holdfast, PING, TEXT, TOKEN, Wire, discord, frame, identify, read_close,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_frame_is_closed_as_undecodable() {
    let mut scene = Scene::new("").await;
    let masked = |first: u8| [&[first, 0x84, 1, 2, 3, 4][..], b"wxyz"].concat();
    for (what, bytes) in [
        ("a frame that isn't masked", [&[0x81, 8][..], br#"{"op":1}"#].concat()),
        ("reserved bits", masked(0xf1)),
        ("an opcode that isn't one", masked(0x83)),
        ("a control opcode that isn't one", masked(0x8f)),
        ("a ping in fragments", masked(0x09)),
        ("a close in fragments", masked(0x08)),
        (
            "a ping longer than a control frame may be",
            [&[0x89, 0xfe, 1, 0, 1, 2, 3, 4][..], &[0; 256]].concat(),
        ),
        ("a continuation of nothing", masked(0x80)),
        ("a frame of 1 GiB", [&[0x82, 0xff][..], &(1_u64 << 30).to_be_bytes(), &[0; 64]].concat()),
        ("a frame of 2^63 bytes", [&[0x82, 0xff][..], &(1_u64 << 63).to_be_bytes(), &[0; 64]].concat()),
        ("0xff all along", vec![0xff; 4096]),
    ] {
        for identified in [false, true] {
            let mut wire = scene.wire(identified).await;
            wire.write(&bytes).await;
            let (code, _) = wire.closed().await;
            assert_eq!(code, 4002, "{what}, identified: {identified}");
        }
        scene.unharmed().await;
    }
    for seed in 0..50 {
        let mut wire = scene.wire(seed % 2 == 0).await;
        wire.write(&noise(seed, 4096)).await;
        // Noise may begin like a frame that goes on for long: that it is no valid one shows at the end of it.
        let _ = wire.tcp.shutdown().await;
        wire.ended().await;
    }
    scene.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_payload_is_closed_as_undecodable() {
    let mut scene = Scene::new("").await;
    let deep = [vec![b'['; 2000], vec![b']'; 2000]].concat();
    let long = json!({ "op": 1, "d": null, "more": "x".repeat(4096) }).to_string().into_bytes();
    for (what, opcode, payload) in [
        ("noise", BINARY, noise(1, 500)),
        ("text that isn't UTF-8", TEXT, b"{\"op\":1,\"d\":\"\xff\xfe\"}".to_vec()),
        ("text that isn't JSON", TEXT, b"hello".to_vec()),
        ("half a payload", TEXT, br#"{"op":1,"d":"#.to_vec()),
        ("nothing", TEXT, Vec::new()),
        ("a list", TEXT, b"[1]".to_vec()),
        ("no opcode", TEXT, b"{\"d\":1}".to_vec()),
        ("an opcode that is text", TEXT, br#"{"op":"1","d":null}"#.to_vec()),
        ("an opcode below zero", TEXT, br#"{"op":-1,"d":null}"#.to_vec()),
        ("deeper than anything", TEXT, deep),
        ("longer than 4,096 bytes", TEXT, long),
    ] {
        for identified in [false, true] {
            let mut wire = scene.wire(identified).await;
            wire.write(&frame(opcode, &payload)).await;
            assert_eq!(wire.closed().await.0, 4002, "{what}, identified: {identified}");
        }
    }
    scene.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_breach_of_the_protocol_has_its_close_code() {
    let mut scene = Scene::new("").await;
    let data = |more: Value| {
        let mut data = json!({ "token": TOKEN, "intents": ALL, "properties": {} });
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "op": 2, "d": data })
    };
    let op = |op: u64| json!({ "op": op, "d": {} });
    let resume = |seq: Value| json!({ "op": 6, "d": { "token": TOKEN, "session_id": "x", "seq": seq } });
    let before = [
        (op(3), 4003),
        (op(4), 4003),
        (op(8), 4003),
        (op(31), 4003),
        (op(43), 4003),
        (op(0), 4001),
        (op(7), 4001),
        (op(9), 4001),
        (op(10), 4001),
        (op(11), 4001),
        (op(99), 4001),
        (json!({ "op": 2, "d": null }), 4002),
        (json!({ "op": 2, "d": { "intents": 1 } }), 4002),
        (data(json!({ "token": "sim-token2" })), 4004),
        (data(json!({ "token": "" })), 4004),
        (json!({ "op": 6, "d": { "token": "wrong", "session_id": "x", "seq": 1 } }), 4004),
        (data(json!({ "shard": [2, 2] })), 4010),
        (data(json!({ "shard": [0, 0] })), 4010),
        (data(json!({ "shard": [0, 1_000_001] })), 4010),
        (data(json!({ "shard": [1, 1] })), 4010),
        (data(json!({ "shard": "0" })), 4010),
        (data(json!({ "intents": null })), 4013),
        (data(json!({ "intents": -1 })), 4013),
        (resume(json!(-1)), 4007),
        (resume(json!("1")), 4007),
    ];
    for (payload, code) in before {
        let mut wire = scene.wire(false).await;
        wire.say(&payload).await;
        let (got, reason) = wire.closed().await;
        assert_eq!(got, code, "{payload}: {reason}");
        assert!(!reason.contains(TOKEN), "{reason}");
    }
    let after = [
        (identify(), 4005),
        (resume(json!(1)), 4005),
        (op(0), 4001),
        (op(7), 4001),
        (op(9), 4001),
        (op(10), 4001),
        (op(11), 4001),
        (json!({ "op": 3, "d": null }), 4002),
        (json!({ "op": 3, "d": { "status": 1 } }), 4002),
        (json!({ "op": 4, "d": { "channel_id": null } }), 4002),
        (json!({ "op": 8, "d": { "guild_id": "1" } }), 4002),
        (json!({ "op": 8, "d": { "query": "", "limit": 0 } }), 4002),
    ];
    for (payload, code) in after {
        let mut wire = scene.wire(true).await;
        wire.say(&payload).await;
        let (got, reason) = wire.closed().await;
        assert_eq!(got, code, "{payload}: {reason}");
    }
    scene.unharmed().await;
    assert!(scene.discord.violations().is_empty(), "{:?}", scene.discord.violations());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_asks_for_and_nobody_serves_is_refused() {
    let mut scene = Scene::new("").await;
    for (query, code) in [
        ("v=9&encoding=json", 4012),
        ("v=11&encoding=json", 4012),
        ("v=ten", 4012),
        ("v=10&encoding=xml", 4002),
        ("v=10&encoding=json&compress=gzip", 4002),
    ] {
        let mut wire = Wire::upgraded(&scene.holdfast.url, query).await;
        assert_eq!(wire.closed().await.0, code, "{query}");
    }
    scene.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_tiny_frames_are_a_few_too_many() {
    let mut scene = Scene::new("").await;
    let heartbeat = frame(TEXT, br#"{"op":1,"d":null}"#);
    let ping = frame(PING, b"");
    let pong = frame(10, b"");
    for identified in [false, true] {
        for (what, tiny) in [("heartbeats", &heartbeat), ("pings", &ping), ("pongs", &pong)] {
            let wire = scene.wire(identified).await;
            assert_eq!(flood(wire, tiny).await, 4008, "{what}, identified: {identified}");
        }
        scene.unharmed().await;
    }
    // One message in fragments of a byte each: too long after 4,096 of them.
    let fragments = [&[TEXT, 0x80, 0, 0, 0, 0][..], &[0, 0x81, 0, 0, 0, 0, b'{'].repeat(64)].concat();
    let mut wire = scene.wire(true).await;
    wire.write(&fragments[..6]).await;
    assert_eq!(flood(wire, &fragments[6..]).await, 4002, "fragments");
    scene.unharmed().await;
}

/// Writes a million frames or until nobody takes them; the code of the close that came meanwhile.
async fn flood(wire: Wire, tiny: &[u8]) -> u16 {
    let (mut read, mut write) = wire.tcp.into_split();
    let batch = tiny.repeat(1000);
    let writing = tokio::spawn(async move {
        for _ in 0..1000 {
            if write.write_all(&batch).await.is_err() {
                return;
            }
        }
    });
    let (code, _) = read_close(&mut read).await;
    writing.abort();
    code
}

/// Bytes without meaning, the same for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// A Holdfast with a client that is connected throughout.
struct Scene {
    discord: Simulator,
    holdfast: Holdfast,
    good: Client,
}

impl Scene {
    async fn new(ws: &str) -> Self {
        let discord = discord(1, 4).await;
        let holdfast = Holdfast::start(&discord, ws).await;
        let (good, _) = Client::identified(&holdfast.url, [0, 1]).await;
        Self { discord, holdfast, good }
    }

    async fn wire(&self, identified: bool) -> Wire {
        if identified {
            Wire::identified(&self.holdfast.url).await
        } else {
            Wire::open(&self.holdfast.url).await
        }
    }

    /// The client gets everything, as if nothing had happened.
    async fn unharmed(&mut self) {
        self.discord.traffic(Traffic::burst(40));
        let sent = self.discord.finish_traffic().await.sent;
        self.good.until_last(&sent).await;
        self.good.ledger.assert_each_once(&sent, &BTreeMap::new());
        let said = self.holdfast.output();
        assert!(!said.contains("panic"), "{said}");
    }
}
