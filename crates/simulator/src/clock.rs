// SPDX-License-Identifier: AGPL-3.0-only
//! Wall-clock times as Discord writes them.
//!
//! In: the system clock. Out: ISO 8601 texts, microseconds for latency measures, snowflakes in rising order.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds between the Unix epoch and Discord's (reference: snowflakes).
const DISCORD_EPOCH_MS: u64 = 1_420_070_400_000;

/// Time since the Unix epoch.
pub(crate) fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(unix().as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-21T23:19:23.123000+00:00`, for seconds and microseconds since the Unix epoch.
pub(crate) fn iso8601(at: Duration) -> String {
    let seconds = at.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = at.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00")
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    let mut left = days;
    loop {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = if leap { 366 } else { 365 };
        if left < length {
            return month_of(year, left, leap);
        }
        left -= length;
        year += 1;
    }
}

fn month_of(year: u64, mut day: u64, leap: bool) -> (u64, u64, u64) {
    let february = if leap { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    for (month, length) in (1..).zip(lengths) {
        if day < length {
            return (year, month, day + 1);
        }
        day -= length;
    }
    (year, 12, 31)
}

/// Gives snowflakes of the present time, each greater than the one before.
#[derive(Debug, Default)]
pub(crate) struct Snowflakes(AtomicU64);

impl Snowflakes {
    /// The next one.
    pub(crate) fn next(&self) -> u64 {
        let now = (unix_ms().saturating_sub(DISCORD_EPOCH_MS)) << 22;
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)))
            .unwrap_or_default();
        now.max(before + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_instant_is_written_as_discord_writes_it() {
        assert_eq!(iso8601(Duration::from_micros(1_709_210_096_789_012)), "2024-02-29T12:34:56.789012+00:00");
        assert_eq!(iso8601(Duration::ZERO), "1970-01-01T00:00:00.000000+00:00");
    }

    #[test]
    fn snowflakes_only_rise() {
        let snowflakes = Snowflakes::default();
        let mut last = 0;
        for _ in 0..10_000 {
            let next = snowflakes.next();
            assert!(next > last);
            last = next;
        }
    }
}
