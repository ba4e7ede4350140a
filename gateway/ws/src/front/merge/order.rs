// SPDX-License-Identifier: AGPL-3.0-only
//! Whose turn it is among a client's legs. Pure.
//!
//! Shards of a former count come before those of the current one: when that changed, each guild's events went on over
//! another shard, and only this keeps them in order. Among shards of one count it is the time of arrival.

use std::ops::Range;

/// The legs that may give now. The first `retired` of `all` follow shards of a former count.
pub(super) fn active(retired: usize, all: usize, is_done: impl FnMut(usize) -> bool) -> Range<usize> {
    if (0..retired).all(is_done) { retired..all } else { 0..retired }
}

/// Of legs and the times at which their next entries came in, the leg whose was first, and until when it may go on
/// before another's turn.
pub(super) fn next(heads: impl Iterator<Item = (usize, u64)>) -> Option<(usize, u64)> {
    let (mut first, mut until_ms) = (None, u64::MAX);
    for (index, at) in heads {
        match first {
            Some((_, earliest)) if earliest <= at => until_ms = until_ms.min(at),
            _ => {
                until_ms = first.map_or(u64::MAX, |(_, earliest)| earliest);
                first = Some((index, at));
            }
        }
    }
    first.map(|(index, _)| (index, until_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_of_a_former_count_are_read_to_the_end_first() {
        let done = |done: &'static [usize]| move |leg: usize| done.contains(&leg);
        assert_eq!(active(2, 6, done(&[])), 0..2);
        assert_eq!(active(2, 6, done(&[1])), 0..2);
        assert_eq!(active(2, 6, done(&[0, 1])), 2..6);
        assert_eq!(active(0, 4, done(&[])), 0..4, "there are none");
    }

    #[test]
    fn what_came_in_first_goes_first_until_another_is_due() {
        let next = |heads: &[u64]| super::next(heads.iter().copied().enumerate());
        assert_eq!(next(&[]), None);
        assert_eq!(next(&[30]), Some((0, u64::MAX)));
        assert_eq!(next(&[30, 10, 20]), Some((1, 20)));
        assert_eq!(next(&[10, 10]), Some((0, 10)), "the lower goes on with what came in as early");
        assert_eq!(next(&[40, 30, 20]), Some((2, 30)));
    }
}
