// SPDX-License-Identifier: AGPL-3.0-only
//! What has been taken before, so that nothing is taken twice. In: a key, and for how long it is to be remembered. Out:
//! whether it is new, to this process and, where they share a store, to all replicas. Bounded: beyond the bound the oldest
//! are forgotten. While the store is away, or slow, each process knows its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_cluster::{RestNoted, RestStore, Unavailable};
use holdfast_rest::ledger_key;
use tokio::time::{Instant, timeout};

/// A hash.
pub(crate) type Key = [u8; 32];

/// Discord is waiting: nobody waits longer for the store.
const STORE_WITHIN: Duration = Duration::from_millis(200);
/// A claim of a process that has died lapses after this long; one that lives renews it.
const CLAIMED: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_secs(3);

/// See the module's documentation. Clones share it.
#[derive(Clone)]
pub(crate) struct Seen {
    here: Arc<Here>,
    everywhere: Option<RestStore>,
    /// What it is about: others' keys are others.
    what: &'static str,
}

/// What is known of a key that somebody wants to take.
pub(crate) enum Claimed {
    /// Nothing: it is theirs now.
    Fresh(Claim),
    /// Somebody else has it, and isn't done.
    Elsewhere,
    /// It is done.
    Done,
}

/// A key that is being dealt with. Dropped, it may be claimed again.
pub(crate) struct Claim {
    seen: Seen,
    key: Key,
    within: Duration,
    kept: bool,
}

/// What this process knows.
struct Here {
    most: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Until when, and whether it is done.
    until: HashMap<Key, (Instant, bool)>,
    /// In the order in which they came; with when they lapse, since one may have come again.
    order: VecDeque<(Key, Instant)>,
}

impl Seen {
    /// This process remembers at most so many; the replicas with it as many as there is room for in the store.
    pub(crate) fn new(what: &'static str, most: usize, everywhere: Option<RestStore>) -> Self {
        Self { here: Arc::new(Here { most, known: Mutex::default() }), everywhere, what }
    }

    /// Whether it is new; from now on it isn't, for so long.
    pub(crate) async fn take(&self, key: Key, within: Duration) -> bool {
        if self.here.take(key, within, true).is_some() {
            return false;
        }
        let noted = self.store(async |store, name| store.begin(name, within).await, &key).await;
        matches!(noted, None | Some(RestNoted::Fresh))
    }

    /// Takes it for as long as somebody deals with it, and then for so long.
    pub(crate) async fn claim(&self, key: Key, within: Duration) -> Claimed {
        match self.here.take(key, within, false) {
            Some(true) => return Claimed::Done,
            Some(false) => return Claimed::Elsewhere,
            None => {}
        }
        let mut claim = Claim { seen: self.clone(), key, within, kept: false };
        match self.store(async |store, name| store.begin(name, CLAIMED).await, &key).await {
            None | Some(RestNoted::Fresh) => Claimed::Fresh(claim),
            Some(RestNoted::Undecided) => Claimed::Elsewhere,
            Some(RestNoted::Done(_)) => {
                claim.kept = true;
                self.note(key, within);
                Claimed::Done
            }
        }
    }

    /// It is done: this process knows it now, and the others once the returned future has ended.
    pub(crate) fn done(&self, key: Key, within: Duration) -> impl Future<Output = ()> + Send + 'static {
        self.note(key, within);
        let seen = self.clone();
        async move {
            seen.store(async |store, name| store.done(name, b"", within).await, &key).await;
        }
    }

    /// Whether others are to be told of what is done.
    pub(crate) fn is_shared(&self) -> bool {
        self.everywhere.is_some()
    }

    fn note(&self, key: Key, within: Duration) {
        let mut known = self.here.known();
        known.forget(Instant::now(), self.here.most.saturating_sub(1));
        known.note(key, within, true);
    }

    /// Asks the store, if there is one, as long as there is time.
    async fn store<T>(
        &self,
        ask: impl AsyncFnOnce(&RestStore, &str) -> Result<T, Unavailable>,
        key: &Key,
    ) -> Option<T> {
        let name = ledger_key(self.what.as_bytes(), &hex(key));
        timeout(STORE_WITHIN, ask(self.everywhere.as_ref()?, &name)).await.ok()?.ok()
    }
}

impl Claim {
    /// It is done: whoever claims it hears that.
    pub(crate) async fn keep(mut self) {
        self.kept = true;
        self.seen.done(self.key, self.within).await;
    }

    /// Keeps the claim for as long as something is under way.
    pub(crate) async fn during<T>(&self, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            match timeout(RENEW, &mut what).await {
                Ok(what) => return what,
                Err(_) => {
                    self.seen.store(async |store, name| store.renew(name, CLAIMED).await, &self.key).await;
                }
            }
        }
    }

    /// It could not be dealt with, and may come again.
    pub(crate) async fn give_back(self) {
        self.seen.store(async |store, name| store.undone(name).await, &self.key).await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut known = self.seen.here.known();
        // It may be done meanwhile, by another way.
        if !self.kept && known.until.get(&self.key).is_some_and(|(_, done)| !done) {
            known.until.remove(&self.key);
        }
    }
}

/// As text.
pub(crate) fn hex(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Here {
    /// Whether it is known, and done; if it isn't, it is from now on.
    fn take(&self, key: Key, within: Duration, done: bool) -> Option<bool> {
        let now = Instant::now();
        let mut known = self.known();
        known.forget(now, self.most.saturating_sub(1));
        if let Some((until, done)) = known.until.get(&key)
            && *until > now
        {
            return Some(*done);
        }
        known.note(key, within, done);
        None
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn note(&mut self, key: Key, within: Duration, done: bool) {
        let until = Instant::now() + within;
        self.until.insert(key, (until, done));
        self.order.push_back((key, until));
    }

    fn forget(&mut self, now: Instant, most: usize) {
        while let Some((key, until)) = self.order.front() {
            if *until > now && self.order.len() <= most {
                return;
            }
            if self.until.get(key).is_some_and(|(last, _)| last == until) {
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

    fn seen(most: usize) -> Seen {
        Seen::new("test", most, None)
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_is_known_for_a_while() {
        let seen = seen(100);
        assert!(seen.take([1; 32], MINUTE).await);
        assert!(!seen.take([1; 32], MINUTE).await);
        assert!(seen.take([2; 32], MINUTE).await);
        tokio::time::advance(MINUTE).await;
        assert!(seen.take([1; 32], MINUTE).await);
        assert!(!seen.take([1; 32], MINUTE).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dealt_with_is_done_or_may_come_again() {
        let seen = seen(100);
        let Claimed::Fresh(claim) = seen.claim([1; 32], MINUTE).await else { panic!("it is new") };
        assert!(matches!(seen.claim([1; 32], MINUTE).await, Claimed::Elsewhere));
        drop(claim);
        let Claimed::Fresh(claim) = seen.claim([1; 32], MINUTE).await else { panic!("it was let go") };
        claim.give_back().await;
        let Claimed::Fresh(claim) = seen.claim([1; 32], MINUTE).await else { panic!("it was given back") };
        claim.keep().await;
        assert!(matches!(seen.claim([1; 32], MINUTE).await, Claimed::Done));
        seen.done([2; 32], MINUTE).await;
        assert!(matches!(seen.claim([2; 32], MINUTE).await, Claimed::Done));
        tokio::time::advance(MINUTE).await;
        assert!(matches!(seen.claim([1; 32], MINUTE).await, Claimed::Fresh(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_may_be() {
        let seen = seen(10);
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
