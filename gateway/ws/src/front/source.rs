// SPDX-License-Identifier: AGPL-3.0-only
//! What a client gets next: READY and guilds, catch-up, replay, live events, one after the other.
//!
//! In: a client's place. Out: the next payloads for its buffer. Pure but for the core's lock, which is held
//! for one read.

use holdfast_discord::EventKind;
use holdfast_state::View;

use super::{Front, outgoing::Outgoing};
use crate::{
    log::{Meta, OwnedRun, Position, Run},
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
        /// Position of the snapshot: `s` of all that is sent here.
        at: Position,
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
    next: Option<usize>,
    /// Indexes of guilds that can be sent.
    available: Vec<usize>,
}

/// What of the events a client gets.
#[derive(Clone)]
pub(crate) struct Wants {
    pub(crate) intents: u64,
    pub(crate) own_user: u64,
}

const GUILDS: u64 = 1;

impl Wants {
    /// Whether the client gets an event for everybody.
    pub(crate) fn takes(&self, meta: &Meta, payload: impl FnOnce() -> Vec<u8>) -> bool {
        if meta.needs == 0 || meta.needs & self.intents != 0 {
            return true;
        }
        // The own member's updates come without GUILD_MEMBERS ("Guild Member Update").
        meta.kind == EventKind::GuildMemberUpdate
            && self.intents & GUILDS != 0
            && own_member(&payload(), self.own_user)
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

impl SnapshotSource {
    pub(crate) fn new(at: At, since: Option<Position>, intents: u64) -> Self {
        let wanted = intents & GUILDS != 0;
        let guilds = at.guilds.guilds();
        let available = (0..guilds.len()).filter(|index| wanted && !guilds[*index].unavailable()).collect();
        Self { at, since, next: None, available }
    }

    /// Adds READY, then one guild at each call. False: that was all.
    pub(crate) fn next(
        &mut self,
        front: &Front,
        session: (&str, Option<[u32; 2]>),
        view: &View,
        out: &mut Outgoing,
    ) -> bool {
        let position = self.at.position;
        let Some(next) = self.next else {
            self.next = Some(0);
            let guilds: Vec<u64> = self.at.guilds.guilds().iter().map(|guild| guild.id()).collect();
            let ready = self.at.ready.for_client(&ForClient {
                session_id: session.0,
                resume_url: &front.settings.public_url,
                shard: session.1,
                guilds: &guilds,
            });
            let sequence = if self.available.is_empty() { position } else { position - 1 };
            dispatch(out, "READY", sequence, &ready.unwrap_or_default());
            return true;
        };
        let Some(index) = self.available.get(next) else { return false };
        let last = next + 1 == self.available.len();
        let mut data = Vec::new();
        if self.at.guilds.guilds()[*index].guild_create(view, &mut data).is_ok() {
            dispatch(out, "GUILD_CREATE", if last { position } else { position - 1 }, &data);
        } else {
            front.metrics.malformed.inc();
        }
        self.next = Some(next + 1);
        true
    }
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

/// A payload of the log with another `s`.
pub(crate) fn renumbered(meta: &Meta, payload: &[u8], sequence: Position) -> Vec<u8> {
    let start = meta.digits_at as usize;
    let end = start + usize::from(meta.digits);
    let mut digits = itoa::Buffer::new();
    [&payload[..start], digits.format(sequence).as_bytes(), &payload[end..]].concat()
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
    requests: &std::collections::HashMap<u64, Option<String>>,
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
