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
    batch::Batch,
    bell::{Bell, Pulls},
    far::{Far, Over, Said},
    leg::{Halt, Leg, Side, Sieve},
    opening::{self, Waiting},
    order,
    places::Places,
    retired, route, seek,
    sessions::{Session, State},
    snapshot::{Added, Snapshot},
    turn::{self, Refill, Source},
    wire::Note,
};
use crate::{
    front::{
        Front,
        client::DISK_BYTES,
        link::Writing,
        outlet::{Outlet, Place},
        pump::Stopped,
        query::Refused,
        source::{GAP, Wants, dispatch, gap_marker},
    },
    log::{Gap, OwnedRun, Position},
    shard::Offer,
};

/// Where a client is in what it gets. Catch-up isn't a stage: each leg gives only that up to its snapshot.
pub(super) enum Stage {
    /// It has identified as this; not all of its shards have READY yet.
    AwaitReady(Box<Waiting>),
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
    /// Where Discord has begun a new session, which ends the client's.
    pub(super) gap: Option<Gap>,
    /// The sequence by which the client was given everything of the shards of the former count.
    pub(super) had_former: Option<u64>,
    /// At each shard that is here; dropped when its place is noted there.
    pub(super) pulls: Option<Pulls>,
    /// What no other client gets, in the buffer and not yet written.
    pub(super) offers: Vec<Offer>,
    /// A shard at another replica leaves that.
    pub(super) leaving: CancellationToken,
}

impl Merge {
    /// The next payload of the snapshot. False: it isn't there yet.
    fn snapshot(&mut self, cx: &mut Context<'_>) -> Result<bool, Stopped> {
        let Stage::Snapshot(snapshot) = &mut self.stage else { return Ok(true) };
        let id = self.session.as_ref().map_or("", |session| &session.id);
        let out = &mut self.writing.out;
        match snapshot.next(&self.front, (id, self.shard), &self.view, out) {
            Added::Payload => return Ok(true),
            Added::Nothing => {
                self.go_live();
                return Ok(true);
            }
            Added::Far => {}
        }
        for far in self.legs.iter_mut().filter_map(Leg::far_mut) {
            far.poll(cx);
            if far.give_own(snapshot.sequence(), &mut self.batch, out) {
                return Ok(true);
            }
            if matches!(far.next(), Some(Said::Guild(_)))
                && let Some(Said::Guild(data)) = far.take()
            {
                snapshot.far(data.get(), out);
                return Ok(true);
            }
            if let Some(Over::Closed(refused)) = far.over() {
                return Err(Stopped::Refused(refused.clone()));
            }
            if far.over().is_some() {
                return Err(Stopped::Invalid);
            }
        }
        Ok(false)
    }

    fn go_live(&mut self) {
        self.stage = Stage::Live;
        self.bell.take_offers();
    }

