// SPDX-License-Identifier: AGPL-3.0-only
//! Pauses between attempts: exponential, jittered, bounded. Pure; randomness comes from a seed.

use std::time::Duration;

/// Gives the pause before each further attempt: between half and all of `base`, doubled per failure up to `cap`,
/// so that a thousand clients that failed together don't come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Begins at `base`, never pauses longer than `cap`, with a seed of the system's choosing.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self::seeded(base, cap, fastrand::u64(..))
    }

    /// The same with a given seed, for tests.
    #[must_use]
    pub fn seeded(base: Duration, cap: Duration, seed: u64) -> Self {
        Self { base, cap, failures: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// The pause before the next attempt, after one more failure.
    pub fn failed(&mut self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let full = self.base.saturating_mul(factor).min(self.cap);
        self.failures = self.failures.saturating_add(1).min(31);
        full.mul_f64(0.5 + self.random.f64() / 2.0)
    }

    /// How many failures there have been since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Begins anew after a success.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(500);
    const CAP: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_double_up_to_the_cap_and_stay_between_half_and_all() {
        let mut backoff = Backoff::seeded(BASE, CAP, 7);
        for failure in 0..100u32 {
            let full = BASE.saturating_mul(1 << failure.min(20)).min(CAP);
            let pause = backoff.failed();
            assert!(pause >= full / 2 && pause <= full, "failure {failure}: {pause:?} of {full:?}");
        }
    }

    #[test]
    fn a_success_begins_anew() {
        let mut backoff = Backoff::seeded(BASE, CAP, 7);
        for _ in 0..10 {
            backoff.failed();
        }
        backoff.succeeded();
        assert!(backoff.failed() <= BASE);
    }

    #[test]
    fn two_seeds_pause_differently() {
        let mut one = Backoff::seeded(BASE, CAP, 1);
        let mut other = Backoff::seeded(BASE, CAP, 2);
        assert_ne!((one.failed(), one.failed()), (other.failed(), other.failed()));
    }
}
