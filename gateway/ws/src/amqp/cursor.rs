// SPDX-License-Identifier: AGPL-3.0-only
//! How far publishing is: what was read, what was sent, what is confirmed, and in which stream. Pure.
//!
//! A gap has no position of its own, and must be in order with events. So the publisher counts in slots: an event
//! takes the slot of twice its position, a gap the one behind the event that it follows.

use std::collections::VecDeque;

use holdfast_cluster::{CursorRecord, StreamId};

use crate::log::Position;

/// The publisher's number of an event.
pub(super) fn slot_of(position: Position) -> u64 {
    2 * position
}

/// The publisher's number of the gap behind the event at `from`.
pub(super) fn slot_of_gap(from: Position) -> u64 {
    2 * from + 1
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    /// Everything up to here was looked at.
    read: Position,
    /// The stream of `read`.
    stream: StreamId,
    /// The last slot that was sent.
    sent: u64,
    /// Everything up to here is done.
    confirmed: Position,
    confirmed_stream: StreamId,
    /// Streams that begin above `confirmed`: from which slot on.
    streams: VecDeque<(u64, StreamId)>,
}

impl Cursor {
    pub(super) fn new(record: CursorRecord) -> Self {
        Self {
            read: record.position,
            stream: record.stream,
            sent: 0,
            confirmed: record.position,
            confirmed_stream: record.stream,
            streams: VecDeque::new(),
        }
    }

    /// Where to read on: behind this.
    pub(super) fn position(&self) -> Position {
        self.read
    }

    /// The stream of what was read last.
    pub(super) fn stream(&self) -> StreamId {
        self.stream
    }

    /// Everything up to here is confirmed, or was not to be published.
    pub(super) fn confirmed(&self) -> Position {
        self.confirmed
    }

    /// What a restart goes on from.
    pub(super) fn record(&self) -> CursorRecord {
        CursorRecord { stream: self.confirmed_stream, position: self.confirmed }
    }

    /// The first stream.
    pub(super) fn begin(&mut self, stream: StreamId) {
        (self.stream, self.confirmed_stream) = (stream, stream);
    }

    /// An event was looked at; `sent` if it is on its way.
    pub(super) fn read(&mut self, position: Position, sent: bool) {
        self.read = position;
        if sent {
            self.sent = slot_of(position);
        }
    }

    /// A gap is on its way; what follows is behind `to`, in `stream`.
    pub(super) fn gap(&mut self, to: Position, stream: StreamId) {
        let slot = slot_of_gap(self.read);
        self.sent = slot;
        if stream != self.stream {
            self.streams.push_back((slot, stream));
            self.stream = stream;
        }
        self.read = to.saturating_sub(1).max(self.read);
    }

    /// Another session's events took these positions: what was read above `from` wasn't theirs.
    pub(super) fn back_to(&mut self, from: Position) {
        self.read = self.read.min(from);
        self.confirmed = self.confirmed.min(from);
    }

    /// The publisher has got everything up to `slot` done. Whether that is news.
    pub(super) fn confirm(&mut self, slot: Option<u64>) -> bool {
        let before = (self.confirmed, self.confirmed_stream);
        match slot {
            // Nothing is under way: what was read beyond the last sent was not to be published.
            Some(slot) if slot >= self.sent => {
                self.confirmed = self.read;
                self.confirmed_stream = self.stream;
                self.streams.clear();
            }
            None if self.sent == 0 => self.confirmed = self.read,
            Some(slot) => {
                self.confirmed = self.confirmed.max(slot / 2);
                while let Some((_, stream)) = self.streams.pop_front_if(|(begins, _)| *begins <= slot) {
                    self.confirmed_stream = stream;
                }
            }
            None => {}
        }
        before != (self.confirmed, self.confirmed_stream)
    }

    /// Goes back to what is confirmed.
    pub(super) fn rewind(&mut self) {
        self.read = self.confirmed;
        self.stream = self.confirmed_stream;
        self.sent = 0;
        self.streams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StreamId = StreamId::from_number(1);
    const B: StreamId = StreamId::from_number(2);

    #[test]
    fn what_is_not_published_is_confirmed_with_what_came_before() {
        let mut cursor = cursor();
        cursor.read(11, true);
        cursor.read(12, false);
        assert!(!cursor.confirm(None));
        assert!(cursor.confirm(Some(slot_of(11))));
        assert_eq!(cursor.confirmed(), 12);
        cursor.read(13, false);
        assert!(cursor.confirm(Some(slot_of(11))));
        assert_eq!(cursor.confirmed(), 13);
    }

    #[test]
    fn nothing_sent_needs_no_confirmation() {
        let mut cursor = cursor();
        cursor.read(11, false);
        assert!(cursor.confirm(None));
        assert_eq!(cursor.record(), CursorRecord { stream: A, position: 11 });
    }

    #[test]
    fn after_a_failure_it_goes_on_behind_the_confirmed_one() {
        let mut cursor = cursor();
        for position in 11..=20 {
            cursor.read(position, true);
        }
        cursor.confirm(Some(slot_of(14)));
        cursor.rewind();
        assert_eq!(cursor.position(), 14);
        cursor.read(15, true);
        cursor.confirm(Some(slot_of(15)));
        assert_eq!(cursor.confirmed(), 15);
    }

    #[test]
    fn a_gap_that_was_not_confirmed_is_found_again() {
        let mut cursor = cursor();
        cursor.read(11, true);
        cursor.gap(12, B);
        cursor.read(12, true);
        cursor.confirm(Some(slot_of(11)));
        assert_eq!(cursor.record(), CursorRecord { stream: A, position: 11 });
        cursor.rewind();
        assert_eq!((cursor.position(), cursor.stream()), (11, A));
        cursor.gap(12, B);
        cursor.read(12, true);
        cursor.confirm(Some(slot_of_gap(11)));
        assert_eq!(cursor.record(), CursorRecord { stream: B, position: 11 });
    }

    #[test]
    fn a_gap_over_lost_events_goes_on_behind_them() {
        let mut cursor = cursor();
        cursor.gap(40, A);
        assert_eq!(cursor.position(), 39);
    }

    fn cursor() -> Cursor {
        Cursor::new(CursorRecord { stream: A, position: 10 })
    }
}
