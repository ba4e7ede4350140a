// SPDX-License-Identifier: AGPL-3.0-only
//! What a client gets next: READY and guilds, catch-up, replay, live events, one after the other.
//!
//! In: a client's place. Out: the next payloads for its buffer. Pure but for the core's lock, which is held
//! for one read.

use holdfast_discord::EventKind;
use holdfast_state::View;
use serde_json::json;

use super::{Front, outgoing::Outgoing};
use crate::{
    log::{Meta, OwnedRun, Position, Run, StreamId},
    shard::{At, ForClient, restore_nonce, unix_ms},
};

/// Where a client is in what it gets.
pub(crate) enum Source {
    /// It has identified; the shard has no READY yet.
    AwaitReady,
    /// READY and the guilds of one position.
    Snapshot(Box<SnapshotSource>),
    /// What came since its dead session, up to the snapshot's position.
    CatchUp {
        /// Position of the snapshot.
        at: Position,
        /// It has resumed within its catch-up: RESUMED follows behind this position.
        resumed: Option<Position>,
    },
    /// It resumed from beyond the log's end: upstream's replay may bring it there.
    Ahead { sequence: Position },
    /// Replay up to a position, then RESUMED.
    Replay { until: Position },
    /// Everything that is appended.
    Live,
}

/// The snapshot under way.
pub(crate) struct SnapshotSource {
    pub(crate) at: At,
    pub(crate) since: Option<Position>,
    /// Sequence of the last payload. They rise by one up to it: libraries that take an event's sequence to be
    /// above the one before it would hand guilds out before READY otherwise.
    pub(crate) base: Position,
    sent: usize,
    /// Indexes of guilds that can be sent.
    available: Vec<usize>,
    /// Events that follow the guilds: name and `d`.
    further: Vec<(&'static str, Vec<u8>)>,
}

/// What of the events a client gets.
#[derive(Clone)]
pub(crate) struct Wants {
    pub(crate) intents: u64,
    pub(crate) own_user: u64,
}

const GUILDS: u64 = 1;
const GUILD_MEMBERS: u64 = 1 << 1;

impl Wants {
    /// Whether the client gets an event for everybody.
    pub(crate) fn takes(&self, meta: &Meta, payload: impl FnOnce() -> Vec<u8>) -> bool {
        if meta.kind == EventKind::ThreadMembersUpdate && self.intents & (GUILDS | GUILD_MEMBERS) == GUILDS {
            // With GUILDS alone only the bot's own joining and leaving ("Caveats").
            return own_thread(&payload(), self.own_user);
        }
        if meta.needs == 0 || u64::from(meta.needs) & self.intents != 0 {
            return true;
        }
        // The own member's updates need no intent ("Guild Member Update").
        meta.kind == EventKind::GuildMemberUpdate && own_member(&payload(), self.own_user)
    }
}

fn own_member(payload: &[u8], own_user: u64) -> bool {
    #[derive(serde::Deserialize)]
    struct User {
        id: String,
    }
    #[derive(serde::Deserialize)]
    struct Member {
        user: User,
    }
    #[derive(serde::Deserialize)]
    struct Event {
        d: Member,
    }
    serde_json::from_slice::<Event>(payload).is_ok_and(|event| event.d.user.id.parse() == Ok(own_user))
}

fn own_thread(payload: &[u8], own_user: u64) -> bool {
    #[derive(serde::Deserialize)]
    struct Added {
        user_id: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Members {
        #[serde(default)]
        added_members: Vec<Added>,
        #[serde(default)]
        removed_member_ids: Vec<String>,
    }
    #[derive(serde::Deserialize)]
    struct Event {
        d: Members,
    }
    let own = own_user.to_string();
    serde_json::from_slice::<Event>(payload).is_ok_and(|event| {
        event.d.added_members.iter().any(|added| added.user_id.as_ref() == Some(&own))
            || event.d.removed_member_ids.contains(&own)
    })
}

impl SnapshotSource {
    pub(crate) fn new(
        at: At,
        since: Option<Position>,
        intents: u64,
        further: Vec<(&'static str, Vec<u8>)>,
    ) -> Self {
        let wanted = intents & GUILDS != 0;
        let guilds = at.guilds.guilds();
        let available: Vec<_> =
            (0..guilds.len()).filter(|index| wanted && !guilds[*index].unavailable()).collect();
        // READY takes the lowest sequence, which is at least 1.
        let payloads = (available.len() + further.len()) as u64;
        let base = since.unwrap_or(at.position).max(payloads + 1).min(at.position.max(payloads + 1));
        Self { at, since, base, sent: 0, available, further }
    }

    /// Payloads, READY among them.
    fn len(&self) -> usize {
        1 + self.available.len() + self.further.len()
    }

    /// The sequence of the latest payload.
    pub(crate) fn sequence(&self) -> Position {
        self.base - (self.len() - self.sent.max(1)) as u64
    }

    /// Adds READY, then one guild or further event at each call. False: that was all.
    pub(crate) fn next(
        &mut self,
        front: &Front,
        session: (&str, Option<[u32; 2]>),
        view: &View,
        out: &mut Outgoing,
    ) -> bool {
        if self.sent == self.len() {
            return false;
        }
        self.sent += 1;
        let sequence = self.sequence();
        let guilds = self.at.guilds.guilds();
        let Some(index) = self.sent.checked_sub(2) else {
            let guilds: Vec<u64> = guilds.iter().map(|guild| guild.id()).collect();
            let ready = self.at.ready.for_client(&ForClient {
                session_id: session.0,
                resume_url: &front.settings.public_url,
                shard: session.1,
                guilds: &guilds,
            });
            dispatch(out, "READY", sequence, &ready.unwrap_or_default());
            return true;
        };
        if let Some(guild) = self.available.get(index) {
            let mut data = Vec::new();
            if guilds[*guild].guild_create(view, &mut data).is_ok() {
                dispatch(out, "GUILD_CREATE", sequence, &data);
            } else {
                front.metrics.malformed.inc();
            }
        } else if let Some((name, data)) = self.further.get(index - self.available.len()) {
            dispatch(out, name, sequence, data);
        }
        true
    }
}

/// Name of the dispatch that tells a client where events may be missing. Libraries pass unknown names over.
pub(crate) const GAP: &str = "HOLDFAST_GAP";

/// The gap marker's `d`: between the positions `from` and `to` of the stream, events may be missing.
pub(crate) fn gap_marker(stream: StreamId, from: Position, to: Position) -> Vec<u8> {
    json!({ "stream": stream.to_string(), "from": from, "to": to }).to_string().into_bytes()
}

/// Adds a dispatch of our own making.
pub(crate) fn dispatch(out: &mut Outgoing, name: &str, sequence: Position, data: &[u8]) {
    let mut payload = Vec::with_capacity(data.len() + name.len() + 48);
    payload.extend_from_slice(b"{\"t\":\"");
    payload.extend_from_slice(name.as_bytes());
    payload.extend_from_slice(b"\",\"s\":");
    payload.extend_from_slice(itoa::Buffer::new().format(sequence).as_bytes());
    payload.extend_from_slice(b",\"op\":0,\"d\":");
    payload.extend_from_slice(data);
    payload.push(b'}');
    out.payload(&payload);
}

/// Whether an entry belongs into catch-up.
pub(crate) fn catches_up(front: &Front, meta: &Meta) -> bool {
    let too_old = || {
        let age = u64::try_from(front.settings.interaction_max_age.as_millis()).unwrap_or(u64::MAX);
        meta.kind == EventKind::InteractionCreate && unix_ms().saturating_sub(meta.received_ms) > age
    };
    meta.audience == 0 && front.catch_up.contains(&meta.kind) && !too_old()
}

/// What a client asked for with a request of its own: the payload with its nonce, if it is for this client.
pub(crate) fn for_asker(
    requests: &std::collections::BTreeMap<u64, Option<String>>,
    meta: &Meta,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let nonce = requests.get(&meta.audience)?;
    Some(restore_nonce(payload, nonce.as_deref()))
}

/// A run that lies in memory or came from disk, with where to begin in it.
pub(crate) struct FromDisk {
    pub(crate) run: OwnedRun,
    pub(crate) at: usize,
}

impl FromDisk {
    pub(crate) fn rest(&self) -> Option<Run<'_>> {
        let run = self.run.as_run();
        let metas = run.metas.get(self.at..).filter(|metas| !metas.is_empty())?;
        Some(Run { metas, ..run })
    }
}
