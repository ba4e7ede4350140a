// SPDX-License-Identifier: AGPL-3.0-only
//! A gateway client for the tests: no cleverness, every payload is looked at.
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use holdfast_simulator::Simulator;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

/// Everything that the documentation lists.
pub(crate) const ALL: u64 = 53_608_447;

/// What ended a connection, or a payload.
#[derive(Debug, PartialEq)]
pub(crate) enum Got {
    Payload(Value),
    Closed(u16),
    /// Without a close frame.
    Gone,
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) sequence: u64,
    pub(crate) session: String,
    pub(crate) resume_url: String,
}

impl Client {
    /// Connects and takes HELLO.
    pub(crate) async fn connect(url: &str) -> Self {
        let mut client = Self::open(url, "v=10&encoding=json").await;
        assert_eq!(client.payload().await["op"], 10);
        client
    }

    pub(crate) async fn open(url: &str, query: &str) -> Self {
        let uri = format!("{url}/?{query}").parse().unwrap();
        let (socket, _) = ClientBuilder::from_uri(uri).connect().await.unwrap();
        Self { socket, sequence: 0, session: String::new(), resume_url: String::new() }
    }

    /// Identifies and takes READY and all GUILD_CREATEs.
    pub(crate) async fn ready(discord: &Simulator, shard: [u32; 2]) -> Self {
        let mut client = Self::connect(discord.gateway_url()).await;
        client.send(&identify(shard)).await;
        let guilds = client.take_ready().await;
        for _ in 0..guilds {
            client.dispatch("GUILD_CREATE").await;
        }
        client
    }

    /// Takes READY; says how many guilds follow.
    pub(crate) async fn take_ready(&mut self) -> usize {
        let ready = self.dispatch("READY").await;
        self.session = ready["session_id"].as_str().unwrap().to_owned();
        self.resume_url = ready["resume_gateway_url"].as_str().unwrap().to_owned();
        ready["guilds"].as_array().unwrap().len()
    }

    pub(crate) async fn send(&mut self, payload: &Value) {
        self.socket.send(Message::text(payload.to_string())).await.unwrap();
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text.to_owned())).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Got {
        let next =
            tokio::time::timeout(Duration::from_secs(20), self.socket.next()).await.expect("20 s of silence");
        match next {
            Some(Ok(message)) if message.is_close() => Got::Closed(u16::from(message.as_close().unwrap().0)),
            Some(Ok(message)) => {
                let payload: Value = serde_json::from_slice(message.as_payload()).unwrap();
                self.sequence = payload["s"].as_u64().unwrap_or(self.sequence);
                Got::Payload(payload)
            }
            _ => Got::Gone,
        }
    }

    pub(crate) async fn payload(&mut self) -> Value {
        match self.next().await {
            Got::Payload(payload) => payload,
            other => panic!("a payload instead of {other:?}"),
        }
    }

    /// The `d` of the next payload, which has to be this event.
    pub(crate) async fn dispatch(&mut self, name: &str) -> Value {
        let payload = self.payload().await;
        assert_eq!(payload["t"], name, "{payload}");
        payload["d"].clone()
    }

    /// The close code after whatever comes before it.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match self.next().await {
                Got::Closed(code) => return code,
                Got::Gone => panic!("gone without a close frame"),
                Got::Payload(_) => {}
            }
        }
    }

    /// Waits for the connection's end without a close frame.
    pub(crate) async fn gone(&mut self) {
        loop {
            match self.next().await {
                Got::Gone => return,
                Got::Closed(code) => panic!("closed with {code}"),
                Got::Payload(_) => {}
            }
        }
    }

    /// A new connection that resumes this one's session.
    pub(crate) async fn resume(&self) -> Self {
        self.resume_from(self.sequence).await
    }

    pub(crate) async fn resume_from(&self, sequence: u64) -> Self {
        let mut client = Self::connect(&self.resume_url).await;
        (client.session, client.resume_url) = (self.session.clone(), self.resume_url.clone());
        client.sequence = sequence;
        let d = json!({"token": "sim-token", "session_id": self.session, "seq": sequence});
        client.send(&json!({"op": 6, "d": d})).await;
        client
    }
}

pub(crate) fn identify(shard: [u32; 2]) -> Value {
    json!({"op": 2, "d": {"token": "sim-token", "intents": ALL, "shard": shard, "large_threshold": 250,
        "properties": {"os": "linux", "browser": "test", "device": "test"}}})
}
