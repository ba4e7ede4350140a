// SPDX-License-Identifier: AGPL-3.0-only
//! What writes to one client: takes from its source and gives to its socket, as fast as the socket takes it.
//!
//! In: wakes. Out: bytes. Nothing is queued per client but one buffer of about 64 KiB, or one guild; frames
//! of a client that takes JSON without compression go from the log to the socket as they are.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll},
};

use holdfast_state::View;

use super::{
    Front,
    link::Writing,
    query::Refused,
    source::{FromDisk, GAP, SnapshotSource, Source, Wants, catches_up, dispatch, for_asker, gap_marker},
};
use crate::{
    log::{DiskRead, Position, Read, Run},
    shard::{Core, Hub, Identified, Offer},
};

/// Payloads that are encoded before they are written, and bytes that are written before others on the same
/// thread get their turn.
pub(super) const BATCH_BYTES: usize = 64 * 1024;
pub(super) const TURN_BYTES: usize = 512 * 1024;
/// An entry that is passed over counts as so many bytes: 8,192 of them are a turn.
pub(super) const LOOKED_AT: usize = 64;

/// Why the pump stopped.
pub(crate) enum Stopped {
    /// The next events are on disk: read them, give them to [`Pump::from_disk`], go on.
    Disk(DiskRead),
    /// The client's session can't go on: INVALID_SESSION, then it may identify again.
    Invalid,
    /// The client is to be closed.
    Refused(Refused),
    /// The connection is gone.
    Gone,
}

/// What a refill came to.
enum Refill {
    /// The buffer has something to write.
    Filled,
    /// So many bytes of the log were written, encoded or looked at.
    Wrote(usize),
    /// The socket takes nothing now.
    Blocked,
    /// Nothing is left to send until something happens.
    Idle,
    Stop(Stopped),
}

/// One client's way out.
pub(crate) struct Pump {
    pub(crate) front: Arc<Front>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) writing: Writing,
    pub(crate) source: Source,
    pub(crate) wants: Wants,
    pub(crate) view: View,
    pub(crate) shard: Option<[u32; 2]>,
    /// Who identifies; taken when the session begins.
    pub(crate) client: Option<Identified>,
    /// Id of the client's session; empty before it has one.
    pub(crate) session: String,
    pub(crate) connection: u64,
    pub(crate) epoch: u64,
    /// Everything up to here is in the buffer or the socket.
    pub(crate) cursor: Position,
    /// Everything up to here has left for the socket.
    pub(crate) written: Position,
    /// The last position that the client really got: what follows was filtered away.
    pub(crate) last_given: Position,
    pub(crate) requests: BTreeMap<u64, Option<String>>,
    /// Resumes that the shard had seen when we last looked whether the session is still ours.
    pub(crate) resumes: u64,
    pub(crate) disk: Option<FromDisk>,
    /// What no other client gets, in the buffer and not yet written.
    pub(crate) offers: Vec<Offer>,
    /// Why it stopped, when the shard's task ran it: for the client's.
    pub(crate) stopped: Option<Stopped>,
}

impl Pump {
    /// The sequence that a payload of our own making carries now.
    pub(crate) fn sequence(&self) -> Position {
        match &self.source {
            Source::Snapshot(source) => source.sequence(),
            _ => self.cursor.max(self.last_given),
        }
    }

    /// Whether the shard's task may run it: what follows are frames as they lie in the log.
    pub(crate) fn writes_at_once(&self) -> bool {
        matches!(self.source, Source::Live) && self.writing.out.is_direct() && self.disk.is_none()
    }

