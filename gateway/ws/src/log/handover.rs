// SPDX-License-Identifier: AGPL-3.0-only
//! What a log keeps of the way to the disk: what the writer has been given, what of it has arrived, and when the
//! next batch is due. In: the ring. Out: batches to the writer's queue. Owned by the log; never waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::disk::{Disk, DiskRead};
use super::entry::{Position, Read};
use super::index::Found;
use super::ring::Ring;
use super::writer::Queue;
use super::{Fill, StreamId};

/// After a failed write, the next attempt comes so much later.
const RETRY: Duration = Duration::from_secs(1);

/// What became of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// There was nothing to hand over.
    Idle,
    /// All that was pending is in the writer's queue.
    Handed,
    /// The queue, or this log's share of memory for batches, is full: the rest stays pending.
    Full,
}

#[derive(Debug)]
pub(super) struct Handover {
    disk: Arc<Disk>,
    queue: Queue,
    /// Last position that a batch has.
    handed: Position,
    /// Batches that aren't known to be stored; the last one may still be `unsent`.
    in_flight: VecDeque<Arc<Batch>>,
    in_flight_bytes: usize,
    unsent: Option<Arc<Batch>>,
    /// Latest sequence in a batch, and of the batches settled; both with their stream.
    handed_sequence: Option<u64>,
    stored_sequence: (StreamId, Option<u64>),
    /// The stream has changed and no batch says so yet.
    stream_unsaved: bool,
    pending_since: Option<Instant>,
    attempt: u64,
    retry: Retry,
    dropped: u64,
}

/// What is to be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// There are many entries: those in closed blocks, which needn't be copied; all, if there are none.
    Many,
    /// All, for their age.
    All,
}

/// When to write again after a failure. The time is only known to `due`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    No,
    Failed,
    At(Instant),
}

impl Handover {
    pub(super) fn new(
        disk: Arc<Disk>,
        queue: Queue,
        handed: Position,
        stream: StreamId,
        sequence: Option<u64>,
    ) -> Handover {
        Handover {
            disk,
            queue,
            handed,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            unsent: None,
            handed_sequence: sequence,
            stored_sequence: (stream, sequence),
            stream_unsaved: false,
            pending_since: None,
            attempt: 1,
            retry: Retry::No,
            dropped: 0,
        }
    }

    pub(super) fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    pub(super) fn handed(&self) -> Position {
        self.handed
    }

    pub(super) fn stored(&self) -> Position {
        self.disk.stored()
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk.bytes()
    }

