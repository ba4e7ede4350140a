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

#[cfg(test)]
mod tests {
    use super::{IdentifyQueue, SendBudget, SessionStartLimit};
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_connection_sends_120_payloads_in_a_minute_and_no_more() {
        let mut budget = SendBudget::new(120, 0, seconds(60));
        for sent in 0..120 {
            assert_eq!(budget.try_take(seconds(sent / 4), false), Ok(()), "{sent}");
        }
        assert_eq!(budget.try_take(seconds(30), false), Err(seconds(30)));
        assert_eq!(budget.try_take(seconds(60), false), Ok(()));
    }

    #[test]
    fn heartbeats_find_room_when_commands_have_used_theirs() {
        let mut budget = SendBudget::discord();
        let mut commands = 0;
        while budget.try_take(seconds(1), false).is_ok() {
            commands += 1;
        }
        assert_eq!(commands, SendBudget::LIMIT - SendBudget::RESERVE);
        assert_eq!(budget.available(seconds(1)), 0);
        for _ in 0..SendBudget::RESERVE {
            assert_eq!(budget.try_take(seconds(2), true), Ok(()));
        }
        assert_eq!(budget.try_take(seconds(2), true), Err(seconds(60)));
    }

    #[test]
    fn whoever_waits_as_long_as_told_is_let_through() {
        let mut budget = SendBudget::new(4, 1, seconds(10));
        for now in [0, 1, 2, 3] {
            assert_eq!(budget.try_take(seconds(now), true), Ok(()));
        }
        // Four are out; a command needs two of them to leave.
        assert_eq!(budget.try_take(seconds(4), false), Err(seconds(7)));
        assert_eq!(budget.try_take(seconds(4), true), Err(seconds(6)));
        assert_eq!(budget.try_take(seconds(11), false), Ok(()));
    }

    #[test]
    fn a_budget_without_any_room_says_so_instead_of_panicking() {
        assert_eq!(SendBudget::new(0, 0, seconds(5)).try_take(seconds(1), true), Err(seconds(5)));
        assert_eq!(SendBudget::new(2, 9, seconds(5)).try_take(seconds(1), false), Err(seconds(5)));
        assert_eq!(SendBudget::new(2, 9, seconds(5)).try_take(seconds(1), true), Ok(()));
    }

    #[test]
    fn shards_of_different_keys_identify_at_once_and_of_the_same_key_in_turn() {
        let mut queue = queue(16, 1000);
        for shard in 0..16 {
            assert_eq!(queue.request(shard, Duration::ZERO), Ok(()), "{shard}");
        }
        for shard in 16..32 {
            assert_eq!(queue.request(shard, Duration::ZERO), Err(IdentifyQueue::INTERVAL), "{shard}");
        }
        for shard in (16..32).rev() {
            assert_eq!(queue.request(shard, IdentifyQueue::INTERVAL), Ok(()), "{shard}");
        }
    }

    #[test]
    fn shards_that_wait_for_the_same_key_go_lowest_first() {
        let mut queue = queue(1, 1000);
        assert_eq!(queue.request(0, Duration::ZERO), Ok(()));
        assert_eq!(queue.request(1, Duration::ZERO), Err(IdentifyQueue::INTERVAL));
        assert_eq!(queue.request(2, Duration::ZERO), Err(2 * IdentifyQueue::INTERVAL));
        // Shard 2 comes early, with shard 1 still to come.
        assert_eq!(queue.request(2, IdentifyQueue::INTERVAL), Err(IdentifyQueue::INTERVAL));
        assert_eq!(queue.request(1, IdentifyQueue::INTERVAL), Ok(()));
        assert_eq!(queue.request(2, 2 * IdentifyQueue::INTERVAL), Ok(()));
    }

    #[test]
    fn a_shard_that_gave_up_or_never_came_back_holds_up_nobody() {
        let mut queue = queue(1, 1000);
        assert_eq!(queue.request(0, Duration::ZERO), Ok(()));
        assert!(queue.request(1, Duration::ZERO).is_err());
        assert!(queue.request(2, Duration::ZERO).is_err());
        queue.cancel(1);
        assert_eq!(queue.request(2, IdentifyQueue::INTERVAL), Ok(()));

        assert!(queue.request(1, IdentifyQueue::INTERVAL).is_err());
        let late = 2 * IdentifyQueue::INTERVAL + IdentifyQueue::PATIENCE;
        assert_eq!(queue.request(3, late), Ok(()));
    }

