// SPDX-License-Identifier: AGPL-3.0-only
//! A batch on its way from a log to the writer: a copy of frames that follow each other, of one stream.
//! In: a run of the ring. Out: the same, shared by the log (for its readers) and the writer's queue.

use std::mem::size_of;

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
    pub(super) run: OwnedRun,
}

impl Batch {
    /// Copies the start of a run: whole entries up to `max_bytes`, at least one.
    pub(super) fn copy(run: &Run<'_>, max_bytes: usize, attempt: u64, sequence: Option<u64>) -> Batch {
        let mut bytes = 0;
        let fitting = run.metas.iter().take_while(|meta| {
            bytes += meta.len as usize;
            bytes <= max_bytes
        });
        let count = fitting.count().max(1).min(run.metas.len());
        let mut copy = OwnedRun::empty(run.stream);
        copy.metas.reserve_exact(count);
        copy.bytes.reserve_exact(run.frames(0..count).len());
        copy.extend(run, 0..count);
        let first = copy.metas.first().map_or(0, |meta| meta.position);
        let newest = copy.metas.iter().rev().find_map(|meta| meta.sequence);
        Batch { attempt, first, last_sequence: newest.or(sequence), run: copy }
    }

    /// A batch without entries: it says on disk that another stream has begun.
    pub(super) fn marker(stream: StreamId, next: Position, attempt: u64) -> Batch {
        Batch { attempt, first: next, last_sequence: None, run: OwnedRun::empty(stream) }
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
