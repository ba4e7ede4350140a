// SPDX-License-Identifier: AGPL-3.0-only
//! So many requests in any stretch of a given time: the global limit, and limits that no header tells.
//! A request counts from when it is sent until the stretch after its answer: Discord counted it somewhere in between.

use std::collections::VecDeque;
use std::time::Duration;

/// A limit over any stretch of time. Holds for fixed windows, too, wherever they begin.
#[derive(Clone, Debug)]
pub struct Rolling {
    limit: usize,
    window: Duration,
    margin: Duration,
    /// When each place is free again, oldest request first.
    places: VecDeque<Duration>,
    /// The number of the first of them.
    first: u64,
    blocked_until: Duration,
}

/// A place that a request has, by the number of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

impl Rolling {
    /// At most `limit` in any `window`. A request without an answer is taken to be counted `margin` after it was sent,
    /// at the latest.
    #[must_use]
    pub fn new(limit: u32, window: Duration, margin: Duration) -> Self {
        let limit = (limit as usize).max(1);
        Self { limit, window, margin, places: VecDeque::new(), first: 0, blocked_until: Duration::ZERO }
    }

    /// Takes a place at `now`.
    ///
    /// # Errors
    /// When to ask again.
    pub fn take(&mut self, now: Duration) -> Result<Place, Duration> {
        self.ready(now)?;
        self.places.push_back(now + self.margin + self.window);
        Ok(Place(self.first + self.places.len() as u64 - 1))
    }

    /// Whether there is a place at `now`.
    ///
    /// # Errors
    /// When to ask again.
    pub fn ready(&mut self, now: Duration) -> Result<(), Duration> {
        if now < self.blocked_until {
            return Err(self.blocked_until);
        }
        while self.places.front().is_some_and(|free| *free <= now) {
            self.places.pop_front();
            self.first += 1;
        }
        match self.places.front() {
            Some(free) if self.places.len() >= self.limit => Err(*free),
            _ => Ok(()),
        }
    }

    /// The request of this place was answered at `now`.
    pub fn answered(&mut self, place: Place, now: Duration) {
        let free_by = now + self.window;
        if let Some(free) = self.slot(place) {
            *free = free_by.min(*free);
        }
    }

    /// The request of this place was never sent.
    pub fn unused(&mut self, place: Place) {
        if let Some(free) = self.slot(place) {
            *free = Duration::ZERO;
        }
    }

    /// Another limit from now on.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = (limit as usize).max(1);
    }

    /// Discord said to send nothing before `until`.
    pub fn block(&mut self, until: Duration) {
        self.blocked_until = self.blocked_until.max(until);
    }

    /// When there will be a place for a request with `ahead` others before it: an estimate for who has to decide
    /// whether to wait.
    #[must_use]
    pub fn estimate(&self, now: Duration, ahead: usize) -> Duration {
        let now = now.max(self.blocked_until);
        let free = self.limit.saturating_sub(self.places.len());
        let Some(beyond) = ahead.checked_sub(free) else { return now };
        let rounds = u32::try_from(beyond / self.limit).unwrap_or(u32::MAX);
        let first = self.places.get(beyond % self.limit).copied().unwrap_or(now + self.window);
        first.max(now) + self.window.saturating_mul(rounds)
    }

    /// Whether nothing is counted any more.
    #[must_use]
    pub fn is_idle(&self, now: Duration) -> bool {
        now >= self.blocked_until && self.places.back().is_none_or(|free| *free <= now)
    }

    fn slot(&mut self, place: Place) -> Option<&mut Duration> {
        let index = place.0.checked_sub(self.first)?;
        self.places.get_mut(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_place_is_free_a_window_after_its_answer() {
        let mut limit = Rolling::new(2, SECOND, ms(100));
        let first = limit.take(ms(0)).expect("free");
        limit.take(ms(10)).expect("free");
        assert_eq!(limit.take(ms(20)), Err(ms(1_100)));
        limit.answered(first, ms(40));
        assert_eq!(limit.take(ms(50)), Err(ms(1_040)));
        assert!(limit.take(ms(1_040)).is_ok());
        // The second was never answered.
        assert_eq!(limit.take(ms(1_050)), Err(ms(1_110)));
    }

    #[test]
    fn a_place_that_was_not_used_is_free_at_once() {
        let mut limit = Rolling::new(1, SECOND, ms(100));
        let place = limit.take(ms(0)).expect("free");
        limit.unused(place);
        assert!(limit.take(ms(1)).is_ok());
        // The number of a place that is long gone means nothing.
        limit.unused(place);
        assert!(limit.take(ms(2)).is_err());
    }

    #[test]
    fn a_block_holds_everything() {
        let mut limit = Rolling::new(50, SECOND, ms(100));
        limit.block(ms(700));
        assert_eq!(limit.take(ms(0)), Err(ms(700)));
        assert!(limit.take(ms(700)).is_ok());
        assert_eq!(limit.estimate(ms(0), 0), ms(700));
    }

    #[test]
    fn the_estimate_counts_rounds() {
        let mut limit = Rolling::new(2, SECOND, ms(0));
        assert_eq!(limit.estimate(ms(5), 1), ms(5));
        limit.take(ms(0)).expect("free");
        limit.take(ms(100)).expect("free");
        assert_eq!(limit.estimate(ms(200), 0), ms(1_000));
        assert_eq!(limit.estimate(ms(200), 1), ms(1_100));
        assert_eq!(limit.estimate(ms(200), 3), ms(2_100));
    }

    proptest! {
        /// However long answers take, Discord never counts more than the limit in any second: neither rolling nor in
        /// windows that begin with the first request.
        #[test]
        fn discord_never_counts_more_than_the_limit(
            trips in proptest::collection::vec((0_u64..300, 1_u64..90, 1_u64..90), 1..300),
        ) {
            let mut limit = Rolling::new(10, SECOND, ms(100));
            let (mut now, mut counted, mut flying) = (ms(0), Vec::new(), Vec::new());
            for (pause, out, back) in trips {
                now += ms(pause / 20);
                loop {
                    flying.retain(|(at, place)| {
                        if *at <= now { limit.answered(*place, *at); }
                        *at > now
                    });
                    match limit.take(now) {
                        Ok(place) => {
                            counted.push(now + ms(out));
                            flying.push((now + ms(out + back), place));
                            break;
                        }
                        Err(free) => now = flying.iter().map(|(at, _)| *at).filter(|at| *at > now).fold(free, Duration::min),
                    }
                }
            }
            counted.sort_unstable();
            for eleven in counted.windows(11) {
                prop_assert!(eleven[10] - eleven[0] >= SECOND, "{eleven:?}");
            }
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}
