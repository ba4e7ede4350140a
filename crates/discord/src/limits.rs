// SPDX-License-Identifier: AGPL-3.0-only
//! Discord's limits on what we send: payloads per connection and IDENTIFYs per application
//! ("Gateway", sections "Rate Limiting", "Sharding" and "Session Start Limit Object").
//! In: a wish and the time since any fixed origin. Out: leave to go on, or how long to wait.
//! One `SendBudget` per connection; one `IdentifyQueue` per application.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How many payloads a connection may still send: at most `limit` in any stretch of `window`.
#[derive(Clone, Debug)]
pub struct SendBudget {
    limit: usize,
    reserve: usize,
    window: Duration,
    /// When each payload of the last window was sent, oldest first.
    sent: VecDeque<Duration>,
}

impl SendBudget {
    /// 120 payloads in 60 seconds, as Discord counts.
    pub const LIMIT: usize = 120;
    /// See [`SendBudget::LIMIT`].
    pub const WINDOW: Duration = Duration::from_secs(60);
    /// Kept for what must not wait: IDENTIFY or RESUME, two heartbeats of 41 s, a few that Discord asks for.
    pub const RESERVE: usize = 6;

    /// A budget of its own; `reserve` of `limit` are for priority only.
    #[must_use]
    pub fn new(limit: usize, reserve: usize, window: Duration) -> Self {
        SendBudget { limit, reserve: reserve.min(limit), window, sent: VecDeque::new() }
    }

    /// The budget of a connection to Discord. The window is a second longer than Discord's, because payloads
    /// that left 60 s apart may arrive closer together.
    #[must_use]
    pub fn discord() -> Self {
        Self::new(Self::LIMIT, Self::RESERVE, Self::WINDOW + Duration::from_secs(1))
    }

    /// Counts one payload as sent at `now`; `priority` may use the reserve.
    ///
    /// # Errors
    /// How long to wait before the same wish can be granted.
    pub fn try_take(&mut self, now: Duration, priority: bool) -> Result<(), Duration> {
        self.forget(now);
        let limit = if priority { self.limit } else { self.limit - self.reserve };
        if self.sent.len() < limit {
            self.sent.push_back(now);
            return Ok(());
        }
        // Once this one has left the window, fewer than `limit` are in it.
        let blocking = self.sent.get(self.sent.len() - limit);
        Err(blocking.map_or(self.window, |sent| (*sent + self.window).saturating_sub(now)))
    }

    /// How many payloads without priority could be sent at `now`.
    pub fn available(&mut self, now: Duration) -> usize {
        self.forget(now);
        (self.limit - self.reserve).saturating_sub(self.sent.len())
    }

    fn forget(&mut self, now: Duration) {
        while self.sent.front().is_some_and(|sent| *sent + self.window <= now) {
            self.sent.pop_front();
        }
    }
}

/// What `GET /gateway/bot` says about starting sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStartLimit {
    /// IDENTIFYs per day.
    pub total: u32,
    /// IDENTIFYs left today.
    pub remaining: u32,
    /// Time until `remaining` becomes `total` again.
    pub reset_after: Duration,
    /// IDENTIFYs per 5 seconds.
    pub max_concurrency: u32,
}

/// Who may identify when. Shards that share a key (`shard % max_concurrency`) go one per interval, lowest first,
/// so that shards start bucket by bucket.
#[derive(Clone, Debug)]
pub struct IdentifyQueue {
    limit: SessionStartLimit,
    reset_at: Duration,
    /// When each key was used last.
    used: BTreeMap<u32, Duration>,
    /// Shards that were told to wait, and when they should have asked again.
    waiting: BTreeMap<u32, Duration>,
}

impl IdentifyQueue {
    /// One IDENTIFY per key in 5 s, and a little more: two that left 5 s apart may arrive closer together.
    pub const INTERVAL: Duration = Duration::from_millis(5_250);
    /// After a day the budget is full again.
    pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// IDENTIFYs of a day that are never used: on reaching the limit Discord ends all sessions and resets the token.
    pub const KEEP: u32 = 1;
    /// A shard that was told to wait, and is this late in asking again, no longer holds up others.
    pub const PATIENCE: Duration = Duration::from_secs(2);

    /// A queue with what Discord said at `now`.
    #[must_use]
    pub fn new(limit: SessionStartLimit, now: Duration) -> Self {
        let mut queue =
            IdentifyQueue { limit, reset_at: now, used: BTreeMap::new(), waiting: BTreeMap::new() };
        queue.update(limit, now);
        queue
    }

    /// Takes over what Discord said at `now`; who identified lately stays known.
    pub fn update(&mut self, limit: SessionStartLimit, now: Duration) {
        let limit = SessionStartLimit { max_concurrency: limit.max_concurrency.max(1), ..limit };
        if limit.max_concurrency != self.limit.max_concurrency {
            // Keys mean other shards now: let each wait for the latest.
            let latest = self.used.values().max().copied();
            self.used.clear();
            if let Some(latest) = latest.filter(|latest| *latest + Self::INTERVAL > now) {
                self.used.extend((0..limit.max_concurrency).map(|key| (key, latest)));
            }
        }
        self.limit = limit;
        self.reset_at = now + limit.reset_after;
    }

    /// Asks to identify `shard` at `now`; if granted it counts as done.
    ///
    /// # Errors
    /// How long to wait before asking again. Whoever gives up instead calls [`IdentifyQueue::cancel`].
    pub fn request(&mut self, shard: u32, now: Duration) -> Result<(), Duration> {
        self.renew(now);
        if self.limit.remaining <= Self::KEEP {
            return Err(self.reset_at.saturating_sub(now).max(Duration::from_secs(1)));
        }
        self.waiting.retain(|_, due| *due + Self::PATIENCE > now);
        let key = shard % self.limit.max_concurrency;
        let free =
            self.used.get(&key).map_or(Duration::ZERO, |used| (*used + Self::INTERVAL).saturating_sub(now));
        let before =
            self.waiting.range(..shard).filter(|(other, _)| **other % self.limit.max_concurrency == key);
        let ahead = u32::try_from(before.count()).unwrap_or(u32::MAX);
        let wait = free + Self::INTERVAL.saturating_mul(ahead);
        if wait.is_zero() {
            self.waiting.remove(&shard);
            self.used.insert(key, now);
            self.limit.remaining -= 1;
            return Ok(());
        }
        self.waiting.insert(shard, now + wait);
        Err(wait)
    }

    /// A shard that was told to wait no longer wants to identify.
    pub fn cancel(&mut self, shard: u32) {
        self.waiting.remove(&shard);
    }

    /// Discord answered an IDENTIFY with INVALID_SESSION at `now`: its key was used by somebody else too.
    pub fn refused(&mut self, shard: u32, now: Duration) {
        self.used.insert(shard % self.limit.max_concurrency, now);
    }

    /// IDENTIFYs left until the budget is renewed, without those that are kept.
    pub fn remaining(&mut self, now: Duration) -> u32 {
        self.renew(now);
        self.limit.remaining.saturating_sub(Self::KEEP)
    }

    fn renew(&mut self, now: Duration) {
        while now >= self.reset_at {
            self.limit.remaining = self.limit.total;
            self.reset_at += Self::DAY;
        }
    }
}