    /// Bytes of batches on their way. A block that the ring still has counts here, too: evicting it makes room then, as
    /// it must, or those behind it, which no batch has yet, would have to go.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    pub(super) fn stored_sequence(&self, stream: StreamId) -> Option<u64> {
        let stored = self.stored();
        let newest = self.in_flight.iter().rev().find(|batch| batch.last() <= stored);
        let (of, sequence) =
            newest.map_or(self.stored_sequence, |batch| (batch.run.stream, batch.last_sequence));
        if of == stream { sequence } else { None }
    }

    /// Lets go of batches that have arrived. Returns the bytes of the others.
    pub(super) fn settle(&mut self) -> usize {
        let stored = self.stored();
        while let Some(batch) = self.in_flight.pop_front_if(|batch| batch.last() <= stored) {
            self.in_flight_bytes -= batch.cost();
            self.stored_sequence = (batch.run.stream, batch.last_sequence);
            self.queue.spares.keep(batch);
        }
        self.in_flight_bytes
    }

    pub(super) fn due(&mut self, now: Instant, last: Position, ring: &Ring) -> Due {
        self.notice_failure(ring);
        match self.retry {
            Retry::Failed => self.retry = Retry::At(now + RETRY),
            Retry::At(at) if now >= at => self.retry = Retry::No,
            _ => {}
        }
        if self.retry != Retry::No {
            return Due::Nothing;
        }
        let pending = last - self.handed;
        if pending == 0 && !self.stream_unsaved && self.unsent.is_none() {
            self.pending_since = None;
            return Due::Nothing;
        }
        let since = *self.pending_since.get_or_insert(now);
        match () {
            () if now >= since + self.disk.settings.batch_delay => Due::All,
            () if pending < self.disk.settings.batch_events => Due::Nothing,
            () if ring.is_closed(self.handed + 1) => Due::Many,
            () => Due::All,
        }
    }

    pub(super) fn flush(&mut self, due: Due, ring: &Ring, stream: StreamId) -> Flush {
        self.notice_failure(ring);
        let mut done = Flush::Idle;
        loop {
            if let Some(batch) = self.unsent.take() {
                if let Err(batch) = self.queue.send(&self.disk, batch) {
                    self.unsent = Some(batch);
                    return Flush::Full;
                }
                done = Flush::Handed;
            }
            let full = self.settle() >= self.disk.settings.in_flight_bytes();
            if full && ring.run_from(self.handed + 1).is_some() {
                return Flush::Full;
            }
            let Some(batch) = self.next_batch(due, ring, stream) else { break };
            self.handed = batch.last();
            self.handed_sequence = batch.last_sequence;
            self.in_flight_bytes += batch.cost();
            let batch = Arc::new(batch);
            self.in_flight.push_back(Arc::clone(&batch));
            self.unsent = Some(batch);
        }
        // What is left behind closed blocks is no younger than this.
        if due == Due::All {
            self.pending_since = None;
        }
        done
    }

    fn next_batch(&mut self, due: Due, ring: &Ring, stream: StreamId) -> Option<Batch> {
        let next = self.handed + 1;
        if let Some(run) = ring.run_from(next) {
            if due != Due::All && !ring.is_closed(next) {
                return None;
            }
            // A batch of a new stream carries none of the old one's sequences, and tells of the change.
            let newest = self.in_flight.back().map_or(self.stored_sequence.0, |batch| batch.run.stream);
            let sequence = if newest == run.stream { self.handed_sequence } else { None };
            self.stream_unsaved &= run.stream != stream;
            if let Some(block) = ring.closed_block(next) {
                return Some(Batch::share(block, self.attempt, sequence));
            }
            let max_bytes = self.disk.settings.batch_bytes();
            return Some(Batch::copy(&run, max_bytes, self.attempt, sequence, &self.queue.spares));
        }
        if self.stream_unsaved {
            self.stream_unsaved = false;
            return Some(Batch::marker(stream, self.handed + 1, self.attempt));
        }
        None
    }

    pub(super) fn stream_changed(&mut self) {
        self.stream_unsaved = true;
    }

    /// Whether the last write failed.
    pub(super) fn has_failed(&self) -> bool {
        self.retry != Retry::No
    }

    /// A block has left the ring: what of it no batch holds is lost.
    pub(super) fn evicted(&mut self, first: Position, last: Position) {
        if last > self.handed {
            let from = first.max(self.handed + 1);
            self.lose(from, last);
            self.handed = last;
        }
    }

    /// The ring is about to be emptied and positions go on after `to`: what no batch holds is lost.
    pub(super) fn skip(&mut self, ring: &Ring, last: Position, to: Position) {
        if last > self.handed && ring.oldest().is_some() {
            self.lose(self.handed + 1, last);
        }
        self.disk.add_hole(last + 1, to);
        self.handed = to;
    }

    /// A write failed, and what was queued behind it is void: begin again with what is still in memory.
    fn notice_failure(&mut self, ring: &Ring) {
        if self.disk.failed_attempt() < self.attempt {
            return;
        }
        self.attempt = self.disk.failed_attempt() + 1;
        self.settle();
        let stored = self.stored();
        let oldest = ring.oldest().unwrap_or(self.handed + 1);
        for batch in std::mem::take(&mut self.in_flight) {
            let from = batch.first.max(stored + 1);
            let to = batch.last().min(oldest - 1);
            if from <= to {
                self.lose(from, to);
            }
        }
        self.in_flight_bytes = 0;
        self.unsent = None;
        self.handed = stored.max(oldest - 1);
        self.handed_sequence = self.stored_sequence.1;
        self.stream_unsaved = true;
        self.retry = Retry::Failed;
    }

    fn lose(&mut self, from: Position, to: Position) {
        self.dropped += to - from + 1;
        self.disk.add_hole(from, to);
    }

    /// What follows `after`, which the ring no longer has; `oldest` is the oldest that it has.
    pub(super) fn read(&self, after: Position, oldest: Position) -> Read<'_> {
        let next = after + 1;
        if let Some(batch) = self.in_flight.iter().find(|batch| batch.first <= next && next <= batch.last()) {
            return Read::Disk(DiskRead::of_batch(batch, after));
        }
        let on_disk = match self.disk.find(next) {
            Found::Here(_) => return Read::Disk(DiskRead::of_disk(&self.disk, after)),
            Found::Missing(next) => next,
        };
        let in_flight = self.in_flight.iter().map(|batch| batch.first).find(|first| *first > next);
        let oldest = [on_disk, in_flight].into_iter().flatten().fold(oldest, Position::min);
        Read::Gone { oldest }
    }

    /// Oldest position on disk or on its way there.
    pub(super) fn oldest(&self) -> Position {
        let in_flight = self.in_flight.front().map_or(u64::MAX, |batch| batch.first);
        self.disk.oldest().min(in_flight)
    }

    pub(super) fn unbroken_from(&self, memory: Position) -> Position {
        self.oldest().min(memory).max(self.disk.after_holes())
    }

    pub(super) fn keep_from(&self, position: Position) {
        self.disk.set_keep_from(position);
    }

    pub(super) fn cut_above_checkpoint(&self) -> bool {
        let keep_from = self.disk.keep_from();
        keep_from != u64::MAX && self.disk.oldest() != u64::MAX && keep_from < self.disk.oldest()
    }

    pub(super) fn describe(&self, fill: &mut Fill, last: Position) {
        fill.dropped_unstored = self.dropped;
        fill.damaged = self.disk.damaged();
        fill.pending = last - self.handed;
    }
}
