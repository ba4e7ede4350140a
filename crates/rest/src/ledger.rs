// SPDX-License-Identifier: AGPL-3.0-only
//! What was done lately, by idempotency keys, so that it isn't done twice. In: keys, and what became of them. Out: what
//! is known. Kept in this process, and in the store where replicas share one; while that is away, in this process alone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holdfast_cluster::{RestNoted, RestStore};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

/// How long a key is remembered: longer than anybody tries to get one thing done.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Keys that this process remembers, about 100 bytes each: a hundred a second for ten minutes.
const KEYS: usize = 65_536;

/// Bytes of outcomes that it remembers, over all keys.
const BYTES: usize = 32 << 20;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing: it is noted as begun now.
    Fresh,
    /// It was begun, and nobody has said how it ended.
    Undecided,
    /// It was done, with this outcome.
    Done(Bytes),
}

/// A name for what somebody calls by `key`, within what `scope` is about. Holds neither.
#[must_use]
pub fn ledger_key(scope: &[u8], key: &str) -> String {
    let mut digest = Sha256::new();
    digest.update((scope.len() as u64).to_be_bytes());
    digest.update(scope);
    digest.update(key);
    digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// See the module. Clones share it.
#[derive(Clone, Debug)]
pub struct Ledger {
    here: Arc<Mutex<Recent>>,
    store: Option<RestStore>,
}

impl Ledger {
    pub(crate) fn new(store: Option<RestStore>) -> Self {
        Self { here: Arc::default(), store }
    }

    /// What is known of a key; one that is fresh counts as begun from now on.
    pub async fn begin(&self, key: &str) -> Entry {
        match self.lock().get(key, Instant::now()) {
            Some(Some(outcome)) => return Entry::Done(outcome),
            Some(None) => return Entry::Undecided,
            None => {}
        }
        if let Some(store) = &self.store {
            match store.begin(key, REMEMBERED).await {
                Ok(RestNoted::Undecided) => return Entry::Undecided,
                Ok(RestNoted::Done(outcome)) => return Entry::Done(outcome.into()),
                Ok(RestNoted::Fresh) | Err(_) => {}
            }
        }
        let mut here = self.lock();
        // Somebody else may have begun while the store was asked.
        match here.get(key, Instant::now()) {
            Some(_) => Entry::Undecided,
            None => {
                here.note(key, None, Instant::now());
                Entry::Fresh
            }
        }
    }

    /// The outcome of what was done, without beginning anything.
    pub async fn outcome(&self, key: &str) -> Option<Bytes> {
        if let Some(known) = self.lock().get(key, Instant::now()) {
            return known;
        }
        match self.store.as_ref()?.noted(key).await {
            Ok(Some(RestNoted::Done(outcome))) => Some(outcome.into()),
            _ => None,
        }
    }

    /// It is done.
    pub async fn done(&self, key: &str, outcome: Bytes) {
        self.lock().note(key, Some(outcome.clone()), Instant::now());
        if let Some(store) = &self.store {
            // While the store is away, what this process knows has to do.
            let _ = store.done(key, &outcome, REMEMBERED).await;
        }
    }

    /// It was not done, and may be begun again.
    pub async fn undone(&self, key: &str) {
        self.lock().forget(key);
        if let Some(store) = &self.store {
            let _ = store.undone(key).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this process knows, the oldest forgotten first.
#[derive(Debug, Default)]
struct Recent {
    known: HashMap<String, (Instant, Option<Bytes>)>,
    order: VecDeque<(Instant, String)>,
    bytes: usize,
}

impl Recent {
    fn get(&self, key: &str, now: Instant) -> Option<Option<Bytes>> {
        let (noted, outcome) = self.known.get(key)?;
        (*noted + REMEMBERED > now).then(|| outcome.clone())
    }

    fn note(&mut self, key: &str, outcome: Option<Bytes>, now: Instant) {
        self.bytes += outcome.as_ref().map_or(0, Bytes::len);
        if let Some((_, Some(before))) = self.known.insert(key.to_owned(), (now, outcome)) {
            self.bytes -= before.len();
        }
        self.order.push_back((now, key.to_owned()));
        while let Some((noted, key)) = self.order.front()
            && (*noted + REMEMBERED <= now || self.order.len() > KEYS || self.bytes > BYTES)
        {
            // What was noted again since stands further behind, too.
            if self.known.get(key).is_some_and(|(last, _)| last == noted) {
                self.bytes -=
                    self.known.remove(key).and_then(|(_, outcome)| outcome).map_or(0, |it| it.len());
            }
            self.order.pop_front();
        }
    }

    fn forget(&mut self, key: &str) {
        if let Some((_, Some(outcome))) = self.known.remove(key) {
            self.bytes -= outcome.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_begun_once_until_it_is_undone_or_forgotten() {
        let ledger = Ledger::new(None);
        assert_eq!(ledger.begin("a").await, Entry::Fresh);
        assert_eq!(ledger.begin("a").await, Entry::Undecided);
        assert_eq!((ledger.outcome("a").await, ledger.outcome("b").await), (None, None));
        ledger.undone("a").await;
        assert_eq!(ledger.begin("a").await, Entry::Fresh);
        ledger.done("a", Bytes::from_static(b"well")).await;
        assert_eq!(ledger.begin("a").await, Entry::Done(Bytes::from_static(b"well")));
        assert_eq!(ledger.outcome("a").await, Some(Bytes::from_static(b"well")));
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(ledger.begin("a").await, Entry::Fresh);
    }

    #[test]
    fn what_is_remembered_is_bounded_by_number_and_by_bytes() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let large = Bytes::from(vec![0; BYTES / 4]);
        for number in 0..9 {
            recent.note(&number.to_string(), Some(large.clone()), now);
        }
        assert_eq!((recent.bytes, recent.known.len(), recent.get("4", now)), (BYTES, 4, None));
        assert!(recent.get("8", now).is_some());
        recent.forget("8");
        assert_eq!(recent.bytes, BYTES / 4 * 3);
        for number in 0..KEYS + 10 {
            recent.note(&number.to_string(), None, now);
        }
        assert_eq!((recent.order.len(), recent.known.len()), (KEYS, KEYS));
    }

    #[test]
    fn keys_of_different_scopes_are_different() {
        assert_ne!(ledger_key(b"a", "bc"), ledger_key(b"ab", "c"));
        assert_eq!(ledger_key(b"a", "bc").len(), 32);
    }
}
