// SPDX-License-Identifier: AGPL-3.0-only
//! What writes to a client of another shard count: merges its legs in the order of arrival and numbers what it gives.
//!
//! In: the bell. Out: bytes, through the same buffer, encodings and bounds as for any client. Owned by the client's
//! task. Within each of our shards order is kept; between them it is that of arrival, to the millisecond, and what shards
//! of a former count have left comes first.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use holdfast_state::View;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Part,
    bell::{Bell, Pulls},
    leg::{Batch, Halt, Leg, Sieve},
    opening, order, retired, route,
    sessions::{Session, State},
    snapshot::Snapshot,
};
use crate::{
    front::{
        Front,
        client::DISK_BYTES,
        link::Writing,
        outlet::{Outlet, Place},
        pump::{Stopped, TURN_BYTES},
        query::Refused,
        source::{GAP, Wants, dispatch, gap_marker},
    },
    log::{OwnedRun, Position},
    shard::{Identified, unix_ms},
};

/// Where a client is in what it gets. Catch-up isn't a stage: each leg gives only that up to its snapshot.
pub(super) enum Stage {
    /// It has identified as this; not all of its shards have READY yet.
    AwaitReady(Identified),
    /// READY and the guilds.
    Snapshot(Box<Snapshot>),
    /// Replay up to these positions, then RESUMED.
    Replay(Vec<Position>),
    /// Everything that is appended.
    Live,
}

/// See the module's documentation.
pub(crate) struct Merge {
    pub(super) front: Arc<Front>,
    pub(super) part: Part,
    pub(super) writing: Writing,
    pub(super) stage: Stage,
    pub(super) wants: Wants,
    pub(super) view: View,
    /// The shard as the client gave it.
    pub(super) shard: Option<[u32; 2]>,
    pub(super) connection: u64,
    /// None before it has begun.
    pub(super) session: Option<Arc<Session>>,
    /// Of shards of a former count, then one per shard of the part, in order; none before the session has begun.
    pub(super) legs: Vec<Leg>,
    /// How many of them are of a former count.
    pub(super) retired: usize,
    pub(super) bell: Arc<Bell>,
    pub(super) batch: Batch,
    /// The leg that waits for what is read from disk.
    pub(super) reading: usize,
    /// The leg whose upstream session has ended.
    pub(super) ended: Option<usize>,
    /// At each shard; dropped when the client leaves.
    pub(super) pulls: Option<Pulls>,
}

/// What a refill came to.
enum Refill {
    /// So many bytes were encoded or looked at.
    Filled(usize),
    /// Nothing is left to send until something happens.
    Idle,
}

