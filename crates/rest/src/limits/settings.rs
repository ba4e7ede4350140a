// SPDX-License-Identifier: AGPL-3.0-only
//! What the limits need to know: keys of `[api]`, which all services that send share. Defaults stand beside what they fill; docs/configuration.md has the arithmetic.

use std::ops::RangeInclusive;
use std::time::Duration;

use holdfast_service::settings::{Section, Value};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Bounds of what is sent, and of who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Requests a second of one token.
    pub global_limit: u32,
    /// Up to what that is raised by itself while Discord doesn't object; no more than it: not at all.
    pub global_limit_up_to: u32,
    /// How long a request may be on its way until Discord counts it. Its answer shows that it was counted; only one
    /// that takes longer is taken to have been.
    pub global_margin: Duration,
    /// Requests that may wait, of all tokens together.
    pub max_waiting: usize,
    /// How often a request is sent in all, if it gets 429s.
    pub attempts: u32,
    /// Invalid requests in ten minutes from which on requests are spaced, and at which none is sent.
    pub invalid_brake: u32,
    /// See `invalid_brake`.
    pub invalid_stop: u32,
    /// The name of the address from which Discord is reached: replicas that share the address share the name.
    pub egress: String,
    /// How long a token is refused that Discord doesn't know.
    pub token_refused_for: Duration,
    /// How long a webhook is refused that Discord doesn't know.
    pub webhook_gone_for: Duration,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            global_limit: 50,
            global_limit_up_to: 50,
            // Five times a usual way; a busy machine was seen to take 150 ms.
            global_margin: Duration::from_millis(250),
            // × about 16 KiB of a connection that waits: 256 MiB at worst.
            max_waiting: 16_384,
            attempts: 5,
            invalid_brake: 8_000,
            invalid_stop: 9_500,
            egress: "egress".to_owned(),
            token_refused_for: Duration::from_secs(300),
            webhook_gone_for: Duration::from_secs(3600),
        }
    }
}

impl LimitSettings {
    /// Reads the keys of the section `[api]` that are about limits.
    #[must_use]
    pub fn read(api: &Section<'_>) -> Self {
        let default = Self::default();
        let number = |key, default: u32, range: RangeInclusive<u64>| {
            u32::try_from(api.integer(key, u64::from(default), range)).unwrap_or(u32::MAX)
        };
        let invalid_brake = number("invalid_brake", default.invalid_brake, 1..=9_999);
        let invalid_stop = number("invalid_stop", default.invalid_stop, 2..=10_000);
        if invalid_brake >= invalid_stop {
            let what = format!("has to be less than invalid_stop, which is {invalid_stop}");
            api.problem("invalid_brake", what);
        }
        let waiting = api.integer("max_waiting", default.max_waiting as u64, 1..=1_000_000);
        let up_to_a_day = Duration::ZERO..=DAY;
        Self {
            global_limit: number("global_limit", default.global_limit, 1..=100_000),
            global_limit_up_to: number("global_limit_up_to", default.global_limit_up_to, 1..=100_000),
            global_margin: api.duration("global_margin", default.global_margin, Duration::ZERO..=SECOND),
            max_waiting: usize::try_from(waiting).unwrap_or(usize::MAX),
            attempts: number("attempts", default.attempts, 1..=100),
            invalid_brake,
            invalid_stop,
            egress: api.custom(
                "egress",
                default.egress,
                "letters, digits, \"-\", \"_\" or \".\"",
                egress,
                |name| format!("\"{name}\""),
            ),
            token_refused_for: api.duration(
                "token_refused_for",
                default.token_refused_for,
                up_to_a_day.clone(),
            ),
            webhook_gone_for: api.duration("webhook_gone_for", default.webhook_gone_for, up_to_a_day),
        }
    }
}

/// A name that may stand in a key of the store.
fn egress(value: &Value) -> Option<String> {
    let Value::Text(name) = value else { return None };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!name.is_empty() && name.len() <= 64 && name.bytes().all(fits)).then(|| name.clone())
}
