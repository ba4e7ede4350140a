// SPDX-License-Identifier: AGPL-3.0-only
//! What a client's sequences stand for, where they are its session's own: a position at each of our shards.
//!
//! In: what is given to the client, what it confirms. Out: the positions to go on from behind a sequence. Pure.
//! Eight bytes are kept for each event that isn't confirmed yet, up to a bound: further back nobody resumes.

use std::collections::VecDeque;

use crate::log::Position;

/// The bits of an entry that hold the position: 2⁴⁸ events of one shard are 89,000 years at 100 a second.
const POSITION_BITS: u32 = 48;
/// The most shards of ours behind one client: what is left of an entry.
pub(super) const MAX_LEGS: usize = 1 << (64 - POSITION_BITS);
/// Marks that wait for their confirmation; a client that is alive confirms one with each heartbeat.
const MAX_MARKS: usize = 4;

/// Sequences of one leg that are noted in a record: 16 KiB.
const MAX_NOTED: usize = 1024;

/// Everything up to these positions has a sequence up to this one, or was filtered away.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    sequence: u64,
    at: Vec<Position>,
}

/// See the module's documentation. Positions are by leg: the client's shards among ours, in order.
#[derive(Debug)]
pub(super) struct Places {
    window: usize,
    sequence: u64,
    /// The lowest sequence that can be resumed from.
    floor: Mark,
    /// Leg and position of what each sequence above the floor brought.
    given: VecDeque<u64>,
    /// Where quiet legs have got to: their events are filtered away and have no sequence.
    marks: VecDeque<Mark>,
    /// What the client has confirmed; the floor may be above it.
    confirmed: Mark,
}

impl Places {
    /// A session whose snapshot ends with `sequence` and goes on behind these positions. `window`: how many
    /// unconfirmed events are remembered.
    pub(super) fn new(window: usize, sequence: u64, at: Vec<Position>) -> Self {
        Self {
            window,
            sequence,
            confirmed: Mark { sequence, at: at.clone() },
            floor: Mark { sequence, at },
            given: VecDeque::new(),
            marks: VecDeque::new(),
        }
    }

    /// The last sequence that was given.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What the client has confirmed: a sequence, and what that stands for on each leg.
    pub(super) fn confirmed(&self) -> (u64, &[Position]) {
        (self.confirmed.sequence, &self.confirmed.at)
    }

    /// The sequence for the leg's event at `position`.
    pub(super) fn give(&mut self, leg: usize, position: Position) -> u64 {
        if self.given.len() >= self.window {
            self.raise();
        }
        self.given.push_back((leg as u64) << POSITION_BITS | position);
        self.sequence += 1;
        self.sequence
    }

    /// The client has everything up to `sequence`. `cursors`: what has been looked at by now.
    pub(super) fn confirm(&mut self, sequence: u64, cursors: &[Position]) {
        if sequence < self.floor.sequence || sequence > self.sequence {
            return;
        }
        self.mark(cursors);
        while self.floor.sequence < sequence {
            self.raise();
        }
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.sequence <= sequence) {
            advance(&mut self.floor.at, &mark.at);
        }
        self.confirmed.clone_from(&self.floor);
        if self.given.capacity() > 1024 && self.given.len() < self.given.capacity() / 8 {
            self.given.shrink_to(self.given.len() * 2);
        }
    }

    /// Notes how far each leg has been looked at.
    pub(super) fn mark(&mut self, cursors: &[Position]) {
        let mark = Mark { sequence: self.sequence, at: cursors.to_vec() };
        self.marks.pop_back_if(|last| last.sequence == mark.sequence);
        if self.marks.len() < MAX_MARKS {
            self.marks.push_back(mark);
        }
    }

    /// The positions behind which a client goes on that has everything up to `sequence`. None: that is too far back,
    /// or was never given.
    pub(super) fn at(&self, sequence: u64) -> Option<Vec<Position>> {
        let count = usize::try_from(sequence.checked_sub(self.floor.sequence)?).ok()?;
        if sequence > self.sequence {
            return None;
        }
        let mut at = self.floor.at.clone();
        for entry in self.given.iter().take(count) {
            let (leg, position) = unpack(*entry);
            at[leg] = at[leg].max(position);
        }
        for mark in self.marks.iter().filter(|mark| mark.sequence <= sequence) {
            advance(&mut at, &mark.at);
        }
        Some(at)
    }

    /// The latest sequences of a leg that aren't confirmed, with what they stand for.
    pub(super) fn given(&self, leg: usize) -> Vec<(u64, Position)> {
        let numbered = (self.floor.sequence + 1..).zip(&self.given);
        let mut given: Vec<_> = numbered
            .map(|(sequence, entry)| (sequence, unpack(*entry)))
            .filter_map(|(sequence, (of, position))| (of == leg).then_some((sequence, position)))
            .collect();
        given.drain(..given.len().saturating_sub(MAX_NOTED));
        given
    }

    /// Further legs serve the client from now on, and it has what is up to these positions there.
    pub(super) fn extend(&mut self, at: &[Position]) {
        self.floor.at.extend_from_slice(at);
        self.confirmed.at.extend_from_slice(at);
        for mark in &mut self.marks {
            mark.at.extend_from_slice(at);
        }
    }

    /// The client goes on behind `sequence`, for which there is a place: what follows is numbered anew.
    pub(super) fn rewind(&mut self, sequence: u64) {
        let count = sequence.saturating_sub(self.floor.sequence);
        self.given.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        self.sequence = self.floor.sequence + self.given.len() as u64;
        self.marks.retain(|mark| mark.sequence <= sequence);
    }

    /// The floor rises by one event.
    fn raise(&mut self) {
        let Some(entry) = self.given.pop_front() else { return };
        let (leg, position) = unpack(entry);
        self.floor.at[leg] = self.floor.at[leg].max(position);
        self.floor.sequence += 1;
    }
}

