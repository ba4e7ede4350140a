// SPDX-License-Identifier: AGPL-3.0-only
//! What is kept for a short time, within bounds of number and bytes, the oldest forgotten first. Pure: the time comes as
//! an argument.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Most entries.
const ENTRIES: usize = 4_096;

/// What an entry costs besides its bytes, about.
const EACH: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    kept_for: Duration,
    memory: usize,
    known: HashMap<K, Entry<V>>,
    order: VecDeque<(Instant, K)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    since: Instant,
    bytes: usize,
    value: V,
}

impl<K: Clone + Eq + Hash, V> Cache<K, V> {
    /// Keeps each entry so long, and so many bytes in all.
    pub(crate) fn new(kept_for: Duration, memory: usize) -> Self {
        Self { kept_for, memory, known: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        let entry = self.known.get(key)?;
        (entry.since + self.kept_for > now).then_some(&entry.value)
    }

    /// Keeps an entry of so many bytes.
    pub(crate) fn put(&mut self, key: K, value: V, bytes: usize, now: Instant) {
        let bytes = bytes + EACH;
        self.bytes += bytes;
        if let Some(before) = self.known.insert(key.clone(), Entry { since: now, bytes, value }) {
            self.bytes -= before.bytes;
        }
        self.order.push_back((now, key));
        while let Some((since, key)) = self.order.front()
            && (*since + self.kept_for <= now || self.order.len() > ENTRIES || self.bytes > self.memory)
        {
            // What was put in again stands further behind, too.
            if self.known.get(key).is_some_and(|entry| entry.since == *since) {
                self.bytes -= self.known.remove(key).map_or(0, |entry| entry.bytes);
            }
            self.order.pop_front();
        }
    }

    /// Forgets some.
    pub(crate) fn forget(&mut self, which: impl Fn(&K) -> bool) {
        self.known.retain(|key, entry| {
            let keep = !which(key);
            self.bytes -= if keep { 0 } else { entry.bytes };
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(1);

    #[test]
    fn an_entry_is_kept_for_a_time_and_no_longer() {
        let (mut cache, now) = (Cache::new(TTL, 1 << 20), Instant::now());
        cache.put("a", 1, 10, now);
        assert_eq!((cache.get(&"a", now), cache.get(&"b", now)), (Some(&1), None));
        assert_eq!(cache.get(&"a", now + TTL), None);
        cache.put("b", 2, 10, now + TTL);
        assert_eq!((cache.known.len(), cache.bytes), (1, 10 + EACH));
    }

    #[test]
    fn bytes_and_number_are_bounded_and_the_oldest_goes_first() {
        let (mut cache, now) = (Cache::new(TTL, 3 * (1_000 + EACH)), Instant::now());
        for number in 0..5 {
            cache.put(number, number, 1_000, now);
        }
        assert_eq!((cache.get(&1, now), cache.get(&2, now)), (None, Some(&2)));
        cache.put(2, 20, 1_000, now);
        assert_eq!((cache.get(&2, now), cache.known.len()), (Some(&20), 3));
        cache.forget(|key| *key == 2);
        assert_eq!((cache.get(&2, now), cache.bytes), (None, 2 * (1_000 + EACH)));
        cache.put(9, 9, 1 << 20, now);
        assert_eq!((cache.known.len(), cache.bytes), (0, 0), "what doesn't fit isn't kept");
        for number in 0..ENTRIES + 3 {
            cache.put(number, 0, 0, now);
            cache.memory = usize::MAX;
        }
        assert_eq!(cache.order.len(), ENTRIES);
    }
}
