// SPDX-License-Identifier: AGPL-3.0-only
//! What a shard knows, under one owner: its log, its guilds, READY, its client sessions.
//!
//! In: scanned dispatches. Out: entries of the log, and a snapshot that agrees with a position. Pure but for
//! the log's hand-over to its writer; the shard's task writes, readers hold the lock for one read.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use holdfast_cluster::{CursorRecord, Progress};
use holdfast_discord::{EventKind, Header, shard_of};
use holdfast_state::{Guilds, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    awaited::Awaited,
    hub::unix_ms,
    members::MemberRequests,
    outbox::Priority,
    ready::{Ready, ReadyError},
    sessions::Sessions,
    voice::{self, VoiceStates},
    warming::{Clock, Opened, Warming},
};
use crate::fleet::Records;
use crate::log::{Entry, Gap, Log, Position, StreamId};

/// State and log of one shard; see the module's documentation.
pub(crate) struct Core {
    /// The shard's number, and of how many.
    pub(crate) shard: (u32, u32),
    pub(crate) log: Log,
    pub(crate) guilds: Guilds,
    /// READY of the upstream session; none before the first.
    pub(crate) ready: Option<Arc<Ready>>,
    /// Rises when Discord gives a new session: clients of an older epoch have to identify again.
    pub(crate) epoch: u64,
    /// The gap that the current epoch began with.
    pub(crate) gap: Option<Gap>,
    pub(crate) sessions: Sessions,
    store: Records,
    pub(crate) members: MemberRequests,
    /// Who waits for Discord's answers.
    pub(crate) awaited: Awaited,
    pub(crate) voice: VoiceStates,
    /// Last presence that a client sent (op 3, whole), for the next session.
    pub(crate) presence: Option<Vec<u8>>,
    /// What the session's record holds has changed since it was stored.
    pub(crate) record_changed: bool,
    /// There was an upstream session before the current one, in this process or in one before it.
    pub(crate) had_session: bool,
    /// Every guild's state is saved up to here.
    pub(crate) state_from: Position,
    /// Places that another replica could resume from, oldest first: streams, positions, Discord's sequences.
    pub(crate) marks: VecDeque<Mark>,
    /// Everything up to here is published, where there is an AMQP front: the log is kept from there on.
    pub(crate) published: Option<CursorRecord>,
    /// What the broker hasn't had is left to Discord before the log drops it, if nobody else reads here.
    pub(crate) leaves_backlog: bool,
    /// Opcodes that Discord closed our connection for.
    pub(crate) refused_opcodes: BTreeSet<u64>,
    /// The shard is of the bot's next count, and nobody sees it yet.
    pub(super) warming: Option<Warming>,
    /// Where readers begin, since it took over from shards of another count.
    pub(crate) opened: Option<Arc<Opened>>,
    pub(super) clock: Clock,
    /// How long shards of two counts have the same events before the old ones are cut.
    pub(crate) overlap: Duration,
}

/// What clients have set on the session: its last presence and its voice connections.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Wishes {
    presence: Option<Box<RawValue>>,
    #[serde(default)]
    voice: voice::Stored,
}

/// A place that a session can be resumed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) stream: StreamId,
    pub(crate) position: Position,
    pub(crate) sequence: u64,
}

/// A position with everything that is true at it.
pub(crate) struct At {
    pub(crate) position: Position,
    pub(crate) ready: Arc<Ready>,
    pub(crate) guilds: Snapshot,
}

impl Core {
    pub(crate) fn new(
        shard: (u32, u32),
        log: Log,
        guilds: Guilds,
        sessions: Sessions,
        store: Records,
    ) -> Self {
        Self {
            shard,
            log,
            guilds,
            ready: None,
            epoch: 0,
            gap: None,
            sessions,
            store,
            members: MemberRequests::new(unix_ms()),
            awaited: Awaited::default(),
            voice: VoiceStates::default(),
            presence: None,
            record_changed: false,
            had_session: false,
            published: None,
            state_from: 0,
            marks: VecDeque::new(),
            leaves_backlog: false,
            refused_opcodes: BTreeSet::new(),
            warming: None,
            opened: None,
            clock: Clock::default(),
            overlap: Duration::ZERO,
        }
    }

