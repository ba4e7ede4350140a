// SPDX-License-Identifier: AGPL-3.0-only
//! Where on disk each position stands: segments with sparse marks, and the holes between them. Pure: no files.
//! Owned by [`Disk`](super::disk::Disk), which locks it for moments only.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::entry::Position;

/// A mark at least every so many bytes: a read skips the headers of at most this much.
const MARK_EVERY: u64 = 64 << 10;
/// Holes that are kept apart; beyond that the two oldest become one. Each came from a failure of its own.
const HOLES: usize = 256;

/// One file of the log.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Position in the file's name.
    pub(super) first: Position,
    /// Last position in it; `first - 1` while it has none.
    pub(super) last: Position,
    /// Length up to which it is whole.
    pub(super) bytes: u64,
    /// When its newest entry came in.
    pub(super) newest_ms: u64,
    /// Batches' first positions and places, sparse, rising.
    pub(super) marks: Vec<(Position, u64)>,
}

impl Segment {
    pub(super) fn new(path: PathBuf, first: Position, bytes: u64) -> Segment {
        Segment { path, first, last: first - 1, bytes, newest_ms: 0, marks: Vec::new() }
    }

    /// Takes in a batch of `len` bytes at the segment's end.
    pub(super) fn grow(&mut self, first: Position, last: Position, len: u64, newest_ms: u64) {
        let marked = self.marks.last().map(|(_, at)| *at);
        if marked.is_none_or(|at| self.bytes - at >= MARK_EVERY) {
            self.mark(first);
        }
        self.bytes += len;
        self.last = self.last.max(last);
        self.newest_ms = self.newest_ms.max(newest_ms);
    }

    /// Lets reads of positions from `first` on begin at the segment's present end.
    pub(super) fn mark(&mut self, first: Position) {
        if self.marks.last().is_none_or(|(_, at)| *at != self.bytes) {
            self.marks.push((first, self.bytes));
        }
    }
}

/// A place from which to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) end: u64,
    pub(super) last: Position,
}

/// The answer for a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Here(Place),
    /// Not there; the next that is, if any.
    Missing(Option<Position>),
}

/// All segments of a shard.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) segments: VecDeque<Segment>,
    holes: VecDeque<(Position, Position)>,
}

impl Index {
    pub(super) fn find(&self, position: Position) -> Found {
        if let Some((_, to)) = self.hole_at(position) {
            return Found::Missing(self.readable_from(to + 1));
        }
        match self.segment_of(position) {
            Some(segment) => {
                let mark = segment.marks.partition_point(|(first, _)| *first <= position);
                let Some((_, offset)) = mark.checked_sub(1).and_then(|mark| segment.marks.get(mark)) else {
                    return Found::Missing(self.readable_from(segment.last + 1));
                };
                Found::Here(Place {
                    path: segment.path.clone(),
                    offset: *offset,
                    end: segment.bytes,
                    last: segment.last,
                })
            }
            None => Found::Missing(self.readable_from(position)),
        }
    }

    /// The lowest position that can be read, from `position` on.
    pub(super) fn readable_from(&self, position: Position) -> Option<Position> {
        let mut position = position;
        loop {
            let segment =
                self.segments.iter().find(|segment| segment.last >= position && segment.has_any())?;
            position = position.max(segment.first);
            match self.hole_at(position) {
                Some((_, to)) => position = to + 1,
                None => return Some(position),
            }
        }
    }

    /// The first position after the last hole; 0 without one.
    pub(super) fn after_holes(&self) -> Position {
        self.holes.back().map_or(0, |(_, to)| to + 1)
    }

    /// Notes that positions are missing. Both ends belong to the hole.
    pub(super) fn add_hole(&mut self, from: Position, to: Position) {
        if from > to {
            return;
        }
        let at = self.holes.partition_point(|(start, _)| *start <= from);
        self.holes.insert(at, (from, to));
        let mut merged: VecDeque<(Position, Position)> = VecDeque::with_capacity(self.holes.len());
        for (start, end) in self.holes.drain(..) {
            match merged.back_mut() {
                Some(hole) if hole.1 + 1 >= start => hole.1 = hole.1.max(end),
                _ => merged.push_back((start, end)),
            }
        }
        if merged.len() > HOLES
            && let Some((start, _)) = merged.pop_front()
            && let Some(next) = merged.front_mut()
        {
            next.0 = start;
        }
        self.holes = merged;
    }

    /// Forgets holes below the oldest segment.
    pub(super) fn trim(&mut self) {
        let oldest = self.segments.front().map_or(0, |segment| segment.first);
        while self.holes.front().is_some_and(|(_, to)| *to < oldest) {
            self.holes.pop_front();
        }
    }

    /// Oldest position on disk.
    pub(super) fn oldest(&self) -> Option<Position> {
        self.segments.iter().find(|segment| segment.has_any()).map(|segment| segment.first)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes above a position; of the segment that it stands in, by its share of the entries.
    pub(super) fn bytes_after(&self, position: Position) -> u64 {
        let above = self.segments.iter().rev().take_while(|segment| segment.last > position);
        above.map(|segment| segment.bytes_after(position)).sum()
    }

    fn segment_of(&self, position: Position) -> Option<&Segment> {
        let at = self.segments.partition_point(|segment| segment.first <= position).checked_sub(1)?;
        self.segments.get(at).filter(|segment| position <= segment.last)
    }

    fn hole_at(&self, position: Position) -> Option<(Position, Position)> {
        let at = self.holes.partition_point(|(start, _)| *start <= position).checked_sub(1)?;
        self.holes.get(at).copied().filter(|(_, to)| position <= *to)
    }
}

impl Segment {
    /// See [`Index::bytes_after`]; the position is below the last.
    fn bytes_after(&self, position: Position) -> u64 {
        if position < self.first {
            return self.bytes;
        }
        let (all, above) = (self.last - self.first + 1, self.last - position);
        self.bytes / all * above
    }

    fn has_any(&self) -> bool {
        self.last >= self.first
    }
}