impl Merge {
    fn refill(&mut self) -> Result<Refill, Stopped> {
        match &mut self.stage {
            Stage::AwaitReady(_) => Ok(if opening::begin(self)? { Refill::Filled(0) } else { Refill::Idle }),
            Stage::Snapshot(snapshot) => {
                let id = self.session.as_ref().map_or("", |session| &session.id);
                let session = (id, self.shard);
                if !snapshot.next(&self.front, session, &self.view, &mut self.writing.out) {
                    self.stage = Stage::Live;
                }
                Ok(Refill::Filled(0))
            }
            Stage::Replay(until)
                if self.legs.iter().zip(&*until).all(|(leg, until)| leg.cursor >= *until) =>
            {
                let sequence = self.sequence();
                dispatch(&mut self.writing.out, "RESUMED", sequence, br#"{"_trace":[]}"#);
                self.stage = Stage::Live;
                Ok(Refill::Filled(0))
            }
            Stage::Replay(_) | Stage::Live => self.events(),
        }
    }

    /// The next events, up to 64 KiB, from all legs.
    fn events(&mut self) -> Result<Refill, Stopped> {
        let Some(session) = self.session.clone() else { return Err(Stopped::Gone) };
        let Some(mut state) = session.held(self.connection) else {
            return Err(Stopped::Refused(Refused::new(4000, "resumed elsewhere")));
        };
        for (index, leg) in self.legs[self.retired..].iter_mut().enumerate() {
            if self.bell.take(index) {
                leg.rung();
            }
        }
        let halted = self.gather(&mut state);
        let out = &mut self.writing.out;
        let spent = self.batch.drain(|payload| out.payload(payload));
        match halted {
            // What has been gathered goes first.
            _ if spent > 0 => Ok(Refill::Filled(spent)),
            None => Ok(Refill::Idle),
            Some((index, halt)) => self.halted(&mut state, index, halt),
        }
    }

    /// Fills the batch as far as it has room. Returns the leg that can't be read on, and why.
    fn gather(&mut self, state: &mut State) -> Option<(usize, Halt)> {
        let sieve = Sieve { front: &self.front, share: self.part.share, wants: &self.wants };
        while !self.batch.is_full() {
            let active = order::active(self.retired, self.legs.len(), |leg| self.legs[leg].is_done());
            let of_former = active.end == self.retired && !active.is_empty();
            // All heads, to know which came in first.
            for index in active.clone() {
                if let Err(halt) = self.legs[index].look() {
                    return Some((index, halt));
                }
            }
            let heads = active.filter_map(|leg| Some((leg, self.legs[leg].head()?)));
            match order::next(heads) {
                Some((index, until_ms)) => {
                    self.legs[index].take(index, until_ms, &sieve, &mut state.places, &mut self.batch);
                }
                // Those have come to their end.
                None if of_former => {}
                None => break,
            }
        }
        None
    }

    fn halted(&mut self, state: &mut State, index: usize, halt: Halt) -> Result<Refill, Stopped> {
        let leg = &mut self.legs[index];
        self.reading = index;
        match halt {
            Halt::Disk(read) => Err(Stopped::Disk(read)),
            Halt::NewSession => {
                self.ended = Some(index);
                Err(Stopped::Invalid)
            }
            Halt::Gone { stream, oldest } => {
                self.front.metrics.fell_behind.inc();
                let to = oldest.saturating_sub(1);
                if leg.cursor >= leg.snapshot {
                    if leg.end.is_some() {
                        // To come back wouldn't help.
                        return Err(Stopped::Invalid);
                    }
                    let reason = format!("too far behind: a log begins at {oldest}");
                    return Err(Stopped::Refused(Refused::new(4009, reason)));
                }
                // In catch-up, closing wouldn't help: the next IDENTIFY would begin at the same place.
                let gap = gap_marker(stream, leg.cursor, oldest);
                leg.cursor = to;
                leg.rung();
                dispatch(&mut self.writing.out, GAP, state.places.give(index, to), &gap);
                Ok(Refill::Filled(gap.len()))
            }
        }
    }

    /// The sequence of the latest payload.
    pub(super) fn sequence(&self) -> u64 {
        match &self.stage {
            Stage::AwaitReady(_) => 0,
            Stage::Snapshot(snapshot) => snapshot.sequence(),
            _ => self.session.as_ref().map_or(0, |session| session.state().places.sequence()),
        }
    }

    fn cursors(&self) -> Vec<Position> {
        self.legs.iter().map(|leg| leg.cursor).collect()
    }
}

impl Place for Box<Merge> {
    type Outlet = Self;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stopped> {
        self.bell.listen(cx.waker());
        let mut turn = 0;
        loop {
            match self.writing.poll_out(cx, &mut turn) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.flushed(),
                Poll::Ready(Err(_)) => return Poll::Ready(Stopped::Gone),
            }
            // As for any client: one guild a turn.
            if turn > TURN_BYTES || (turn > 0 && matches!(self.stage, Stage::Snapshot(_))) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.refill() {
                Ok(Refill::Filled(bytes)) => turn += bytes,
                Ok(Refill::Idle) => {
                    return match self.writing.writer.poll_flush(cx) {
                        Poll::Ready(Err(_)) => Poll::Ready(Stopped::Gone),
                        _ => Poll::Pending,
                    };
                }
                Err(stopped) => return Poll::Ready(stopped),
            }
        }
    }