    /// Writes until nothing is left or the socket takes no more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stopped> {
        let mut turn = 0;
        loop {
            match self.writing.poll_out(cx, &mut turn) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Stopped::Gone),
            }
            self.written = self.cursor;
            self.offers.drain(..).for_each(Offer::written);
            // A guild costs as much as a hundred messages: one a turn, or a shard waits for all its clients' guilds.
            if turn > TURN_BYTES || (turn > 0 && matches!(self.source, Source::Snapshot(_))) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.refill(cx) {
                Refill::Filled => {}
                Refill::Wrote(count) => turn += count,
                Refill::Blocked => return Poll::Pending,
                Refill::Idle => {
                    return match self.writing.writer.poll_flush(cx) {
                        Poll::Ready(Err(_)) => Poll::Ready(Stopped::Gone),
                        _ => Poll::Pending,
                    };
                }
                Refill::Stop(stopped) => return Poll::Ready(stopped),
            }
        }
    }

    fn refill(&mut self, cx: &mut Context<'_>) -> Refill {
        match &mut self.source {
            Source::AwaitReady => self.begin(),
            Source::Snapshot(_) => self.snapshot(),
            Source::CatchUp { at, resumed } => {
                let (at, resumed) = (*at, *resumed);
                self.catch_up(at, resumed)
            }
            Source::Ahead { sequence } => {
                let sequence = *sequence;
                self.ahead(sequence)
            }
            Source::Replay { until } if self.cursor >= *until => {
                // Not `until`: a client within its catch-up may be ahead of the log that a crash has left.
                dispatch(&mut self.writing.out, "RESUMED", self.cursor, br#"{"_trace":[]}"#);
                self.source = Source::Live;
                Refill::Filled
            }
            Source::Replay { until } => {
                let until = *until;
                self.events(cx, until)
            }
            Source::Live => self.events(cx, Position::MAX),
        }
    }

    /// The session begins as soon as the shard has READY.
    fn begin(&mut self) -> Refill {
        let hub = Arc::clone(&self.hub);
        let mut core = hub.core();
        let Some(at) = core.at_end() else { return Refill::Idle };
        let Some(client) = self.client.take() else { return Refill::Stop(Stopped::Gone) };
        self.epoch = core.epoch;
        self.wants.own_user = at.ready.user;
        self.view.own_user = at.ready.user;
        let mut further = self.front.voice_again(&self.hub, &core);
        let connection = client.connection;
        self.front.metrics.client_identifies.inc();
        let begun = self.front.begin(&mut core, client, at.position);
        if let (Some(since), Some(gap)) = (begun.since, core.gap)
            && since <= gap.from
        {
            // It was away when Discord began a new session: catch-up goes over the gap.
            further.push((GAP, gap_marker(gap.stream, gap.from, gap.to)));
        }
        let source = SnapshotSource::new(at, begun.since, self.wants.intents, further);
        if let Some(session) = core.sessions.held(&begun.id, connection) {
            session.base = source.base;
        }
        core.save_clients(true);
        drop(core);
        self.session = begun.id;
        self.cursor = begun.since.unwrap_or(source.at.position);
        self.written = self.cursor;
        self.last_given = source.base;
        self.source = Source::Snapshot(Box::new(source));
        Refill::Filled
    }

    fn snapshot(&mut self) -> Refill {
        let Source::Snapshot(source) = &mut self.source else { return Refill::Idle };
        let session = (self.session.as_str(), self.shard);
        if source.next(&self.front, session, &self.view, &mut self.writing.out) {
            return Refill::Filled;
        }
        let (at, since) = (source.at.position, source.since);
        if since.is_some() {
            self.front.metrics.catch_ups.inc();
        }
        self.source = Source::CatchUp { at, resumed: None };
        Refill::Filled
    }

    /// What came between the dead session and the snapshot: what belongs into catch-up of it.
    fn catch_up(&mut self, at: Position, resumed: Option<Position>) -> Refill {
        if self.cursor >= at {
            self.cursor = at;
            self.source = match resumed {
                Some(until) => Source::Replay { until },
                None => Source::Live,
            };
            return Refill::Filled;
        }
        self.with_run(|pump, run| {
            let mut given = 0;
            for (index, meta) in run.metas.iter().enumerate() {
                if meta.position > at || given > BATCH_BYTES {
                    break;
                }
                let payload = || run.payload(index).to_vec();
                if catches_up(&pump.front, meta) && pump.wants.takes(meta, payload) {
                    pump.writing.out.payload(run.payload(index));
                    pump.last_given = meta.position;
                    pump.front.metrics.caught_up.inc();
                    given += run.payload(index).len();
                }
                pump.cursor = meta.position;
                given += LOOKED_AT;
            }
            Refill::Wrote(given)
        })
    }

    fn ahead(&mut self, sequence: Position) -> Refill {
        let last = self.hub.core().log.last();
        if last >= sequence {
            self.cursor = sequence;
            self.source = Source::Replay { until: last };
            return Refill::Filled;
        }
        if self.hub.is_replaying() {
            return Refill::Idle;
        }
        // Upstream's replay is over and has not brought it: the client has what we never had.
        Refill::Stop(Stopped::Invalid)
    }

    fn events(&mut self, cx: &mut Context<'_>, until: Position) -> Refill {
        if self.writing.out.is_direct() && self.disk.is_none() {
            return self.direct(cx, until);
        }
        self.with_run(|pump, run| pump.encode(run, until))
    }

    /// Takes frames from the log to the socket.
    fn direct(&mut self, cx: &mut Context<'_>, until: Position) -> Refill {
        let hub = Arc::clone(&self.hub);
        let core = hub.core();
        let run = match self.look(&core) {
            Ok(run) => run,
            Err(refill) => return refill,
        };
        let mut passing = 0..0;
        let mut bytes = 0;
        for (index, meta) in run.metas.iter().enumerate() {
            let payload = || run.payload(index).to_vec();
            let plain = meta.audience == 0 && self.wants.takes(meta, payload);
            if plain && meta.position <= until && bytes < TURN_BYTES {
                if passing.is_empty() {
                    passing = index..index;
                }
                passing.end = index + 1;
                bytes += meta.len as usize;
                continue;
            }
            if !passing.is_empty() || meta.position > until {
                break;
            }
            self.cursor = meta.position;
            if meta.audience != 0
                && let Some(payload) = for_asker(&self.requests, meta, run.payload(index))
            {
                self.last_given = meta.position;
                self.writing.out.payload(&payload);
                return Refill::Filled;
            }
        }
        if passing.is_empty() {
            // Looking at what others get takes its time, too.
            return Refill::Wrote(run.metas.len() * LOOKED_AT);
        }
        let frames = run.frames(passing.clone());
        match self.writing.writer.poll_write(cx, frames) {
            Poll::Pending => Refill::Blocked,
            Poll::Ready(Ok(count)) if count > 0 => {
                self.account(&run, passing, count);
                Refill::Wrote(count)
            }
            Poll::Ready(_) => Refill::Stop(Stopped::Gone),
        }
    }

    /// `count` bytes of the frames `passing` have been written. The rest of one that was cut is kept: the log
    /// may evict it before the socket takes more.
    fn account(&mut self, run: &Run<'_>, passing: std::ops::Range<usize>, count: usize) {
        let mut left = count;
        for index in passing {
            let frame = run.frame(index);
            if left == 0 {
                break;
            }
            self.cursor = run.metas[index].position;
            self.last_given = self.cursor;
            if left < frame.len() {
                self.written = self.cursor - 1;
                self.writing.out.raw(&frame[left..]);
                return;
            }
            left -= frame.len();
        }
        self.written = self.cursor;
    }

    fn encode(&mut self, run: &Run<'_>, until: Position) -> Refill {
        let mut given = 0;
        for (index, meta) in run.metas.iter().enumerate() {
            if meta.position > until || given > BATCH_BYTES {
                break;
            }
            let payload = run.payload(index);
            if meta.audience != 0 {
                if let Some(payload) = for_asker(&self.requests, meta, payload) {
                    self.writing.out.payload(&payload);
                    self.last_given = meta.position;
                }
            } else if self.wants.takes(meta, || payload.to_vec()) {
                self.writing.out.payload(payload);
                self.last_given = meta.position;
                given += payload.len();
            }
            self.cursor = meta.position;
            given += LOOKED_AT;
        }
        Refill::Wrote(given)
    }

    /// Gives the next run, from disk or from memory, to `take`.
    fn with_run(&mut self, take: impl FnOnce(&mut Self, &Run<'_>) -> Refill) -> Refill {
        if let Some(disk) = self.disk.take() {
            let Some(run) = disk.rest() else { return Refill::Filled };
            let refill = take(self, &run);
            let at = disk.run.metas.partition_point(|meta| meta.position <= self.cursor);
            self.disk = (at < disk.run.metas.len()).then_some(FromDisk { at, ..disk });
            return refill;
        }
        let hub = Arc::clone(&self.hub);
        let core = hub.core();
        match self.look(&core) {
            Ok(run) => take(self, &run),
            Err(refill) => refill,
        }
    }

    /// The run at the cursor, or why there is none.
    fn look<'a>(&mut self, core: &'a Core) -> Result<Run<'a>, Refill> {
        if core.epoch != self.epoch {
            return Err(Refill::Stop(Stopped::Invalid));
        }
        if core.sessions.resumes() != self.resumes {
            self.resumes = core.sessions.resumes();
            if !core.sessions.holds(&self.session, self.connection) {
                return Err(Refill::Stop(Stopped::Refused(Refused::new(4000, "resumed elsewhere"))));
            }
        }
        match core.log.read(self.cursor) {
            Read::Memory(run) => Ok(run),
            Read::End => Err(Refill::Idle),
            Read::Disk(read) => Err(Refill::Stop(Stopped::Disk(read))),
            Read::Gone { oldest } => {
                self.front.metrics.fell_behind.inc();
                if matches!(self.source, Source::CatchUp { .. }) {
                    // Closing wouldn't help: the next IDENTIFY would begin at the same place. It is told.
                    let to = oldest.saturating_sub(1);
                    let gap = gap_marker(core.log.stream(), self.cursor, oldest);
                    dispatch(&mut self.writing.out, GAP, to, &gap);
                    self.cursor = to;
                    return Err(Refill::Filled);
                }
                let reason = format!("too far behind: the log begins at {oldest}");
                Err(Refill::Stop(Stopped::Refused(Refused::new(4009, reason))))
            }
        }
    }
}