fn unpack(entry: u64) -> (usize, Position) {
    ((entry >> POSITION_BITS) as usize, entry & ((1 << POSITION_BITS) - 1))
}

fn advance(positions: &mut [Position], to: &[Position]) {
    for (position, to) in positions.iter_mut().zip(to) {
        *position = (*position).max(*to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_goes_on_behind_what_it_has_of_each_shard() {
        let mut places = places();
        assert_eq!(places.give(0, 11), 6);
        assert_eq!(places.give(1, 21), 7);
        assert_eq!(places.give(0, 14), 8);
        assert_eq!(places.at(7), Some(vec![11, 21]));
        places.rewind(7);
        // What follows is numbered anew.
        assert_eq!(places.give(1, 22), 8);
        assert_eq!(places.at(8), Some(vec![11, 22]));
        assert_eq!(places.at(5), Some(vec![10, 20]));
    }

    #[test]
    fn what_was_never_given_or_is_too_far_back_is_no_place() {
        let mut places = places();
        assert_eq!(places.at(4), None, "a cut snapshot");
        assert_eq!(places.at(6), None);
        for position in 11..=20 {
            places.give(0, position);
        }
        // Four are remembered.
        assert_eq!(places.at(10), None);
        assert_eq!(places.at(11), Some(vec![16, 20]));
    }

    #[test]
    fn a_confirmation_says_what_the_client_has_and_frees_what_was_remembered() {
        let mut places = places();
        places.give(0, 11);
        places.give(1, 21);
        places.confirm(6, &[11, 21]);
        assert_eq!(places.confirmed(), (6, &[11, 20][..]));
        assert_eq!(places.at(5), None, "it said that it has more");
        assert_eq!(places.given.len(), 1);
    }

    #[test]
    fn a_confirmation_of_everything_holds_for_what_was_filtered_away() {
        let mut places = places();
        places.give(0, 11);
        places.confirm(6, &[90, 80]);
        assert_eq!(places.confirmed(), (6, &[90, 80][..]));
        assert_eq!(places.at(6), Some(vec![90, 80]));
    }

    #[test]
    fn a_quiet_shard_moves_on_although_others_never_pause() {
        let mut places = places();
        for heartbeat in 0..10 {
            // Two events are always on their way when the client confirms.
            let sequence = places.give(0, 100 + 3 * heartbeat);
            places.give(0, 101 + 3 * heartbeat);
            places.give(0, 102 + 3 * heartbeat);
            places.confirm(sequence, &[102 + 3 * heartbeat, 1_000 * heartbeat]);
        }
        assert!(places.confirmed().1[1] >= 8_000, "{:?}", places.confirmed());
        assert!(places.marks.len() <= MAX_MARKS);
    }

    #[test]
    fn what_a_legs_sequences_stand_for_can_be_told() {
        let mut places = places();
        places.give(0, 11);
        places.give(1, 21);
        places.give(0, 12);
        places.confirm(6, &[12, 21]);
        assert_eq!((places.given(0), places.given(1)), (vec![(8, 12)], vec![(7, 21)]));
    }

    #[test]
    fn what_is_not_confirmed_is_never_taken_for_confirmed() {
        let mut places = places();
        for position in 11..=40 {
            places.give(0, position);
        }
        assert_eq!(places.confirmed(), (5, &[10, 20][..]), "however little is remembered");
    }

    #[test]
    fn further_legs_leave_what_was_given_in_its_place() {
        let mut places = places();
        places.give(0, 11);
        places.confirm(6, &[11, 29]);
        places.give(1, 30);
        places.mark(&[15, 30]);
        places.extend(&[1, 1]);
        assert_eq!(places.confirmed(), (6, &[11, 29, 1, 1][..]));
        assert_eq!(places.at(7), Some(vec![15, 30, 1, 1]));
        assert_eq!((places.give(3, 2), places.give(2, 2)), (8, 9));
        assert_eq!(places.at(6), Some(vec![11, 29, 1, 1]));
        assert_eq!(places.at(8), Some(vec![15, 30, 1, 2]));
        places.confirm(9, &[15, 30, 2, 2]);
        assert_eq!(places.confirmed(), (9, &[15, 30, 2, 2][..]));
    }

    #[test]
    fn what_the_client_makes_up_changes_nothing() {
        let mut places = places();
        places.give(0, 11);
        places.confirm(99, &[50, 50]);
        places.confirm(2, &[50, 50]);
        assert_eq!(places.confirmed(), (5, &[10, 20][..]));
    }

    /// A snapshot of five payloads over two shards, and room for four events.
    fn places() -> Places {
        Places::new(4, 5, vec![10, 20])
    }
}
