// SPDX-License-Identifier: AGPL-3.0-only
//! Permits of one process: the queue of `holdfast_discord::limits` with a clock, tasks that wait, and a memory.
//! In: shards that wish to identify, Discord's figures. Out: permits, in the queue's order. What was granted is stored,
//! so that a process that starts again and again neither identifies too fast nor more often than Discord allows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_discord::limits::{IdentifyQueue, SessionStartLimit};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Exhausted;
use crate::Store;

/// Two times of renewal that are no further apart mean the same day: figures are rounded and travel.
const SAME_DAY: Duration = Duration::from_secs(300);

/// One process's queue; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Granted>,
    clock: Clock,
    store: Store,
}

#[derive(Debug)]
struct Granted {
    queue: IdentifyQueue,
    limit: SessionStartLimit,
    reset_at: Duration,
    /// When which shard identified, as long as that matters.
    recent: BTreeMap<u32, Duration>,
}

/// What is stored of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitsState {
    /// IDENTIFYs left.
    pub remaining: u32,
    /// When there are new ones, milliseconds of Unix time.
    pub reset_unix_ms: u64,
    /// Shards that identified in the last seconds, and when, milliseconds of Unix time.
    pub recent: Vec<(u32, u64)>,
}

/// Unix time that doesn't jump while the process lives, and can still be compared after it.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Instant,
    start_unix: Duration,
}

impl Clock {
    fn start() -> Clock {
        let start_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { start: Instant::now(), start_unix }
    }

    fn now(&self) -> Duration {
        self.start_unix + self.start.elapsed()
    }
}

impl Local {
    /// Blocks.
    pub(crate) fn new(store: &Store, limit: SessionStartLimit) -> Local {
        Self::with_clock(store, limit, Clock::start())
    }

    fn with_clock(store: &Store, limit: SessionStartLimit, clock: Clock) -> Local {
        let now = clock.now();
        let stored = store.load_permits().unwrap_or_default();
        let limit = within(limit, stored.remaining, Duration::from_millis(stored.reset_unix_ms), now);
        let mut queue = IdentifyQueue::new(limit, now);
        let mut recent = BTreeMap::new();
        for (shard, at) in stored.recent {
            // A clock that was set back in between must not make shards wait for the future.
            let at = Duration::from_millis(at).min(now);
            if at + IdentifyQueue::INTERVAL > now {
                queue.refused(shard, at);
                recent.insert(shard, at);
            }
        }
        let granted = Granted { queue, limit, reset_at: now + limit.reset_after, recent };
        Local { shared: Arc::new(Shared { queue: Mutex::new(granted), clock, store: store.clone() }) }
    }

    pub(crate) async fn acquire(&self, shard: u32) -> Result<(), Exhausted> {
        let turn = Turn { shared: &self.shared, shard };
        loop {
            let wait = match turn.ask()? {
                None => return Ok(()),
                Some(wait) => wait,
            };
            tokio::time::sleep(wait).await;
        }
    }

    pub(crate) fn refused(&self, shard: u32) {
        let now = self.shared.clock.now();
        let mut granted = self.shared.lock();
        granted.queue.refused(shard, now);
        granted.recent.insert(shard, now);
        self.shared.save(&mut granted, now);
    }

    pub(crate) fn update(&self, limit: SessionStartLimit) {
        let now = self.shared.clock.now();
        let mut granted = self.shared.lock();
        granted.queue.update(limit, now);
        granted.limit = limit;
        granted.reset_at = now + limit.reset_after;
        self.shared.save(&mut granted, now);
    }

    /// Takes over the answer that another replica got: of the same day's, the lower one counts.
    pub(crate) fn learn(&self, limit: SessionStartLimit) {
        let now = self.shared.clock.now();
        let (remaining, reset_at) = {
            let mut granted = self.shared.lock();
            (granted.queue.remaining(now).saturating_add(IdentifyQueue::KEEP), granted.reset_at)
        };
        self.update(within(limit, remaining, reset_at, now));
    }

    pub(crate) fn remaining(&self) -> u32 {
        let now = self.shared.clock.now();
        self.shared.lock().queue.remaining(now)
    }

    pub(crate) fn limit(&self) -> SessionStartLimit {
        self.shared.lock().limit
    }
}

/// Of Discord's figure and our own for the same day the lower one: Discord's may be behind.
fn within(limit: SessionStartLimit, remaining: u32, reset: Duration, now: Duration) -> SessionStartLimit {
    let same_day = reset.abs_diff(now + limit.reset_after) < SAME_DAY;
    match same_day {
        true => SessionStartLimit { remaining: limit.remaining.min(remaining), ..limit },
        false => limit,
    }
}

/// A shard's place in the queue, given up when dropped.
struct Turn<'a> {
    shared: &'a Shared,
    shard: u32,
}

