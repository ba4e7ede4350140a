// SPDX-License-Identifier: AGPL-3.0-only
//! One connection to the front, identified for one shard. In: the gateway's protocol. Out: the events after the
//! snapshot that every IDENTIFY is answered with; that isn't news.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use holdfast_discord::{CloseCode, EventKind, Header, Intents, scan};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

use super::{About, Shard};
use crate::tail::Item;
use crate::tail::event::{Event, now};
use crate::tail::filter::Filter;

/// TCP, TLS, upgrade, HELLO and READY together.
const OPEN_WITHIN: Duration = Duration::from_secs(15);

/// How long the end may take: a round trip.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Discord's interval, where HELLO has none.
const HEARTBEAT_MS: u64 = 41_250;

/// See the module.
pub(super) struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    shard: Shard,
    heartbeat: Duration,
    /// The last sequence that came.
    sequence: u64,
    snapshot: Snapshot,
}

/// The guilds that are still to come before the news does.
struct Snapshot {
    guilds: HashSet<u64>,
    /// The highest sequence that they can have.
    end: u64,
}

/// How a connection ended, or why there is none.
#[derive(Debug)]
pub(super) enum Ended {
    /// We were asked to end.
    Asked,
    /// By the front.
    Closed { code: u16, reason: String },
    /// In any other way.
    Lost(String),
}

impl Connection {
    /// Connects and identifies.
    pub(super) async fn open(about: &About, shard: Shard) -> Result<Self, Ended> {
        let late = |_| Ended::Lost(format!("no answer within {} s", OPEN_WITHIN.as_secs()));
        timeout(OPEN_WITHIN, Self::identify(about, shard)).await.map_err(late)?
    }

    async fn identify(about: &About, shard: Shard) -> Result<Self, Ended> {
        let uri = format!("{}/?v=10&encoding=json&name={}", about.url, about.name);
        let uri = uri.parse().map_err(|_| Ended::Lost("that is no ws:// or wss:// address".to_owned()))?;
        let (socket, _) = ClientBuilder::from_uri(uri).connect().await.map_err(lost)?;
        let snapshot = Snapshot { guilds: HashSet::new(), end: 0 };
        let mut connection = Self { socket, shard, heartbeat: Duration::ZERO, sequence: 0, snapshot };
        let hello = connection.expect(|hello| hello["op"] == 10).await?;
        let interval = hello["d"]["heartbeat_interval"].as_u64().unwrap_or(HEARTBEAT_MS);
        connection.heartbeat = Duration::from_millis(interval.max(1));
        let properties =
            json!({ "os": std::env::consts::OS, "browser": "holdfast tail", "device": "holdfast tail" });
        let identify = json!({
            "token": about.token.expose(), "intents": Intents::ALL.bits(), "shard": shard.identity(), "properties": properties,
        });
        connection.send(&json!({ "op": 2, "d": identify })).await?;
        let ready = connection.expect(|payload| payload["t"] == "READY" || payload["op"] == 9).await?;
        if ready["op"] == 9 {
            return Err(Ended::Lost("the shard has no session at Discord at the moment".to_owned()));
        }
        connection.snapshot = Snapshot::of(&ready);
        connection.sequence = ready["s"].as_u64().unwrap_or(0);
        Ok(connection)
    }

    /// Reads on until such a payload.
    async fn expect(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value, Ended> {
        loop {
            let payload = self.payload().await?;
            let payload: Value = serde_json::from_slice(&payload).map_err(lost)?;
            if wanted(&payload) {
                return Ok(payload);
            }
        }
    }

    /// Passes on what comes, until the connection ends. When it is asked to end, so does the session at the front.
    pub(super) async fn follow(
        mut self,
        filter: &Filter,
        items: &mpsc::Sender<Item>,
        stop: &CancellationToken,
    ) -> Ended {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ended::Asked,
            ended = self.read(filter, items) => ended,
        };
        if matches!(ended, Ended::Asked) {
            // The front notices the end one way or another.
            let _ = timeout(CLOSE_WITHIN, self.close()).await;
        }
        ended
    }

    /// Says goodbye, and reads what was still on its way: leaving it unread would cut the connection before the front
    /// has heard it.
    async fn close(&mut self) {
        let code = CloseCode::NORMAL.try_into().ok();
        if self.socket.send(Message::close(code, "")).await.is_ok() {
            while let Some(Ok(_)) = self.socket.next().await {}
        }
    }