    /// READY: takes the new session's data over and purges guilds that are gone. Returns the gap, if the log
    /// has entries of an older session.
    pub(crate) fn begin_session(&mut self, data: &[u8], stream: StreamId) -> Result<Option<Gap>, ReadyError> {
        let ready = Ready::parse(data)?;
        // Of a shard that nobody has seen nobody misses anything.
        let unseen = self.warming.as_ref().is_some_and(|warming| !warming.is_sealed());
        let first = !std::mem::replace(&mut self.had_session, true) || unseen;
        self.guilds.ready(ready.user, &ready.guilds);
        self.ready = Some(Arc::new(ready));
        self.record_changed = true;
        let gap = self.log.start_stream(stream);
        self.gathers_anew();
        if first {
            return Ok(None);
        }
        self.voice.new_session();
        self.sessions.new_epoch(gap.from);
        self.epoch += 1;
        self.gap = Some(gap);
        self.save_clients(true);
        Ok(self.gap)
    }

    /// An event: state and log take it over at the same position.
    pub(crate) fn dispatch(&mut self, header: &Header<'_>, payload: &[u8], now_ms: u64) -> Position {
        let position = self.log.last() + 1;
        let guild = header.guild.unwrap_or(0);
        let data = header.data.clone().and_then(|range| payload.get(range)).unwrap_or_default();
        self.apply(header, guild, data, position);
        let audience = match header.kind {
            EventKind::GuildMembersChunk | EventKind::RateLimited => self.members.audience(payload),
            _ => 0,
        };
        // A payload without `s` can't be numbered; Discord sends none.
        let Some(sequence_range) = header.sequence_range.clone() else { return self.log.last() };
        let position = self.log.append(Entry {
            sequence: header.sequence,
            kind: header.kind,
            guild,
            audience,
            received_ms: now_ms,
            payload,
            sequence_range,
            data: header.data.clone().unwrap_or_default(),
        });
        if self.awaited.concerns(header.kind) {
            self.awaited.event(header.kind, guild, audience, position);
        }
        position
    }

    /// The state's part of an event; also for entries of the log that are newer than the stored state.
    pub(crate) fn apply(&mut self, header: &Header<'_>, guild: u64, data: &[u8], position: Position) {
        match header.kind {
            EventKind::MessageCreate => {
                if let (Some(channel), Some(message)) = (header.channel, header.id) {
                    self.guilds.message(guild, channel, message, position);
                }
            }
            EventKind::UserUpdate => {
                if let Some(ready) = self.ready.as_ref().and_then(|ready| ready.with_user(data)) {
                    self.ready = Some(Arc::new(ready));
                    self.record_changed = true;
                }
                self.guilds.apply(header.kind, header.guild, data, position);
            }
            EventKind::VoiceServerUpdate => self.note_voice(header.kind, guild, data),
            kind => {
                if kind == EventKind::VoiceStateUpdate {
                    self.note_voice(kind, guild, data);
                }
                self.guilds.apply(kind, header.guild, data, position);
            }
        }
    }

    /// Notes the log's end as a place to resume from.
    pub(crate) fn mark(&mut self) {
        /// Once a second: ten minutes, longer than Discord holds a session.
        const MARKS: usize = 600;
        let Some(sequence) = self.log.last_sequence() else { return };
        let mark = Mark { stream: self.log.stream(), position: self.log.last(), sequence };
        if self.marks.back() != Some(&mark) {
            self.marks.push_back(mark);
        }
        while self.marks.len() > MARKS {
            self.marks.pop_front();
        }
    }

