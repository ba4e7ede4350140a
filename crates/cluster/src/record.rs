// SPDX-License-Identifier: AGPL-3.0-only
//! What is remembered of an upstream session and of clients' sessions. Plain values, stored as JSON.
//! Unknown fields are skipped and absent new ones get their default, so that the version before can be read.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::StreamId;

/// A shard's session with Discord, as needed to resume it.
#[derive(Clone, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Discord's session id: a secret.
    pub session_id: String,
    /// READY's `resume_gateway_url`.
    pub resume_url: String,
    /// The session's public name.
    pub stream: StreamId,
    /// Position of the log at the moment when the stream began (its last entry before).
    pub sequence_base: u64,
    /// Discord's latest sequence when the record was written; the log usually knows a later one.
    #[serde(default)]
    pub sequence: Option<u64>,
    /// Highest position that the log had on disk when the record was written. Never one that it only had in
    /// memory: positions are not given below this one again, and a crash must leave those free for the replay.
    pub position: u64,
    /// Every guild's state is saved up to here: what follows in the log is applied again.
    #[serde(default)]
    pub state_from: u64,
    /// Whether the guilds' state is saved at all. If it isn't, the session can't go on where that is needed: Discord
    /// sends a guild with a session's begin only.
    #[serde(default = "yes")]
    pub checkpoints: bool,
    /// How far events were published; absent without a broker.
    #[serde(default)]
    pub published: Option<CursorRecord>,
    /// The shard's number.
    pub shard: u32,
    /// Number of all shards of this session.
    pub total: u32,
    /// READY's `d`, from which clients' READY is made.
    pub ready: Box<RawValue>,
    /// What the session was begun with (a hash of token and intents): with other settings it can't go on.
    #[serde(default)]
    pub settings: String,
    /// What clients had set on the session, in the form of the service that keeps it; it may hold secrets.
    #[serde(default)]
    pub wishes: Option<Box<RawValue>>,
    /// When the record was written, milliseconds of Unix time.
    #[serde(default)]
    pub written_unix_ms: u64,
}

/// Records from before there was a choice.
fn yes() -> bool {
    true
}

impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRecord")
            .field("session_id", &"***")
            .field("stream", &self.stream)
            .field("sequence_base", &self.sequence_base)
            .field("sequence", &self.sequence)
            .field("position", &self.position)
            .field("shard", &self.shard)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

/// What of a [`SessionRecord`] changes all the time: small, so that it can be written often. A record that is loaded
/// has the latest of its stream in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The session that it belongs to.
    pub stream: StreamId,
    /// See [`SessionRecord::sequence`].
    pub sequence: Option<u64>,
    /// See [`SessionRecord::position`].
    pub position: u64,
    /// See [`SessionRecord::state_from`].
    pub state_from: u64,
    /// See [`SessionRecord::published`].
    #[serde(default)]
    pub published: Option<CursorRecord>,
    /// When it was written, milliseconds of Unix time.
    pub written_unix_ms: u64,
}

impl SessionRecord {
    /// What of it changes all the time.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            stream: self.stream,
            sequence: self.sequence,
            position: self.position,
            state_from: self.state_from,
            published: self.published,
            written_unix_ms: self.written_unix_ms,
        }
    }

    /// Takes over later progress; that of another session is none.
    pub fn advance(&mut self, progress: &Progress) {
        if progress.stream == self.stream {
            self.sequence = progress.sequence;
            self.position = progress.position;
            self.state_from = progress.state_from;
            self.published = progress.published;
            self.written_unix_ms = progress.written_unix_ms;
        }
    }
}

/// How far a durable reader of a shard's log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorRecord {
    /// The stream of the position.
    pub stream: StreamId,
    /// Everything up to here is done.
    pub position: u64,
}

/// A client's session on the WebSocket front, as needed to resume it or to take it over.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// The session id that the client was given: a secret.
    pub session_id: String,
    /// Who it is: a hash over credential and shard, or over a name.
    pub identity: String,
    /// The name in the connection's query, if it gave one.
    #[serde(default)]
    pub name: Option<String>,
    /// Intents with which it identified.
    pub intents: u64,
    /// Last position written to its connection.
    pub written: u64,
    /// Last position that a heartbeat of its confirmed.
    pub confirmed: u64,
    /// Position of the snapshot that it was given: below it, it gets what belongs into catch-up only.
    pub snapshot: u64,
    /// Sequence of the snapshot's last payload: from there on the client can resume.
    #[serde(default)]
    pub base: u64,
    /// The stream that its positions belong to; `None` once that has ended: it can't be resumed, only taken over.
    #[serde(default)]
    pub stream: Option<StreamId>,
    /// When its connection ended, milliseconds of Unix time; `None` while connected.
    #[serde(default)]
    pub disconnected_unix_ms: Option<u64>,
    /// Member requests that wait for an answer: our number and the client's nonce, if it gave one.
    #[serde(default)]
    pub requests: Vec<(u64, Option<String>)>,
    /// For a client with another shard count, whose session is spread over several shards.
    #[serde(default)]
    pub spread: Option<SpreadRecord>,
}

/// What a shard's record of a client says of a session that is spread over several shards and has sequences of its own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpreadRecord {
    /// The session id that the client was given: a secret. Each shard's record has an id of its own besides.
    pub session_id: String,
    /// The client's shard and shard count.
    pub shard: [u32; 2],
    /// A client that has this sequence has the shard's events up to `written`.
    pub written: u64,
    /// A client that has this sequence has the shard's events up to `confirmed`.
    pub confirmed: u64,
    /// Shards of a former count may have something for it that comes first: a client that has this sequence has that.
    #[serde(default)]
    pub owed: Option<u64>,
    /// Sequences between these two, rising, each with the shard's position that it stands for: noted when the client's
    /// connection ends.
    #[serde(default)]
    pub given: Vec<(u64, u64)>,
}

impl fmt::Debug for SpreadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpreadRecord")
            .field("session_id", &"***")
            .field("shard", &self.shard)
            .field("written", &self.written)
            .field("confirmed", &self.confirmed)
            .finish()
    }
}

impl fmt::Debug for ClientRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientRecord")
            .field("session_id", &"***")
            .field("identity", &"***")
            .field("name", &self.name)
            .field("intents", &self.intents)
            .field("written", &self.written)
            .field("confirmed", &self.confirmed)
            .field("snapshot", &self.snapshot)
            .field("disconnected_unix_ms", &self.disconnected_unix_ms)
            .field("requests", &self.requests.len())
            .field("spread", &self.spread)
            .finish()
    }
}
