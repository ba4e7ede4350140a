// SPDX-License-Identifier: AGPL-3.0-only
//! A batch on its way from a log to the writer: frames that follow each other, of one stream. A whole block of the ring
//! is shared with it; of one that is still being filled, it has a copy.
//! In: blocks and runs of the ring. Out: the same, shared by the log (for its readers) and the writer's queue.

use std::mem::size_of;
use std::sync::{Arc, Mutex, PoisonError};

use super::StreamId;
use super::entry::{Meta, OwnedRun, Position, Run};

/// What one write to disk brings there.
#[derive(Debug)]
pub(super) struct Batch {
    /// Which attempt of its log this belongs to: after a failed write, what was queued behind it is void.
    pub(super) attempt: u64,
    /// Position of the first entry; for a batch without entries the one that comes next.
    pub(super) first: Position,
    /// Latest sequence in the stream, up to this batch's end.
    pub(super) last_sequence: Option<u64>,
    pub(super) run: Arc<OwnedRun>,
}

impl Batch {
    /// Copies the start of a run: whole entries up to `max_bytes`, at least one.
    pub(super) fn copy(
        run: &Run<'_>,
        max_bytes: usize,
        attempt: u64,
        sequence: Option<u64>,
        spares: &Spares,
    ) -> Batch {
        let mut bytes = 0;
        let fitting = run.metas.iter().take_while(|meta| {
            bytes += meta.len as usize;
            bytes <= max_bytes
        });
        let count = fitting.count().max(1).min(run.metas.len());
        let len = run.frames(0..count).len();
        let mut copy = spares.take(run.stream, len);
        copy.metas.reserve_exact(count);
        copy.bytes.reserve_exact(len);
        copy.extend(run, 0..count);
        Batch::share(Arc::new(copy), attempt, sequence)
    }

    /// A run as it is. `sequence`: the latest in its stream before it.
    pub(super) fn share(run: Arc<OwnedRun>, attempt: u64, sequence: Option<u64>) -> Batch {
        let first = run.metas.first().map_or(0, |meta| meta.position);
        let newest = run.metas.iter().rev().find_map(|meta| meta.sequence);
        Batch { attempt, first, last_sequence: newest.or(sequence), run }
    }

    /// A batch without entries: it says on disk that another stream has begun.
    pub(super) fn marker(stream: StreamId, next: Position, attempt: u64) -> Batch {
        Batch { attempt, first: next, last_sequence: None, run: Arc::new(OwnedRun::empty(stream)) }
    }

    /// Position of the last entry; for a batch without entries the one before `first`.
    pub(super) fn last(&self) -> Position {
        self.first + self.run.metas.len() as u64 - 1
    }

    /// Bytes in memory.
    pub(super) fn cost(&self) -> usize {
        self.run.bytes.capacity() + self.run.metas.capacity() * size_of::<Meta>()
    }
}

/// Buffers of batches that have arrived, for the next ones of any shard: at a high rate a fresh one would cost more
/// in page faults than the copy into it.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Vec<OwnedRun>>);

impl Spares {
    /// At most so many wait: 2 MiB.
    const MAX: usize = 8;
    /// Smaller ones are the allocator's: they come from pages that are in use anyway.
    const MIN_BYTES: usize = 32 << 10;
    /// Larger ones held one large entry.
    const MAX_BYTES: usize = 256 << 10;

    fn take(&self, stream: StreamId, len: usize) -> OwnedRun {
        let spare = if len < Self::MIN_BYTES { None } else { self.list().pop() };
        spare.map_or_else(|| OwnedRun::empty(stream), |spare| OwnedRun { stream, ..spare })
    }

    /// Keeps the batch's buffers, if they are worth it and nobody reads them any more: a shared block is the ring's.
    pub(super) fn keep(&self, batch: Arc<Batch>) {
        let Some(Batch { run, .. }) = Arc::into_inner(batch) else { return };
        let Some(mut run) = Arc::into_inner(run) else { return };
        if !(Self::MIN_BYTES..=Self::MAX_BYTES).contains(&run.bytes.capacity()) {
            return;
        }
        run.metas.clear();
        run.bytes.clear();
        let mut list = self.list();
        if list.len() < Self::MAX {
            list.push(run);
        }
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<OwnedRun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
