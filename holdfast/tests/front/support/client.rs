// SPDX-License-Identifier: AGPL-3.0-only
//! A client as a careful library is: it notes everything, resumes when told, and can be cut off.

use std::collections::BTreeMap;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, CloseCode, MaybeTlsStream, Message, WebSocketStream};

use super::{ALL, Ledger, TOKEN, within};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A connection and everything that came over it and those before it.
pub(crate) struct Client {
    socket: Option<Socket>,
    pub(crate) ledger: Ledger,
    pub(crate) session: String,
    pub(crate) sequence: u64,
    pub(crate) shard: [u32; 2],
    pub(crate) intents: u64,
    /// By which the front tells it from others of the same shard, if it has one.
    pub(crate) name: String,
    /// Dispatches by name.
    pub(crate) seen: BTreeMap<String, u64>,
}

/// What a connection was opened with, and what came until it was complete.
pub(crate) struct Opened {
    pub(crate) ready: Value,
    pub(crate) guilds: Vec<Value>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With a close code.
    Closed(u16),
    /// Without one.
    Cut,
}

impl Client {
    /// Connects, identifies for a shard, and reads until all its guilds are there.
    pub(crate) async fn identified(url: &str, shard: [u32; 2]) -> (Self, Opened) {
        let mut client = Self::new(shard);
        let opened = client.identify(url).await;
        (client, opened)
    }

    /// The same with these intents.
    pub(crate) async fn with_intents(url: &str, shard: [u32; 2], intents: u64) -> (Self, Opened) {
        let mut client = Self { intents, ..Self::new(shard) };
        let opened = client.identify(url).await;
        (client, opened)
    }

