// SPDX-License-Identifier: AGPL-3.0-only
//! What has been taken before, so that nothing is taken twice. In: a key, and for how long it is to be remembered. Out:
//! whether it is new, to this process and, where they share a store, to all replicas. Bounded: beyond the bound the oldest
//! are forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_rest::{Entry, Ledger, ledger_key};
use tokio::time::Instant;

/// A hash.
pub(crate) type Key = [u8; 32];

/// See the module's documentation.
pub(crate) struct Seen {
    here: Here,
    /// What all replicas know, for ten minutes.
    everywhere: Option<Ledger>,
}

/// What this process knows.
struct Here {
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
    /// This process remembers at most so many; the replicas with it as many as there is room for in the store.
    pub(crate) fn new(most: usize, everywhere: Option<Ledger>) -> Self {
        Self { here: Here { most, known: Mutex::default() }, everywhere }
    }

    /// Whether it is new; from now on it isn't, for so long.
    pub(crate) async fn take(&self, key: Key, within: Duration) -> bool {
        if !self.here.take(key, within) {
            return false;
        }
        match &self.everywhere {
            Some(ledger) => matches!(ledger.begin(&name(&key)).await, Entry::Fresh),
            None => true,
        }
    }

    /// It may come again: it could not be dealt with.
    pub(crate) async fn give_back(&self, key: &Key) {
        self.here.known().until.remove(key);
        if let Some(ledger) = &self.everywhere {
            ledger.undone(&name(key)).await;
        }
    }
}

/// The name of a key in the store.
fn name(key: &Key) -> String {
    ledger_key(b"http", &key.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

impl Here {
    fn take(&self, key: Key, within: Duration) -> bool {
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
        let seen = Seen::new(100, None);
        assert!(seen.take([1; 32], MINUTE).await);
        assert!(!seen.take([1; 32], MINUTE).await);
        assert!(seen.take([2; 32], MINUTE).await);
        tokio::time::advance(MINUTE).await;
        assert!(seen.take([1; 32], MINUTE).await);
        seen.give_back(&[1; 32]).await;
        assert!(seen.take([1; 32], MINUTE).await);
        assert!(!seen.take([1; 32], MINUTE).await);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_may_be() {
        let seen = Seen::new(10, None);
        for key in 0..100 {
            assert!(seen.take([key; 32], MINUTE).await);
        }
        let known = |seen: &Seen| {
            let known = seen.here.known();
            (known.until.len(), known.order.len())
        };
        assert_eq!(known(&seen), (10, 10));
        assert!(!seen.take([99; 32], MINUTE).await);
        assert!(seen.take([0; 32], MINUTE).await, "the oldest are forgotten");
    }
}