    fn with<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        what(self)
    }

    fn leaving(&self) -> Vec<CancellationToken> {
        self.part.leaving()
    }

    fn leave(mut self) -> Option<Self> {
        self.pulls = None;
        Some(self)
    }
}

impl Outlet for Box<Merge> {
    fn writing(&mut self) -> &mut Writing {
        &mut self.writing
    }

    fn into_writing(self) -> Writing {
        self.writing
    }

    fn command(&mut self, op: u64, data: Value) -> Result<(), Refused> {
        route::command(self, op, data)
    }

    fn confirm(&mut self, sequence: u64) {
        if matches!(self.stage, Stage::AwaitReady(_) | Stage::Snapshot(_)) {
            return;
        }
        let cursors = self.cursors();
        if let Some(mut state) = self.session.as_ref().and_then(|session| session.held(self.connection)) {
            state.places.confirm(sequence, &cursors);
        }
    }

    fn flushed(&mut self) {
        for leg in &mut self.legs {
            leg.written = leg.cursor;
        }
    }

    fn note(&mut self) {
        let Some(session) = self.session.clone() else { return };
        let Some(mut state) = session.held(self.connection) else { return };
        let (former, current) = self.legs.split_at_mut(self.retired);
        let settled = retired::settle(former, &mut state, self.connection);
        let owed = former.iter().any(|leg| leg.hub.is_some());
        let (mut sequence, (mut confirmed, at)) = (state.places.sequence(), state.places.confirmed());
        if owed {
            // After a restart no sequence stands for a place.
            (sequence, confirmed) = (u64::MAX, u64::MAX);
        } else if settled {
            current.iter_mut().for_each(Leg::note_again);
        }
        let mut lost = false;
        for (leg, at) in self.legs.iter_mut().zip(at) {
            let now = (leg.written, *at, leg.requests.len());
            let noted = leg.noted.replace(now) == Some(now);
            let Some(hub) = leg.hub.as_ref().filter(|_| !noted) else { continue };
            let mut core = hub.core();
            let Some(record) = core.sessions.held(&leg.record, self.connection) else {
                lost = true;
                continue;
            };
            (record.written, record.confirmed) = (leg.written, record.confirmed.max(*at));
            record.requests.clone_from(&leg.requests);
            if let Some(spread) = &mut record.spread {
                (spread.written, spread.confirmed) = (sequence, confirmed);
            }
        }
        if lost {
            // Somebody else has it.
            state.connection = None;
            self.bell.wake();
        }
    }

    fn read_bytes(&self) -> usize {
        // Each leg may hold a piece: a megabyte over all of them, or little each.
        (4 * DISK_BYTES / self.legs.len().max(1)).clamp(DISK_BYTES / 16, DISK_BYTES)
    }

    fn read(&mut self, run: OwnedRun) {
        self.legs[self.reading].read(run);
    }

    fn detach(&mut self, ended: bool) {
        let cursors = self.cursors();
        let now_ms = unix_ms();
        let Some(session) = &self.session else { return };
        let held = session.held(self.connection).map(|mut state| {
            state.connection = None;
            state.detached_ms = now_ms;
            state.places.mark(&cursors);
        });
        if ended && held.is_some() {
            self.front.merged.remove(&session.id);
        }
        for leg in &self.legs {
            let Some(hub) = &leg.hub else { continue };
            let sessions = &mut hub.core().sessions;
            if ended {
                sessions.end(&leg.record, self.connection, now_ms);
            } else {
                sessions.detach(&leg.record, self.connection, now_ms);
            }
        }
    }

    fn tell_gap(&mut self) {
        let sequence = self.sequence() + 1;
        let gap = self.ended.and_then(|leg| self.legs[leg].hub.as_ref()?.core().gap);
        if let Some(gap) = gap {
            dispatch(&mut self.writing.out, GAP, sequence, &gap_marker(gap.stream, gap.from, gap.to));
        }
    }
}
