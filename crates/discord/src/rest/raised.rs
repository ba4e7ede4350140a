// SPDX-License-Identifier: AGPL-3.0-only
//! A global limit that Discord may have raised: no answer tells it, so it can only be felt for. In: that more was wanted
//! than the limit lets go, global 429s, the time. Out: the limit to keep. One step at a time, and back after a 429.

use std::time::Duration;

/// How long more has to be wanted before a step is dared, and after what pause that begins anew.
const PROOF: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(2);

/// After a 429 no step is dared for so long.
const SETTLED: Duration = Duration::from_secs(3_600);

/// 429s within so long are about one step.
const ONE_BURST: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone, Debug)]
pub struct Raised {
    least: u32,
    most: u32,
    limit: u32,
    wanted_since: Duration,
    wanted_last: Duration,
    settled_until: Duration,
}

impl Raised {
    /// Begins at `least`, and is felt for up to `most`.
    #[must_use]
    pub fn new(least: u32, most: u32) -> Self {
        let zero = Duration::ZERO;
        let most = most.max(least);
        Self { least, most, limit: least, wanted_since: zero, wanted_last: zero, settled_until: zero }
    }

    /// More was wanted at `now` than the limit lets go; gives the limit if it is another now.
    pub fn wanted(&mut self, now: Duration) -> Option<u32> {
        if now > self.wanted_last + PAUSE {
            self.wanted_since = now;
        }
        self.wanted_last = now;
        if self.limit == self.most || now < self.settled_until || now < self.wanted_since + PROOF {
            return None;
        }
        self.wanted_since = now;
        self.limit = self.limit.saturating_add((self.limit / 10).max(1)).min(self.most);
        Some(self.limit)
    }

    /// Discord has answered with a global 429; gives the limit if it is another now.
    pub fn limited(&mut self, now: Duration) -> Option<u32> {
        // What was under way together with the one that was limited says nothing new.
        if now + SETTLED < self.settled_until + ONE_BURST {
            return None;
        }
        self.settled_until = now + SETTLED;
        // The step before this one: the inverse of what `wanted` does, rounded down.
        let before = (u64::from(self.limit) * 10 / 11).min(u64::from(self.limit.saturating_sub(1)));
        let before = u32::try_from(before).unwrap_or(u32::MAX).max(self.least);
        (before != self.limit).then(|| {
            self.limit = before;
            before
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_step_takes_ten_seconds_of_demand_and_a_429_takes_it_back() {
        let mut limit = Raised::new(50, 500);
        assert!((0..10).all(|second| limit.wanted(seconds(100 + second)).is_none()));
        assert_eq!(limit.wanted(seconds(110)), Some(55));
        // A pause: the demand has to show itself anew.
        assert!((0..10).all(|second| limit.wanted(seconds(120 + second)).is_none()));
        assert_eq!(limit.wanted(seconds(130)), Some(60));
        assert_eq!(limit.limited(seconds(131)), Some(54));
        assert!((0..5).all(|second| limit.limited(seconds(131 + second)).is_none()));
        assert!((0..3_599).all(|second| limit.wanted(seconds(131 + second)).is_none()));
        assert_eq!(limit.wanted(seconds(131 + 3_600)), Some(59));
    }

    #[test]
    fn it_stays_between_what_is_known_and_what_is_allowed() {
        let mut limit = Raised::new(50, 52);
        let steps: Vec<_> = (0..100).filter_map(|second| limit.wanted(seconds(second))).collect();
        assert_eq!(steps, [52]);
        assert_eq!((limit.limited(seconds(101)), limit.limited(seconds(110))), (Some(50), None));
        let mut fixed = Raised::new(50, 0);
        assert!((0..100).all(|second| fixed.wanted(seconds(second)).is_none()));
    }
}
