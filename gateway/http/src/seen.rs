// SPDX-License-Identifier: AGPL-3.0-only
//! What has been taken before, so that nothing is taken twice. In: a key, and for how long it is to be remembered. Out:
//! whether it is new. Bounded: beyond the bound the oldest are forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A hash.
pub(crate) type Key = [u8; 32];

/// See the module's documentation.
pub(crate) struct Seen {
    most: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    until: HashMap<Key, Instant>,
    /// In the order in which they came; with when they lapse, since one may have come again.
    order: VecDeque<(Key, Instant)>,
}

impl Seen {
    /// Remembers at most so many.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    /// Whether it is new; from now on it isn't, for so long.
    pub(crate) fn take(&self, key: Key, within: Duration) -> bool {
        let now = Instant::now();
        let mut known = self.known();
        known.forget(now, self.most.saturating_sub(1));
        if known.until.get(&key).is_some_and(|until| *until > now) {
            return false;
        }
        known.until.insert(key, now + within);
        known.order.push_back((key, now + within));
        true
    }

    /// It may come again: it could not be dealt with.
    pub(crate) fn give_back(&self, key: &Key) {
        self.known().until.remove(key);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget(&mut self, now: Instant, most: usize) {
        while let Some((key, until)) = self.order.front() {
            if *until > now && self.order.len() <= most {
                return;
            }
            if self.until.get(key) == Some(until) {
                self.until.remove(key);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_came_is_known_for_a_while() {
        let seen = Seen::new(100);
        assert!(seen.take([1; 32], MINUTE));
        assert!(!seen.take([1; 32], MINUTE));
        assert!(seen.take([2; 32], MINUTE));
        tokio::time::advance(MINUTE).await;
        assert!(seen.take([1; 32], MINUTE));
        seen.give_back(&[1; 32]);
        assert!(seen.take([1; 32], MINUTE));
        assert!(!seen.take([1; 32], MINUTE));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_may_be() {
        let seen = Seen::new(10);
        for key in 0..100 {
            assert!(seen.take([key; 32], MINUTE));
        }
        let known = |seen: &Seen| {
            let known = seen.known();
            (known.until.len(), known.order.len())
        };
        assert_eq!(known(&seen), (10, 10));
        assert!(!seen.take([99; 32], MINUTE));
        assert!(seen.take([0; 32], MINUTE), "the oldest are forgotten");
    }
}