    async fn read(&mut self, filter: &Filter, items: &mpsc::Sender<Item>) -> Ended {
        let mut beat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        let mut answered = true;
        loop {
            let payload = tokio::select! {
                biased;
                _ = beat.tick() => {
                    if !std::mem::replace(&mut answered, false) {
                        return Ended::Lost("heartbeats are no longer answered".to_owned());
                    }
                    match self.beat().await {
                        Ok(()) => continue,
                        Err(ended) => return ended,
                    }
                }
                payload = self.payload() => payload,
            };
            let payload = match payload {
                Ok(payload) => payload,
                Err(ended) => return ended,
            };
            let Ok(header) = scan(&payload) else { continue };
            match header.op {
                0 => {
                    if let Some(event) = self.event(&header, &payload, filter)
                        && items.send(Item::Event(event)).await.is_err()
                    {
                        return Ended::Asked;
                    }
                }
                1 => {
                    if let Err(ended) = self.beat().await {
                        return ended;
                    }
                }
                7 | 9 => return Ended::Lost("told to connect again".to_owned()),
                11 => answered = true,
                _ => {}
            }
        }
    }

    /// The event in a dispatch, if it is news and wanted.
    fn event(&mut self, header: &Header<'_>, payload: &Bytes, filter: &Filter) -> Option<Event> {
        let position = header.sequence?;
        self.sequence = position;
        let (name, guild) = (header.name?, header.guild.unwrap_or(0));
        let shard = self.shard.number();
        if self.snapshot.takes(header.kind, guild, position) || !filter.admits(name, shard, guild) {
            return None;
        }
        Some(Event {
            received: now(),
            shard,
            stream: None,
            position,
            name: name.to_owned(),
            guild,
            data: payload.slice(header.data.clone()?),
        })
    }

    async fn payload(&mut self) -> Result<Bytes, Ended> {
        loop {
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(lost(error)),
                None => return Err(Ended::Lost("the connection was lost".to_owned())),
            };
            if let Some((code, reason)) = message.as_close() {
                return Err(Ended::Closed { code: code.into(), reason: reason.to_owned() });
            }
            if message.is_text() {
                return Ok(message.into_payload().into());
            }
        }
    }

    async fn beat(&mut self) -> Result<(), Ended> {
        let sequence = self.sequence;
        self.send(&json!({ "op": 1, "d": sequence })).await
    }

    async fn send(&mut self, payload: &Value) -> Result<(), Ended> {
        self.socket.send(Message::text(payload.to_string())).await.map_err(lost)
    }
}

impl Snapshot {
    /// What READY announces. Its sequence is so far below the log's end as there are guilds to come, at most as many
    /// as it names.
    fn of(ready: &Value) -> Self {
        let named = ready["d"]["guilds"].as_array().map_or(&[][..], Vec::as_slice);
        let id = |guild: &Value| guild["id"].as_str()?.parse().ok();
        let end = ready["s"].as_u64().unwrap_or(0).saturating_add(named.len() as u64);
        Self { guilds: named.iter().filter_map(id).collect(), end }
    }

    /// Whether an event is a part of it.
    fn takes(&mut self, kind: EventKind, guild: u64, position: u64) -> bool {
        kind == EventKind::GuildCreate && position <= self.end && self.guilds.remove(&guild)
    }
}

fn lost(error: impl std::error::Error) -> Ended {
    // The library says what failed in its error's source.
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    Ended::Lost(format!("{error}{cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshots_guilds_are_no_news_and_a_guild_that_comes_later_is() {
        let ready = json!({ "s": 4, "d": { "guilds": [{ "id": "1" }, { "id": "2" }] } });
        let mut snapshot = Snapshot::of(&ready);
        assert!(snapshot.takes(EventKind::GuildCreate, 1, 5));
        assert!(!snapshot.takes(EventKind::GuildCreate, 1, 6), "once");
        assert!(!snapshot.takes(EventKind::GuildCreate, 3, 6), "not named");
        assert!(!snapshot.takes(EventKind::GuildUpdate, 2, 6));
        assert!(!snapshot.takes(EventKind::GuildCreate, 2, 7), "back from an outage, behind the snapshot");
    }
}