impl Turn<'_> {
    /// `None`: granted. Else how long to wait before asking again.
    fn ask(&self) -> Result<Option<Duration>, Exhausted> {
        let now = self.shared.clock.now();
        let mut granted = self.shared.lock();
        let Err(wait) = granted.queue.request(self.shard, now) else {
            granted.recent.insert(self.shard, now);
            self.shared.save(&mut granted, now);
            return Ok(None);
        };
        match granted.queue.remaining(now) {
            0 => Err(Exhausted { renewed_in: wait }),
            _ => Ok(Some(wait)),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shared.lock().queue.cancel(self.shard);
    }
}

impl Shared {
    /// Held for a few map operations, which leave nothing half done.
    fn lock(&self) -> MutexGuard<'_, Granted> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, granted: &mut Granted, now: Duration) {
        granted.recent.retain(|_, at| *at + IdentifyQueue::INTERVAL > now);
        while now >= granted.reset_at {
            granted.reset_at += IdentifyQueue::DAY;
        }
        let state = PermitsState {
            // The queue tells what it grants; what it keeps back is Discord's figure again.
            remaining: granted.queue.remaining(now).saturating_add(IdentifyQueue::KEEP),
            reset_unix_ms: millis(granted.reset_at),
            recent: granted.recent.iter().map(|(shard, at)| (*shard, millis(*at))).collect(),
        };
        self.store.save_permits(&state);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shards_of_one_bucket_go_one_per_interval_and_lowest_first() {
        let (store, _) = Store::open(None).unwrap();
        let permits = Local::new(&store, limit(1000, 2));
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for shard in [5, 0, 3, 2, 1, 4] {
            let permits = permits.clone();
            tasks.spawn(async move {
                permits.acquire(shard).await.unwrap();
                (shard, start.elapsed())
            });
        }
        let mut granted = tasks.join_all().await;
        granted.sort();
        let first = granted.iter().filter(|(_, at)| at.is_zero()).count();
        assert_eq!(first, 2, "one per bucket at once: {granted:?}");
        for bucket in 0..2 {
            let mut times: Vec<_> =
                granted.iter().filter(|(shard, _)| shard % 2 == bucket).map(|(_, at)| *at).collect();
            times.sort();
            for pair in times.windows(2) {
                assert!(pair[1] - pair[0] >= Duration::from_secs(5), "{granted:?}");
            }
            assert!(times[2] < Duration::from_secs(13), "no turn was wasted: {granted:?}");
        }
        assert_eq!(permits.remaining(), 1000 - 6 - IdentifyQueue::KEEP);
    }

    #[tokio::test(start_paused = true)]
    async fn a_used_up_day_is_an_error_that_says_when_it_ends() {
        let (store, _) = Store::open(None).unwrap();
        let permits = Local::new(&store, limit(2, 16));
        permits.acquire(0).await.unwrap();
        let exhausted = permits.acquire(1).await.unwrap_err();
        assert!(exhausted.renewed_in > Duration::from_secs(3500), "{exhausted}");
        permits.update(limit(1000, 16));
        permits.acquire(1).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_neither_forgets_the_budget_nor_the_last_seconds() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        {
            let (store, _) = Store::open(Some(dir.path())).unwrap();
            let permits = Local::with_clock(&store, limit(100, 1), clock);
            permits.acquire(0).await.unwrap();
            store.flush().await.unwrap();
        }
        let (store, _) = Store::open(Some(dir.path())).unwrap();
        // Discord's own answer may be a little behind.
        let permits = Local::with_clock(&store, limit(100, 1), clock);
        assert_eq!(permits.remaining(), 99 - IdentifyQueue::KEEP);
        let start = Instant::now();
        permits.acquire(7).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_holds_up_nobody() {
        let (store, _) = Store::open(None).unwrap();
        let permits = Local::new(&store, limit(100, 1));
        permits.acquire(9).await.unwrap();
        let gave_up = tokio::time::timeout(Duration::from_secs(1), permits.acquire(0)).await;
        assert!(gave_up.is_err());
        let start = Instant::now();
        permits.acquire(1).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        assert_eq!(permits.remaining(), 98 - IdentifyQueue::KEEP, "what was not granted was not counted");
    }

    #[tokio::test(start_paused = true)]
    async fn another_day_is_not_bound_by_the_day_before() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(Some(dir.path())).unwrap();
        store.save_permits(&PermitsState { remaining: 0, reset_unix_ms: 1, recent: Vec::new() });
        store.flush().await.unwrap();
        let permits = Local::new(&store, limit(100, 1));
        assert_eq!(permits.remaining(), 100 - IdentifyQueue::KEEP);
    }

    fn limit(remaining: u32, max_concurrency: u32) -> SessionStartLimit {
        let reset_after = Duration::from_secs(3600);
        SessionStartLimit { total: 1000, remaining, reset_after, max_concurrency }
    }
}
