// SPDX-License-Identifier: AGPL-3.0-only
//! A second session of the same shard, straight at the simulated Discord: keeps the bytes of each `d`.

use std::collections::BTreeMap;

use futures_util::{SinkExt, StreamExt};
use holdfast_simulator::Simulator;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Limits, MaybeTlsStream, Message, WebSocketStream};

use crate::support::{ALL, TOKEN, within};

/// See the module.
pub(crate) struct Witness {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Names and data, in order, without READY.
    pub(crate) seen: Vec<(String, String)>,
}

type Payload = BTreeMap<String, Box<RawValue>>;

impl Witness {
    /// Identified for a shard.
    pub(crate) async fn of(discord: &Simulator, shard: [u32; 2]) -> Self {
        let uri = format!("{}/?v=10&encoding=json", discord.gateway_url()).parse().expect("an address");
        let builder = ClientBuilder::from_uri(uri).limits(Limits::unlimited());
        let (socket, _) = within("a WebSocket", builder.connect()).await.expect("connects");
        let mut witness = Self { socket, seen: Vec::new() };
        assert_eq!(text(&witness.payload().await, "op"), "10");
        let identify = json!({ "op": 2, "d": {
            "token": TOKEN, "intents": ALL, "shard": shard, "large_threshold": 250,
            "properties": { "os": "linux", "browser": "witness", "device": "witness" },
        } });
        witness.socket.send(Message::text(identify.to_string())).await.expect("sent");
        assert_eq!(text(&witness.payload().await, "t"), "\"READY\"");
        witness
    }

    /// Reads until an event of this name.
    pub(crate) async fn until(&mut self, name: &str) {
        while self.seen.last().is_none_or(|(seen, _)| seen != name) {
            self.read().await;
        }
    }

    /// Reads until so many events of this name.
    pub(crate) async fn until_count(&mut self, name: &str, count: usize) {
        while self.seen.iter().filter(|(seen, _)| seen == name).count() < count {
            self.read().await;
        }
    }

    async fn read(&mut self) {
        let payload = self.payload().await;
        if text(&payload, "op") == "0" {
            let name = text(&payload, "t").trim_matches('"').to_owned();
            self.seen.push((name, text(&payload, "d").to_owned()));
        }
    }

    async fn payload(&mut self) -> Payload {
        loop {
            let message = within("a payload", self.socket.next()).await.expect("open").expect("a message");
            if message.is_text() {
                return serde_json::from_slice(message.as_payload()).expect("a payload");
            }
        }
    }
}

fn text<'a>(payload: &'a Payload, key: &str) -> &'a str {
    payload.get(key).map_or("", |value| value.get())
}