    /// The next events, up to 64 KiB, from all legs.
    fn events(&mut self, cx: &mut Context<'_>) -> Result<Refill, Stopped> {
        let Some(session) = self.session.clone() else { return Err(Stopped::Gone) };
        let Some(mut state) = session.held(self.connection) else {
            return Err(Stopped::Refused(Refused::new(4000, "resumed elsewhere")));
        };
        self.legs.iter_mut().for_each(|leg| leg.hear(cx));
        for (index, leg) in self.legs[self.retired..].iter_mut().enumerate() {
            if self.bell.take(index) {
                leg.rung();
            }
        }
        let halted = self.gather(&mut state);
        let out = &mut self.writing.out;
        let spent = self.batch.drain(|_, payload| out.payload(payload));
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
                    let places = &mut state.places;
                    let mut number = |position| match position {
                        0 => places.sequence(),
                        position => places.give(index, position),
                    };
                    self.legs[index].take(until_ms, &sieve, &mut number, &mut self.batch);
                }
                // Those have come to their end meanwhile.
                None if of_former && self.legs[..self.retired].iter().all(Leg::is_done) => {}
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
            Halt::Refused(refused) => Err(Stopped::Refused(refused)),
            Halt::NewSession => {
                self.gap = leg.hub().and_then(|hub| hub.core().gap);
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

    /// The end of who merges of a current shard at another replica.
    pub(super) fn far(&mut self, index: usize) -> Option<&mut Far> {
        if let Stage::AwaitReady(waiting) = &mut self.stage {
            let here = self.part.here().filter(|(leg, _)| *leg < index).count();
            return waiting.far.get_mut(index - here);
        }
        self.legs.get_mut(self.retired + index)?.far_mut()
    }

    fn cursors(&self) -> Vec<Position> {
        self.legs.iter().map(|leg| leg.cursor).collect()
    }

    /// Notes the client's place at all of its shards; `exactly`: with what each of its sequences stands for. False:
    /// somebody else has it.
    fn note_at(&mut self, places: &Places, exactly: bool) -> bool {
        let (sequence, (confirmed, at)) = (places.sequence(), places.confirmed());
        let owed = self.owed(sequence);
        let mut held = true;
        for (index, (leg, at)) in self.legs.iter_mut().zip(at).enumerate() {
            let given = if exactly { places.given(index) } else { Vec::new() };
            let sequences = [sequence, confirmed];
            let note = Note { written: leg.written, confirmed: *at, sequences, owed, given };
            held &= leg.note(note, self.connection);
        }
        held
    }

    /// The sequence by which the client has everything of the shards of the former count, while it may still need them.
    fn owed(&mut self, sequence: u64) -> Option<u64> {
        let former = &self.legs[..self.retired];
        if former.iter().all(|leg| matches!(leg.side, Side::Over)) {
            return None;
        }
        if !former.iter().all(Leg::is_done) {
            return Some(u64::MAX);
        }
        Some(*self.had_former.get_or_insert(sequence))
    }
}

impl Source for Box<Merge> {
    fn refill(&mut self, cx: &mut Context<'_>) -> Result<Refill, Stopped> {
        let added = match &self.stage {
            Stage::AwaitReady(_) => opening::begin(self, cx)?,
            Stage::Snapshot(_) => self.snapshot(cx)?,
            Stage::Replay(until) if self.legs.iter().zip(until).all(|(leg, until)| leg.cursor >= *until) => {
                let sequence = self.sequence();
                dispatch(&mut self.writing.out, "RESUMED", sequence, br#"{"_trace":[]}"#);
                self.go_live();
                true
            }
            Stage::Replay(_) => return self.events(cx),
            Stage::Live => {
                let sequence =
                    || self.session.as_ref().map_or(0, |session| session.state().places.sequence());
                self.bell.give_offers(sequence, &mut self.writing.out, &mut self.offers);
                return if self.writing.out.is_empty() { self.events(cx) } else { Ok(Refill::Filled(0)) };
            }
        };
        Ok(if added { Refill::Filled(0) } else { Refill::Idle })
    }

    fn is_heavy(&self) -> bool {
        matches!(self.stage, Stage::Snapshot(_))
    }
}

impl Place for Box<Merge> {
    type Outlet = Self;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stopped> {
        self.bell.listen(cx.waker());
        turn::poll(self, cx)
    }

    fn with<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        what(self)
    }

    fn leaving(&self) -> Vec<CancellationToken> {
        let here = self.part.here().map(|(_, hub)| hub.leaving.clone());
        here.chain([self.leaving.clone()]).collect()
    }

    fn leave(self) -> Option<Self> {
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
        self.offers.drain(..).for_each(Offer::written);
        for leg in &mut self.legs {
            leg.written = leg.cursor;
        }
    }

    fn note(&mut self) {
        if let Stage::AwaitReady(waiting) = &mut self.stage {
            let taken = waiting.taken.iter_mut().filter_map(|attached| attached.leg.far_mut());
            taken.chain(&mut waiting.far).for_each(Far::beat);
        }
        let Some(session) = self.session.clone() else { return };
        let Some(mut state) = session.held(self.connection) else { return };
        if retired::settle(&self.front, &mut self.legs[..self.retired], &state.places, self.connection) {
            self.legs.iter_mut().for_each(Leg::note_again);
        }
        if !self.note_at(&state.places, false) {
            // Somebody else has it.
            state.detach();
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
        if let Stage::AwaitReady(waiting) = &mut self.stage {
            self.legs = waiting.taken.drain(..).map(|attached| attached.leg).collect();
            self.legs.extend(waiting.far.drain(..).map(|far| Leg::far(Box::new(far), 0, 0)));
        }
        let cursors = self.cursors();
        let session = self.session.clone();
        let state = session.as_ref().and_then(|session| session.held(self.connection));
        let held = state.map(|mut state| {
            state.detach();
            state.places.mark(&cursors);
            self.note_at(&state.places, true);
        });
        if let Some(session) = session.filter(|_| ended && held.is_some()) {
            self.front.merged.remove(&session.id);
        }
        for leg in &mut self.legs {
            seek::release(&self.front, leg, self.connection, ended);
        }
        // Whoever waits for the client to be gone stores its places right away.
        self.pulls = None;
    }

    fn tell_gap(&mut self) {
        let sequence = self.sequence() + 1;
        let gap = self.gap;
        if let Some(gap) = gap {
            dispatch(&mut self.writing.out, GAP, sequence, &gap_marker(gap.stream, gap.from, gap.to));
        }
    }
}