    /// From where another replica would resume: where nothing is missing to the state, the broker, or a client that
    /// was here a minute ago. What follows it is replayed by Discord, at the same positions.
    pub(crate) fn progress(&self, now_ms: u64) -> Option<Progress> {
        /// Marks behind which a client that is slow, or gone, doesn't hold the others back.
        const PATIENCE: usize = 60;
        let stream = self.log.stream();
        let patience = self.marks.len().saturating_sub(PATIENCE);
        let patient = self.marks.get(patience)?.position;
        let clients = self.sessions.behind().map_or(Position::MAX, |written| written.max(patient));
        let published = self.published.map_or(Position::MAX, |cursor| cursor.position);
        let bound = self.state_from.min(published).min(clients);
        let here = || self.marks.iter().filter(|mark| mark.stream == stream);
        let mark = here().rev().find(|mark| mark.position <= bound).or_else(|| here().next())?;
        Some(Progress {
            stream,
            sequence: Some(mark.sequence),
            position: mark.position,
            state_from: mark.position,
            published: self.published,
            written_unix_ms: now_ms,
        })
    }

    /// Bytes of the log that the broker hasn't confirmed; 0 without an AMQP front.
    pub(crate) fn unpublished_bytes(&self) -> u64 {
        self.published.map_or(0, |published| self.log.bytes_after(published.position))
    }

    /// The snapshot at the log's end: cheap, shared records.
    pub(crate) fn at_end(&self) -> Option<At> {
        let ready = Arc::clone(self.ready.as_ref()?);
        Some(At { position: self.log.last(), ready, guilds: self.guilds.snapshot() })
    }

    /// Stores the client sessions, if they have changed: at once when one begins, so that a crash right after
    /// it doesn't forget the client. With `places`, also when clients have only moved on. Never waits.
    pub(crate) fn save_clients(&mut self, places: bool) {
        if let Some(records) = self.sessions.records(self.epoch, self.log.stream(), places) {
            self.store.save_clients(records);
        }
    }

    /// Where clients can read: oldest and last position.
    pub(crate) fn reach(&self) -> (Position, Position) {
        (self.log.oldest(), self.log.last())
    }

    /// What clients have set on the session and a restart must not forget.
    pub(crate) fn wishes(&self) -> Wishes {
        let presence = self.presence.as_deref().and_then(|payload| serde_json::from_slice(payload).ok());
        Wishes { presence, voice: self.voice.stored() }
    }

    /// Takes over what an earlier process stored.
    pub(crate) fn restore_wishes(&mut self, wishes: Wishes) {
        self.presence = wishes.presence.map(|payload| payload.get().as_bytes().to_vec());
        self.voice.restore(wishes.voice);
    }

    /// Takes over what clients have set on a shard of a former count, as far as it is this one's: the bot's presence, and
    /// where it is in voice, which ends with the session that brought it there. Returns what Discord is to be told.
    pub(crate) fn carry_over(&mut self, wishes: &Wishes) -> Vec<(Priority, Vec<u8>)> {
        let mut payloads = Vec::new();
        if let (None, Some(presence)) = (&self.presence, &wishes.presence) {
            self.presence = Some(presence.get().as_bytes().to_vec());
            payloads.extend(self.presence.clone().map(|presence| (Priority::Normal, presence)));
        }
        let (shard, total) = self.shard;
        for (guild, wanted) in wishes.voice.wanted().filter(|(guild, _)| shard_of(*guild, total) == shard) {
            self.voice.want(guild, true, wanted);
            payloads.push((Priority::High, wanted.to_vec()));
        }
        self.record_changed |= !payloads.is_empty();
        payloads
    }

    fn note_voice(&mut self, kind: EventKind, guild: u64, data: &[u8]) {
        let own = self.ready.as_ref().map_or(0, |ready| ready.user);
        self.record_changed |= self.voice.note(kind, guild, own, data);
    }
}
