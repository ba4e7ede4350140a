// SPDX-License-Identifier: AGPL-3.0-only
//! What two replicas say to each other about a leg, whose shard one has and whose client the other merges.
//!
//! On a WebSocket with a ticket, payloads as Discord's: from who merges [`ASK`], [`COMMAND`], [`SETTLE`] and heartbeats
//! with a [`Note`]; from who has the shard [`ANSWER`], [`GUILD`], [`MARK`], INVALID_SESSION, a heartbeat when the shard
//! leaves, and events: their position, the time when they came in, and the payload as it lies in the log. Replicas of two
//! versions talk during an update: a field that is added has a default.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::share::Share;
use crate::log::Position;

/// What is wanted: [`Ask`].
pub(super) const ASK: u64 = 100;
/// What a client sends, for the shard: opcode and `d`.
pub(super) const COMMAND: u64 = 101;
/// The client has everything of a shard of a former count, and has confirmed it.
pub(super) const SETTLE: u64 = 102;
/// How the leg begins: [`Answer`]. None: the shard owes the client nothing.
pub(super) const ANSWER: u64 = 110;
/// A guild of the snapshot: GUILD_CREATE's `d`.
pub(super) const GUILD: u64 = 111;
/// Nothing for the client lies up to this position.
pub(super) const MARK: u64 = 112;

/// Who a client is that has a session, or begins one.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Who {
    /// Of the client's session: a secret.
    pub(super) session: String,
    /// Its token, hashed.
    pub(super) credential: String,
    /// Shard and shard count.
    pub(super) client: [u32; 2],
    /// Name from the connection's query.
    #[serde(default)]
    pub(super) name: Option<String>,
    pub(super) intents: u64,
    pub(super) large_threshold: u32,
}

/// What is wanted of a shard for a client.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) who: Who,
    pub(super) what: What,
}

/// See [`Ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// To begin its session, once there is READY. `since_former`: it was away when shards of the former count ended.
    Begin { since_former: bool },
    /// To give it what it is owed since it was away, by a shard of a former count.
    Take,
    /// To go on behind a sequence, or the position that is known to stand for it; at a shard of a former count to its end.
    Resume { sequence: u64, position: Option<Position>, former: bool },
    /// To go on behind a sequence with a shard of a new count, of which it has nothing yet.
    Join { sequence: u64 },
}

impl What {
    /// Whether the shard is one of a former count.
    pub(super) fn is_former(self) -> bool {
        matches!(self, Self::Take | Self::Resume { former: true, .. })
    }
}

impl Who {
    /// Its share of a bot with so many shards.
    pub(super) fn share(&self, total: u32) -> Share {
        let [shard, count] = self.client;
        Share { shard, count, total }
    }
}

/// An event that belongs to a snapshot, behind its guilds: name and `d`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Further {
    pub(super) name: Cow<'static, str>,
    pub(super) data: Box<RawValue>,
}

impl Further {
    /// None: that is no JSON.
    pub(super) fn new(name: &'static str, data: Vec<u8>) -> Option<Self> {
        let data = RawValue::from_string(String::from_utf8(data).ok()?).ok()?;
        Some(Self { name: name.into(), data })
    }
}

/// How a leg begins.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    /// Under which name and intents the client is known there.
    pub(super) name: Option<String>,
    pub(super) intents: u64,
    /// Position of the client's snapshot.
    pub(super) snapshot: Position,
    /// The client has everything up to here.
    pub(super) from: Position,
    /// Where the log ended: up to there it is replay.
    pub(super) until: Position,
    /// Where it ends for good, of a shard of a former count.
    pub(super) end: Option<Position>,
    /// Ids of the client's guilds.
    pub(super) guilds: Vec<u64>,
    /// How many of them follow.
    pub(super) available: u64,
    pub(super) further: Vec<Further>,
    pub(super) caught_up: bool,
    /// Shards of a former count have something for the client that comes first.
    pub(super) owed: bool,
}

/// Where a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Note {
    /// At the shard.
    pub(super) written: Position,
    pub(super) confirmed: Position,
    /// Which sequences stand for that.
    pub(super) sequences: [u64; 2],
    /// The sequence by which it has what shards of a former count had for it, if they had anything.
    pub(super) owed: Option<u64>,
    /// Sequences between these, with the positions that they stand for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) given: Vec<(u64, Position)>,
}

/// A payload of ours.
pub(super) fn payload(op: u64, data: &impl Serialize) -> String {
    json!({ "op": op, "d": serde_json::to_value(data).unwrap_or_default() }).to_string()
}

/// What a client sends, as a payload for the shard.
pub(super) fn command(op: u64, data: &Value) -> String {
    payload(COMMAND, &json!({ "op": op, "d": data }))
}

/// A dispatch as it would lie in a log.
pub(super) fn dispatch(name: &str, position: Position, data: &[u8]) -> Vec<u8> {
    let mut payload = format!("{{\"t\":\"{name}\",\"s\":{position},\"op\":0,\"d\":").into_bytes();
    payload.extend_from_slice(data);
    payload.push(b'}');
    payload
}

/// An event as it is told.
pub(super) fn event(position: Position, received_ms: u64, payload: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(position).as_bytes());
    out.push(b' ');
    out.extend_from_slice(digits.format(received_ms).as_bytes());
    out.push(b' ');
    out.extend_from_slice(payload);
}

/// Position, time, and where the payload begins, of an event as it was told. None: it is none.
pub(super) fn read_event(said: &[u8]) -> Option<(Position, u64, usize)> {
    fn number(said: &[u8]) -> Option<(u64, usize)> {
        let end = said.iter().position(|byte| *byte == b' ')?;
        Some((std::str::from_utf8(&said[..end]).ok()?.parse().ok()?, end + 1))
    }
    let (position, at) = number(said)?;
    let (received_ms, further) = number(&said[at..])?;
    Some((position, received_ms, at + further))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_was_told() {
        let mut said = Vec::new();
        event(12, 1_700_000_000_000, b"{\"s\":12}", &mut said);
        let (position, received_ms, at) = read_event(&said).unwrap();
        assert_eq!((position, received_ms, &said[at..]), (12, 1_700_000_000_000, &b"{\"s\":12}"[..]));
        for other in ["", "{\"op\":1}", "1", "1 ", "1 x {}", "x 1 {}"] {
            assert_eq!(read_event(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_is_asked_for_and_answered_is_read_again() {
        let what = What::Resume { sequence: 7, position: Some(9), former: true };
        let said = payload(ASK, &what);
        let read: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(serde_json::from_value::<What>(read["d"].clone()).unwrap(), what);
        let further = vec![Further::new("HOLDFAST_GAP", b"{\"from\":1}".to_vec()).unwrap()];
        let said = payload(ANSWER, &Answer { further, end: Some(3), ..Answer::default() });
        let read: Value = serde_json::from_str(&said).unwrap();
        let read: Option<Answer> = serde_json::from_value(read["d"].clone()).unwrap();
        let read = read.unwrap();
        assert_eq!((read.end, read.further[0].data.get()), (Some(3), "{\"from\":1}"));
    }
}