    #[test]
    fn the_last_identify_of_the_day_is_never_used() {
        let mut queue = queue(4, 3);
        assert_eq!(queue.remaining(Duration::ZERO), 2);
        assert_eq!(queue.request(0, Duration::ZERO), Ok(()));
        assert_eq!(queue.request(1, Duration::ZERO), Ok(()));
        assert_eq!(queue.request(2, seconds(100)), Err(seconds(3500)));
        assert_eq!(queue.request(2, seconds(3600)), Ok(()));
        assert_eq!(queue.remaining(seconds(3600)), 998);
        assert_eq!(queue.remaining(seconds(3600) + IdentifyQueue::DAY), 999);
    }

    #[test]
    fn news_from_discord_keep_who_identified_lately() {
        let mut queue = queue(2, 1000);
        assert_eq!(queue.request(0, Duration::ZERO), Ok(()));
        queue.update(limit(2, 500), seconds(1));
        assert_eq!(queue.request(2, seconds(1)), Err(IdentifyQueue::INTERVAL - seconds(1)));
        queue.update(limit(16, 500), seconds(1));
        assert_eq!(queue.request(7, seconds(1)), Err(IdentifyQueue::INTERVAL - seconds(1)));
        assert_eq!(queue.request(7, seconds(6)), Ok(()));
        assert_eq!(queue.remaining(seconds(6)), 498);
    }

    #[test]
    fn a_refused_identify_blocks_its_key_for_an_interval_more() {
        let mut queue = queue(1, 1000);
        assert_eq!(queue.request(0, Duration::ZERO), Ok(()));
        queue.refused(0, seconds(3));
        assert_eq!(queue.request(0, seconds(5)), Err(IdentifyQueue::INTERVAL - seconds(2)));
    }

    #[test]
    fn a_concurrency_of_nought_is_taken_for_one() {
        let mut queue = queue(0, 1000);
        assert_eq!(queue.request(5, Duration::ZERO), Ok(()));
        assert!(queue.request(6, Duration::ZERO).is_err());
    }

    proptest! {
        #[test]
        fn no_stretch_of_a_minute_ever_holds_more_than_the_limit(
            steps in proptest::collection::vec((0_u64..4000, any::<bool>()), 1..600),
            reserve in 0_usize..12,
        ) {
            let mut budget = SendBudget::new(10, reserve, seconds(60));
            let (mut now, mut sent) = (Duration::ZERO, Vec::new());
            for (step, priority) in steps {
                now += Duration::from_millis(step);
                match budget.try_take(now, priority) {
                    Ok(()) => sent.push(now),
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO && wait <= seconds(60));
                        if reserve < 10 || priority {
                            prop_assert_eq!(budget.clone().try_take(now + wait, priority), Ok(()));
                        }
                    }
                }
            }
            for window in sent.windows(11) {
                prop_assert!(window[10] - window[0] >= seconds(60));
            }
        }

        #[test]
        fn however_shards_ask_all_get_through_and_no_key_is_used_twice_in_five_seconds(
            concurrency in 1_u32..5,
            shards in 1_u32..20,
            late in proptest::collection::vec(0_u64..1500, 20),
        ) {
            let mut queue = queue(concurrency, 1000);
            let mut due: Vec<(Duration, u32)> = (0..shards).map(|shard| (Duration::ZERO, shard)).collect();
            let mut granted: Vec<(u32, Duration)> = Vec::new();
            while let Some(next) = due.iter().min().copied() {
                due.retain(|entry| *entry != next);
                let (now, shard) = next;
                match queue.request(shard, now) {
                    Ok(()) => granted.push((shard % concurrency, now)),
                    Err(wait) => due.push((now + wait + Duration::from_millis(late[shard as usize]), shard)),
                }
                prop_assert!(now < seconds(400), "somebody starves");
            }
            for (at, (key, now)) in granted.iter().enumerate() {
                let before = granted[..at].iter().rev().find(|(other, _)| other == key);
                prop_assert!(before.is_none_or(|(_, earlier)| *now - *earlier >= seconds(5)));
            }
        }
    }

    fn queue(max_concurrency: u32, remaining: u32) -> IdentifyQueue {
        IdentifyQueue::new(limit(max_concurrency, remaining), Duration::ZERO)
    }

    fn limit(max_concurrency: u32, remaining: u32) -> SessionStartLimit {
        SessionStartLimit { total: 1000, remaining, reset_after: seconds(3600), max_concurrency }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}
