// SPDX-License-Identifier: AGPL-3.0-only
//! The ban that follows 10,000 answers of 401, 403 and 429 within ten minutes ("Invalid Request Limit"): counts them,
//! brakes before, and stops where Discord's guard has closed the door already. One per egress address.

use std::time::Duration;

/// How fine the count is: what is older than ten minutes goes in steps of ten seconds.
const STEP: Duration = Duration::from_secs(10);
const STEPS: usize = 60;

/// Counts invalid requests of an address.
#[derive(Clone, Debug)]
pub struct InvalidGuard {
    brake: u32,
    stop: u32,
    /// How many in each step, the latest last; one more than ten minutes, because steps begin anywhere.
    counts: [u32; STEPS + 1],
    total: u32,
    /// What others at the same address have had.
    others: u32,
    /// The number of the latest step.
    step: u64,
    banned_until: Duration,
    /// While braking: when the next request may go.
    next: Duration,
}

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Open,
    /// Not before this time, so that what is left lasts.
    Brake(Duration),
    /// Too many were invalid; not before this time.
    Stop(Duration),
    /// The address is banned until this time.
    Banned(Duration),
}

impl InvalidGuard {
    /// Discord's limit.
    pub const LIMIT: u32 = 10_000;
    /// The time over which it counts.
    pub const WINDOW: Duration = Duration::from_secs(600);

    /// From `brake` on requests are spaced, at `stop` none is sent any more.
    #[must_use]
    pub fn new(brake: u32, stop: u32) -> Self {
        let stop = stop.max(1);
        Self {
            brake: brake.min(stop - 1),
            stop,
            counts: [0; STEPS + 1],
            total: 0,
            others: 0,
            step: 0,
            banned_until: Duration::ZERO,
            next: Duration::ZERO,
        }
    }

    /// Why nothing at all may go at `now`, if that is so.
    pub fn refuses(&mut self, now: Duration) -> Option<Standing> {
        if now < self.banned_until {
            return Some(Standing::Banned(self.banned_until));
        }
        if self.total.saturating_add(self.others) < self.stop {
            return None;
        }
        self.forget(now);
        let total = self.total.saturating_add(self.others);
        (total >= self.stop).then(|| Standing::Stop(self.next_step()))
    }

    /// Asks for a request at `now`; if it is told to go it counts as gone.
    pub fn ask(&mut self, now: Duration) -> Standing {
        if let Some(refused) = self.refuses(now) {
            return refused;
        }
        if self.total.saturating_add(self.others) < self.brake {
            return Standing::Open;
        }
        self.forget(now);
        let total = self.total.saturating_add(self.others);
        if total >= self.brake {
            if now < self.next {
                return Standing::Brake(self.next);
            }
            // Even if each of them fails, they last for the whole time.
            self.next = now + Self::WINDOW / (self.stop - self.brake);
        }
        Standing::Open
    }

    /// An answer counted as invalid at `now`.
    pub fn count(&mut self, now: Duration) {
        self.forget(now);
        self.counts[STEPS] += 1;
        self.total += 1;
    }

    /// All senders at the same address together have had `all` in the last ten minutes.
    pub fn heard(&mut self, all: u32, now: Duration) {
        self.forget(now);
        self.others = all.saturating_sub(self.total);
    }

    /// A ban page came: nothing until `until`.
    pub fn banned(&mut self, until: Duration) {
        self.banned_until = self.banned_until.max(until);
    }

    /// How many were invalid in the last ten minutes.
    pub fn invalid(&mut self, now: Duration) -> u32 {
        self.forget(now);
        self.total.saturating_add(self.others)
    }

    /// Forgets everything: somebody has looked into it.
    pub fn clear(&mut self) {
        *self = Self::new(self.brake, self.stop);
    }

    fn next_step(&self) -> Duration {
        // Nothing of our own: others' are asked for all the time.
        let oldest = self.counts.iter().position(|count| *count > 0).unwrap_or(0);
        let steps = u32::try_from(oldest).unwrap_or(0) + 1;
        STEP.saturating_mul(u32::try_from(self.step).unwrap_or(u32::MAX).saturating_add(steps))
    }

    fn forget(&mut self, now: Duration) {
        let step = now.as_secs() / STEP.as_secs();
        let passed = usize::try_from(step.saturating_sub(self.step)).unwrap_or(usize::MAX);
        if passed == 0 {
            return;
        }
        self.step = step;
        if passed > STEPS {
            (self.counts, self.total) = ([0; STEPS + 1], 0);
            return;
        }
        self.total -= self.counts[..passed].iter().sum::<u32>();
        self.counts.rotate_left(passed);
        self.counts[STEPS + 1 - passed..].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_spaced_and_then_stopped_before_the_limit() {
        let mut guard = InvalidGuard::new(3, 5);
        for _ in 0..3 {
            assert_eq!(guard.ask(s(0)), Standing::Open);
            guard.count(s(0));
        }
        assert_eq!(guard.ask(s(1)), Standing::Open);
        assert_eq!(guard.ask(s(2)), Standing::Brake(s(301)), "two are left for ten minutes");
        assert_eq!(guard.ask(s(301)), Standing::Open);
        guard.count(s(301));
        guard.count(s(301));
        assert_eq!(guard.ask(s(302)), Standing::Stop(s(610)));
        assert_eq!(guard.ask(s(610)), Standing::Open);
        assert_eq!(guard.invalid(s(610)), 2);
        assert_eq!(guard.invalid(s(911)), 0);
    }

    #[test]
    fn stops_end_when_they_say() {
        let mut guard = InvalidGuard::new(0, 1);
        guard.count(s(95));
        let Standing::Stop(until) = guard.ask(s(95)) else { panic!("one is the limit") };
        assert_eq!(until, s(700));
        assert!(matches!(guard.ask(s(699)), Standing::Stop(_)));
        assert_eq!(guard.ask(until), Standing::Open);
    }

    #[test]
    fn what_others_at_the_same_address_have_had_counts() {
        let mut guard = InvalidGuard::new(3, 5);
        guard.count(s(0));
        guard.heard(5, s(1));
        assert!(matches!(guard.ask(s(1)), Standing::Stop(_)));
        guard.heard(2, s(2));
        assert_eq!((guard.ask(s(2)), guard.invalid(s(2))), (Standing::Open, 2));
    }

    #[test]
    fn a_ban_holds_until_it_is_over_or_somebody_clears_it() {
        let mut guard = InvalidGuard::new(8_000, 9_500);
        guard.banned(s(60));
        assert_eq!(guard.ask(s(59)), Standing::Banned(s(60)));
        assert_eq!(guard.ask(s(60)), Standing::Open);
        guard.banned(s(120));
        guard.clear();
        assert_eq!(guard.ask(s(61)), Standing::Open);
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}
