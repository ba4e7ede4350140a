// SPDX-License-Identifier: AGPL-3.0-only
//! An event as it is shown, wherever it came from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use holdfast_contract::v1;
use serde_json::json;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// When Holdfast received it, or, from the front, when it came here; since 1970.
    pub(super) received: Duration,
    /// None: the front has merged all shards.
    pub(super) shard: Option<u32>,
    /// The session with Discord that brought it; the front doesn't say.
    pub(super) stream: Option<String>,
    /// In its shard's log; where the front has merged all shards, the connection's own number.
    pub(super) position: u64,
    pub(super) name: String,
    /// Its guild, 0 for none.
    pub(super) guild: u64,
    /// Discord's JSON of `d`.
    pub(super) data: Bytes,
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Self {
        Self {
            received: Duration::from_micros(event.received_at_us),
            shard: Some(event.shard),
            stream: Some(event.stream),
            position: event.position,
            name: event.name,
            guild: event.guild_id,
            data: event.data,
        }
    }
}

impl From<v1::Gap> for Event {
    fn from(gap: v1::Gap) -> Self {
        let reason = gap.reason().as_str_name();
        let data = json!({
            "stream": gap.stream, "from": gap.from, "to": gap.to, "next_stream": gap.next_stream, "reason": reason,
            "lost": gap.lost,
        });
        Self {
            received: Duration::from_micros(gap.received_at_us),
            shard: Some(gap.shard),
            stream: Some(gap.stream),
            position: gap.to,
            name: gap.name,
            guild: 0,
            data: data.to_string().into(),
        }
    }
}

/// Now, since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