    /// A client that has never been connected.
    pub(crate) fn new(shard: [u32; 2]) -> Self {
        Self {
            socket: None,
            ledger: Ledger::default(),
            session: String::new(),
            sequence: 0,
            shard,
            intents: ALL,
            name: String::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Connects and reads HELLO.
    pub(crate) async fn connect(&mut self, url: &str) -> Value {
        self.try_connect(url).await.expect("the upgrade succeeds and HELLO comes")
    }

    /// The same, where nobody may be listening.
    pub(crate) async fn try_connect(&mut self, url: &str) -> Result<Value, Ended> {
        let name = if self.name.is_empty() { String::new() } else { format!("&name={}", self.name) };
        let uri = format!("{url}/?v=10&encoding=json{name}").parse().expect("an address");
        let builder = ClientBuilder::from_uri(uri);
        let (socket, _) = within("a WebSocket", builder.connect()).await.map_err(|_| Ended::Cut)?;
        self.socket = Some(socket);
        let hello = self.next().await?;
        assert_eq!(hello["op"], 10);
        Ok(hello)
    }

    /// Connects, identifies and reads READY and the guilds that it names as available.
    pub(crate) async fn identify(&mut self, url: &str) -> Opened {
        self.connect(url).await;
        self.send_identify().await;
        let ready = self.next().await.expect("READY comes");
        assert_eq!(ready["t"], "READY", "{ready}");
        self.session = ready["d"]["session_id"].as_str().expect("a session id").to_owned();
        let mut guilds = Vec::new();
        let named = ready["d"]["guilds"].as_array().map_or(0, Vec::len);
        let expected = if self.intents & 1 == 0 { 0 } else { named };
        while guilds.len() < expected {
            let payload = self.next().await.expect("a guild comes");
            if payload["t"] == "GUILD_CREATE" {
                guilds.push(payload["d"].clone());
            }
        }
        Opened { ready, guilds }
    }

    /// Sends IDENTIFY.
    pub(crate) async fn send_identify(&mut self) {
        self.send(&self.identify_payload()).await;
    }

    pub(crate) fn identify_payload(&self) -> Value {
        let data = json!({
            "token": TOKEN, "intents": self.intents, "shard": self.shard,
            "properties": { "os": "linux", "browser": "test", "device": "test" },
        });
        json!({ "op": 2, "d": data })
    }

    pub(crate) fn resume_payload(&self) -> Value {
        let data = json!({ "token": TOKEN, "session_id": self.session, "seq": self.sequence });
        json!({ "op": 6, "d": data })
    }

    /// Connects and resumes. The replay's events are noted as they come; gives the first payload after HELLO
    /// that isn't one of them: RESUMED or INVALID_SESSION.
    pub(crate) async fn resume(&mut self, url: &str) -> Value {
        self.connect(url).await;
        self.send(&self.resume_payload()).await;
        loop {
            let payload = self.next().await.expect("the replay comes");
            if payload["t"] == "RESUMED" || payload["op"] == 9 {
                return payload;
            }
        }
    }

    /// Sends a payload.
    pub(crate) async fn send(&mut self, payload: &Value) {
        self.try_send(payload).await.expect("the payload is sent");
    }

    /// The same, over a connection that may be over.
    pub(crate) async fn try_send(&mut self, payload: &Value) -> Result<(), Ended> {
        let socket = self.socket.as_mut().expect("connected");
        socket.send(Message::text(payload.to_string())).await.map_err(|_| Ended::Cut)
    }

    /// Sends several payloads at once.
    pub(crate) async fn send_together(&mut self, payloads: &[Value]) {
        let socket = self.socket.as_mut().expect("connected");
        for payload in payloads {
            socket.feed(Message::text(payload.to_string())).await.expect("there is room");
        }
        socket.flush().await.expect("the payloads are sent");
    }

    /// A heartbeat with the last sequence, and its acknowledgement.
    pub(crate) async fn heartbeat(&mut self) {
        self.send(&json!({ "op": 1, "d": self.sequence })).await;
        while self.next().await.expect("the acknowledgement comes")["op"] != 11 {}
    }

    /// The next payload, noted.
    pub(crate) async fn next(&mut self) -> Result<Value, Ended> {
        let socket = self.socket.as_mut().expect("connected");
        loop {
            let message = match within("a payload", socket.next()).await {
                Some(Ok(message)) => message,
                _ => return Err(Ended::Cut),
            };
            if let Some((code, _)) = message.as_close() {
                return Err(Ended::Closed(code.into()));
            }
            if !message.is_text() {
                continue;
            }
            let payload: Value = serde_json::from_slice(message.as_payload()).expect("payloads are JSON");
            if let Some(sequence) = payload["s"].as_u64() {
                assert!(
                    sequence >= self.sequence || self.session.is_empty() || payload["t"] == "READY",
                    "sequences rise: {} after {}, shard {:?} {}: {}",
                    sequence,
                    self.sequence,
                    self.shard,
                    self.name,
                    payload["t"]
                );
                self.sequence = sequence;
            }
            self.ledger.note(&payload);
            if let Some(name) = payload["t"].as_str() {
                *self.seen.entry(name.to_owned()).or_default() += 1;
            }
            return Ok(payload);
        }
    }

    /// Reads until a payload of this name.
    pub(crate) async fn until(&mut self, name: &str) -> Value {
        loop {
            let payload = self.next().await.expect(name);
            if payload["t"] == name {
                return payload;
            }
        }
    }

    /// Reads until the last of these messages is there.
    pub(crate) async fn until_last(&mut self, sent: &BTreeMap<String, u64>) {
        while !self.ledger.has_last(sent) {
            self.next().await.expect("the rest of the messages comes");
        }
    }

    /// Reads until so many messages have come, over this connection or an earlier one.
    pub(crate) async fn until_messages(&mut self, count: usize) {
        while self.ledger.count() < count {
            self.next().await.expect("more messages come");
        }
    }

    /// Reads what is there until the connection ends; ends it on this side too, which the front waits for.
    pub(crate) async fn until_end(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.next().await {
                self.cut();
                return ended;
            }
        }
    }

    /// Closes the connection with this code.
    pub(crate) async fn close(&mut self, code: u16) {
        let mut socket = self.socket.take().expect("connected");
        let code = CloseCode::try_from(code).expect("a code");
        socket.send(Message::close(Some(code), "")).await.expect("the close is sent");
        while let Some(Ok(_)) = within("the end", socket.next()).await {}
    }

    /// Drops the connection without a word.
    pub(crate) fn cut(&mut self) {
        self.socket = None;
    }
}
