// SPDX-License-Identifier: AGPL-3.0-only
//! Discord's limits, each of which a test may change.
//!
//! In: settings and IDENTIFYs with their time. Out: whether an IDENTIFY is in time and in budget.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What may vanish from a session's resume buffer before its bounds are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trim {
    /// Nothing, up to `resume_bytes`.
    None,
    /// All but the latest `resume_count` events of the last `resume_seconds`.
    #[default]
    Count,
    /// As `Count`, and at once whatever a heartbeat acknowledged.
    Heartbeat,
}

/// How the keys of a dispatch are written: JSON gives their order no meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// `t`, `s`, `op`, `d`, without spaces, as Discord does today.
    #[default]
    Discord,
    /// `op`, `d`, `s`, `t`.
    DataFirst,
    /// `d`, `t`, `op`, `s`, with spaces and line breaks.
    Spaced,
}

/// Limits and knobs of the simulated Discord. Defaults are Discord's where it documents them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Recommended shards (`/gateway/bot`), also the count that traffic is spread over.
    pub shards: u32,
    /// IDENTIFYs allowed per window, one per `shard % max_concurrency`.
    pub max_concurrency: u32,
    /// Length of that window: 5,000 ms (events/gateway, "Rate Limiting").
    pub identify_window_ms: u64,
    /// IDENTIFYs a day.
    pub identifies_total: u32,
    /// Of which are left; at 0 the next one ends all sessions, as Discord does.
    pub identifies_remaining: u32,
    /// How the resume buffer shrinks.
    pub resume_trim: Trim,
    /// How long a session without a connection lives, and how old a buffered event may become.
    pub resume_seconds: f64,
    /// How many events a session buffers.
    pub resume_count: usize,
    /// Hard bound of one session's buffer in every mode.
    pub resume_bytes: usize,
    /// Told in HELLO.
    pub heartbeat_interval_ms: u64,
    /// Payloads a client may send per connection in any 60 s.
    pub sends_per_minute: usize,
    /// Intents that this bot isn't approved for: 4014.
    pub disallowed_intents: u64,
    /// Guilds a shard may hold before 4011: 2,500 (events/gateway, "Sharding").
    pub guilds_per_shard: u32,
    /// A large bot's shard count has to be a multiple of `shards`: else 4010.
    pub large_bot: bool,
    /// Seconds between two requests for all members of a guild, else RATE_LIMITED; 0 turns that off.
    pub members_request_seconds: f64,
    /// Messages reach sessions without MESSAGE_CONTENT with their content fields empty, as Discord does; off, so
    /// that messages can be counted whatever the intents.
    pub strip_content: bool,
    /// Level of zlib-stream and payload compression.
    pub zlib_level: u32,
    /// Form of dispatches on connections that open from now on.
    pub keys: Keys,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shards: 1,
            max_concurrency: 1,
            identify_window_ms: 5_000,
            identifies_total: 1_000,
            identifies_remaining: 1_000,
            resume_trim: Trim::Count,
            resume_seconds: 180.0,
            // 16,384 events of about 1.2 KB are 20 MiB a session.
            resume_count: 16_384,
            resume_bytes: 256 << 20,
            heartbeat_interval_ms: 41_250,
            sends_per_minute: 120,
            disallowed_intents: 0,
            guilds_per_shard: 2_500,
            large_bot: false,
            members_request_seconds: 30.0,
            strip_content: false,
            zlib_level: 1,
            keys: Keys::Discord,
        }
    }
}

impl Limits {
    /// `resume_seconds` as a duration.
    pub(crate) fn resume_for(&self) -> Duration {
        Duration::try_from_secs_f64(self.resume_seconds).unwrap_or_default()
    }

    /// These limits with the fields that `change` names replaced.
    ///
    /// # Errors
    /// When a field is unknown or of the wrong type.
    pub fn changed(&self, change: &serde_json::Value) -> Result<Self, serde_json::Error> {
        let mut whole = serde_json::to_value(self)?;
        if let (Some(whole), Some(change)) = (whole.as_object_mut(), change.as_object()) {
            whole.extend(change.clone());
        }
        serde_json::from_value(whole)
    }
}

/// When each identify bucket was last used.
#[derive(Debug, Default)]
pub(crate) struct IdentifyGate(HashMap<u32, Instant>);

impl IdentifyGate {
    /// Takes the bucket of `shard`, or says that it is too early.
    pub(crate) fn enter(&mut self, shard: u32, limits: &Limits, now: Instant) -> bool {
        let bucket = shard % limits.max_concurrency.max(1);
        let window = Duration::from_millis(limits.identify_window_ms);
        match self.0.get(&bucket) {
            Some(last) if now.duration_since(*last) < window => false,
            _ => {
                self.0.insert(bucket, now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_opens_once_per_window_and_others_are_unaffected() {
        let (mut gate, start) = (IdentifyGate::default(), Instant::now());
        let limits = Limits { max_concurrency: 2, ..Limits::default() };
        assert!(gate.enter(0, &limits, start));
        assert!(gate.enter(1, &limits, start));
        assert!(!gate.enter(2, &limits, start + Duration::from_millis(4_999)));
        assert!(gate.enter(2, &limits, start + Duration::from_millis(5_000)));
    }

    #[test]
    fn a_change_names_only_known_limits() {
        let limits = Limits::default();
        let changed = limits.changed(&serde_json::json!({"shards": 16, "resume_trim": "heartbeat"})).unwrap();
        assert_eq!((changed.shards, changed.resume_trim), (16, Trim::Heartbeat));
        assert!(limits.changed(&serde_json::json!({"shard": 16})).is_err());
    }
}
