// SPDX-License-Identifier: AGPL-3.0-only
//! What a consumer has to remember to handle each event once and in order. In: deliveries. Out: verdicts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::consumer::Received;

/// Longer than Discord holds a session: nothing is repeated after that.
const REMEMBER: Duration = Duration::from_secs(600);

/// What to do with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Handle it.
    New,
    /// It has been finished: acknowledge it.
    Repeated,
    /// From a former owner of the shard that woke too late: acknowledge it.
    Outdated,
}

/// What remembers. If doing a thing twice does harm, write one that outlives the process.
pub trait Memory {
    /// Says what to do with a message that arrived under this id.
    fn judge(&mut self, message: &Received, id: &str, redelivered: bool) -> Verdict;

    /// Called when the message has been handled, before it is acknowledged.
    fn finish(&mut self, id: &str);
}

/// Remembers for as long as it lives.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Of each shard and count of shards, the highest that has come.
    generations: HashMap<(u32, u32), u64>,
    finished: HashSet<String>,
    /// In the order of their times: the oldest are the first.
    order: VecDeque<(Instant, String)>,
}

impl Memory for Inbox {
    fn judge(&mut self, message: &Received, id: &str, redelivered: bool) -> Verdict {
        let generation = message.generation();
        let highest = self.generations.entry(message.shard()).or_insert(generation);
        // A redelivered message may be older than the new owner, and not have been handled yet.
        if generation < *highest && !redelivered {
            return Verdict::Outdated;
        }
        *highest = generation.max(*highest);
        if self.finished.contains(id) { Verdict::Repeated } else { Verdict::New }
    }

    fn finish(&mut self, id: &str) {
        self.finish_at(id, Instant::now());
    }
}

impl Inbox {
    fn finish_at(&mut self, id: &str, now: Instant) {
        self.finished.insert(id.to_owned());
        self.order.push_back((now, id.to_owned()));
        while let Some((_, oldest)) = self.order.pop_front_if(|(then, _)| now - *then > REMEMBER) {
            self.finished.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Event;

    #[test]
    fn a_finished_id_is_a_repetition_for_ten_minutes() {
        let (mut inbox, begun) = (Inbox::default(), Instant::now());
        assert_eq!(inbox.judge(&of(1, 0, 1), "a:1", false), Verdict::New);
        assert_eq!(inbox.judge(&of(1, 0, 1), "a:1", true), Verdict::New, "not finished yet");
        inbox.finish_at("a:1", begun);
        assert_eq!(inbox.judge(&of(1, 0, 1), "a:1", true), Verdict::Repeated);
        inbox.finish_at("a:2", begun + REMEMBER);
        assert_eq!(inbox.judge(&of(1, 0, 1), "a:1", false), Verdict::Repeated);
        inbox.finish_at("a:3", begun + REMEMBER + Duration::from_millis(1));
        assert_eq!(inbox.judge(&of(1, 0, 1), "a:1", false), Verdict::New, "forgotten");
        assert_eq!(inbox.judge(&of(1, 0, 1), "a:2", false), Verdict::Repeated);
    }

    #[test]
    fn a_lower_generation_is_outdated_unless_it_is_redelivered_or_of_another_shard() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.judge(&of(5, 0, 1), "a:1", false), Verdict::New);
        assert_eq!(inbox.judge(&of(4, 0, 1), "a:2", false), Verdict::Outdated);
        assert_eq!(inbox.judge(&of(4, 0, 1), "a:2", true), Verdict::New);
        assert_eq!(inbox.judge(&of(4, 0, 1), "a:3", false), Verdict::Outdated, "5 is still the highest");
        assert_eq!(inbox.judge(&of(4, 1, 1), "b:1", false), Verdict::New);
        assert_eq!(inbox.judge(&of(4, 0, 2), "c:1", false), Verdict::New, "another count of shards");
    }

    fn of(generation: u64, shard: u32, shard_count: u32) -> Received {
        Received::Event(Event { generation, shard, shard_count, ..Event::default() })
    }
}
