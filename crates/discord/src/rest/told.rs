// SPDX-License-Identifier: AGPL-3.0-only
//! What an answer's headers say about its limit ("Header Format"). In: a look-up of headers. Out: figures.

use std::time::Duration;

/// The figures of a bucket, as an answer told them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// `X-RateLimit-Limit`: requests in all.
    pub limit: u32,
    /// `X-RateLimit-Remaining`: requests left.
    pub remaining: u32,
    /// `X-RateLimit-Reset-After`: until all are there again.
    pub reset_after: Duration,
    /// `X-RateLimit-Reset`: the same as Discord's own time, since 1970.
    pub reset: Option<Duration>,
}

/// `X-RateLimit-Scope` of a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The bot's own use of a route.
    User,
    /// The bot's use of everything.
    Global,
    /// Everybody's use of a resource.
    Shared,
}

impl Told {
    /// Reads the figures; `header` looks one up by its lower-case name. `None` unless all that are needed are there.
    pub fn read<'h>(header: impl Fn(&'static str) -> Option<&'h str>) -> Option<Told> {
        let remaining = header("x-ratelimit-remaining")?.parse().ok()?;
        let limit: u32 = header("x-ratelimit-limit")?.parse().ok()?;
        let reset_after = seconds(header("x-ratelimit-reset-after")?)?;
        let reset = header("x-ratelimit-reset").and_then(seconds);
        (limit > 0).then_some(Told { limit, remaining, reset_after, reset })
    }

    /// Requests that the bucket had counted when this was said.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.limit.saturating_sub(self.remaining)
    }
}

impl Scope {
    /// Reads the header's value.
    #[must_use]
    pub fn read(value: &str) -> Option<Scope> {
        match value {
            "user" => Some(Scope::User),
            "global" => Some(Scope::Global),
            "shared" => Some(Scope::Shared),
            _ => None,
        }
    }
}

/// Seconds with or without decimals; a day that never ends is none.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_nonsense_is_none() {
        let all = |limit: &'static str, after: &'static str| {
            Told::read(move |name| match name {
                "x-ratelimit-limit" => Some(limit),
                "x-ratelimit-remaining" => Some("3"),
                "x-ratelimit-reset-after" => Some(after),
                "x-ratelimit-reset" => Some("1470173023.123"),
                _ => None,
            })
        };
        let told = all("5", "1.25").expect("complete");
        assert_eq!((told.limit, told.used(), told.reset_after), (5, 2, Duration::from_millis(1_250)));
        assert_eq!(told.reset, Some(Duration::from_secs_f64(1_470_173_023.123)));
        for (limit, after) in [("0", "1"), ("-5", "1"), ("5", "-1"), ("5", "NaN"), ("5", "inf"), ("x", "1")] {
            assert_eq!(all(limit, after), None, "{limit} {after}");
        }
        assert_eq!(Told::read(|_| None), None);
    }
}
