// SPDX-License-Identifier: AGPL-3.0-only
//! Discord's REST limits (topics/rate-limits), as its servers count them.
//!
//! In: a request's route, resource and body, with the time. Out: pass, 429 or ban, and the headers. Pure; the
//! middleware of `rest` asks it and carries out what it says.
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Answers of 401, 403 and 429 are counted over this long.
const INVALID_WINDOW: Duration = Duration::from_secs(600);
/// More counters than this, and those that are full again are dropped.
const COUNTERS: usize = 20_000;

/// How a limit comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refill {
    /// All at once, a window after the first request.
    #[default]
    Fixed,
    /// One place after another, evenly.
    Steady,
}

/// A limit within another, which no header tells: changing a channel's name twice in ten minutes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubLimit {
    /// Counts only requests whose JSON body has one of these keys.
    pub keys: Vec<String>,
    /// Requests per window.
    pub limit: u32,
    /// The window.
    pub seconds: f64,
}

/// A bucket and the routes that are in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// `POST /channels/{channel_id}/messages`, as in `routes.txt`; those listed share one count.
    pub routes: Vec<String>,
    /// What X-RateLimit-Bucket says; buckets that count apart may say the same.
    pub hash: String,
    /// Requests per window and top-level resource.
    pub limit: u32,
    /// The window.
    pub seconds: f64,
    /// How it comes back.
    #[serde(default)]
    pub refill: Refill,
    /// Limited for everybody: 429s have the scope `shared` and don't count as invalid.
    #[serde(default)]
    pub shared: bool,
    /// Limits that headers don't tell.
    #[serde(default)]
    pub sub_limits: Vec<SubLimit>,
}

/// All of REST's limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestLimits {
    /// Requests per second in all, without those of interactions and webhooks.
    pub global_per_second: u32,
    /// Whether that is a fixed window or a rolling one: Discord doesn't say.
    pub global_refill: Refill,
    /// 401, 403 and 429 in ten minutes until the ban page comes.
    pub invalid_requests: usize,
    /// Of routes in no bucket below; each counts alone.
    pub default_limit: u32,
    /// The window of those.
    pub default_seconds: f64,
    /// How long a request and its answer are on their way together: at least and at most, in milliseconds.
    pub latency_ms: [u64; 2],
    /// Buckets with limits of their own.
    pub buckets: Vec<Bucket>,
}

impl Default for RestLimits {
    fn default() -> Self {
        let bucket = |routes: &[&str], hash: &str, limit, seconds, refill| Bucket {
            routes: routes.iter().map(|route| (*route).to_owned()).collect(),
            hash: hash.to_owned(),
            limit,
            seconds,
            refill,
            shared: false,
            sub_limits: Vec::new(),
        };
        let message = "80c17d2f203122d936070c88c8d10f33";
        let mut channel =
            bucket(&["PATCH /channels/{channel_id}"], "90d8f5a1b3c24e6f", 5, 5.0, Refill::Steady);
        let keys = vec!["name".to_owned(), "topic".to_owned()];
        channel.sub_limits.push(SubLimit { keys, limit: 2, seconds: 600.0 });
        Self {
            global_per_second: 50,
            global_refill: Refill::Fixed,
            invalid_requests: 10_000,
            // Generous: most routes' limits aren't known, and tests start clients more often than anybody.
            default_limit: 50,
            default_seconds: 1.0,
            latency_ms: [0, 0],
            buckets: vec![
                bucket(&["POST /channels/{channel_id}/messages"], message, 5, 5.0, Refill::Steady),
                bucket(
                    &["PATCH /channels/{channel_id}/messages/{message_id}"],
                    message,
                    5,
                    5.0,
                    Refill::Steady,
                ),
                bucket(
                    &[
                        "PUT /channels/{channel_id}/messages/{message_id}/reactions/{emoji_name}/@me",
                        "DELETE /channels/{channel_id}/messages/{message_id}/reactions/{emoji_name}/@me",
                    ],
                    "49d0e1c7a8b2f356",
                    1,
                    0.25,
                    Refill::Steady,
                ),
                bucket(
                    &["PUT /guilds/{guild_id}/members/{user_id}/roles/{role_id}"],
                    "5fb2c94e1d07a683",
                    10,
                    10.0,
                    Refill::Fixed,
                ),
                channel,
            ],
        }
    }
}

/// What the headers of an answer say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) hash: String,
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    pub(crate) reset_after: f64,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Pass(Option<Told>),
    Limited {
        retry_after: f64,
        scope: &'static str,
        told: Option<Told>,
    },
    /// The address is banned for so long.
    Banned(f64),
}

/// A count that comes back.
#[derive(Clone, Copy, Debug)]
struct Counter {
    refill: Refill,
    used: u32,
    /// Fixed: the window's end. Steady: when all places are free again.
    full_at: Instant,
}

impl Counter {
    /// Takes a place: seconds until one is free if there is none.
    fn take(&mut self, limit: u32, seconds: f64, now: Instant) -> Result<(), f64> {
        let limit = limit.max(1);
        match self.refill {
            Refill::Fixed => {
                if now >= self.full_at {
                    (self.used, self.full_at) = (0, now + duration(seconds));
                }
                if self.used >= limit {
                    return Err((self.full_at - now).as_secs_f64());
                }
                self.used += 1;
            }
            Refill::Steady => {
                let place = seconds / f64::from(limit);
                let taken = self.full_at.saturating_duration_since(now).as_secs_f64();
                if taken + place > seconds + 1e-9 {
                    return Err(taken + place - seconds);
                }
                self.full_at = now.max(self.full_at) + duration(place);
            }
        }
        Ok(())
    }

    fn remaining(&self, limit: u32, seconds: f64, now: Instant) -> u32 {
        match self.refill {
            Refill::Fixed => limit.saturating_sub(self.used),
            Refill::Steady => {
                let taken = self.full_at.saturating_duration_since(now).as_secs_f64();
                let places = (taken / seconds * f64::from(limit) - 1e-9).ceil().max(0.0);
                (0..limit).rev().find(|left| f64::from(limit - left) >= places).unwrap_or(0)
            }
        }
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// All counts.
#[derive(Debug)]
pub(crate) struct Limiter {
    pub(crate) limits: RestLimits,
    counters: HashMap<String, Counter>,
    /// By token, "" without one.
    recent: HashMap<String, VecDeque<Instant>>,
    invalid: VecDeque<Instant>,
}

impl Limiter {
    pub(crate) fn new(limits: RestLimits) -> Self {
        Self { limits, counters: HashMap::new(), recent: HashMap::new(), invalid: VecDeque::new() }
    }

    /// Judges a request of `token` to `route` (`METHOD /template`) about the top-level resource `major`. Where a token is
    /// in the path, whose the other one is doesn't matter.
    pub(crate) fn judge(
        &mut self,
        token: &str,
        route: &str,
        major: &str,
        body: &Value,
        now: Instant,
    ) -> Verdict {
        let token = if is_open(route) { "" } else { token };
        while self.invalid.front().is_some_and(|at| now.duration_since(*at) >= INVALID_WINDOW) {
            self.invalid.pop_front();
        }
        if self.invalid.len() >= self.limits.invalid_requests {
            let first = self.invalid.front().map_or(Duration::ZERO, |at| now.duration_since(*at));
            return Verdict::Banned((INVALID_WINDOW - first).as_secs_f64());
        }
        if let Some(retry_after) = self.global(token, route, now) {
            return Verdict::Limited { retry_after, scope: "global", told: None };
        }
        self.bucket(token, route, major, body, now)
    }

    /// Counts an answer towards the ban.
    pub(crate) fn note_invalid(&mut self, now: Instant) {
        self.invalid.push_back(now);
    }

    /// Seconds to wait for the global limit, if it is reached. Interactions and webhooks with a token aren't bound
    /// to it.
    fn global(&mut self, token: &str, route: &str, now: Instant) -> Option<f64> {
        if is_open(route) {
            return None;
        }
        let recent = self.recent.entry(token.to_owned()).or_default();
        let second = Duration::from_secs(1);
        let stale = |first: &Instant| now.duration_since(*first) >= second;
        match self.limits.global_refill {
            Refill::Fixed => {
                if recent.front().is_some_and(stale) {
                    recent.clear();
                }
            }
            Refill::Steady => {
                while recent.front().is_some_and(stale) {
                    recent.pop_front();
                }
            }
        }
        if recent.len() < self.limits.global_per_second as usize {
            recent.push_back(now);
            return None;
        }
        recent.front().map(|first| (second - now.duration_since(*first)).as_secs_f64())
    }

    fn bucket(&mut self, token: &str, route: &str, major: &str, body: &Value, now: Instant) -> Verdict {
        let found =
            self.limits.buckets.iter().find(|bucket| bucket.routes.iter().any(|listed| listed == route));
        let bucket = found.cloned().unwrap_or_else(|| Bucket {
            routes: vec![route.to_owned()],
            hash: hash(route),
            limit: self.limits.default_limit,
            seconds: self.limits.default_seconds,
            refill: Refill::Fixed,
            shared: false,
            sub_limits: Vec::new(),
        });
        let name = format!("{token} {} {major}", bucket.routes[0]);
        let taken = self.counter(&name, bucket.refill, now).take(bucket.limit, bucket.seconds, now);
        let counter = *self.counter(&name, bucket.refill, now);
        let told = Told {
            hash: bucket.hash.clone(),
            limit: bucket.limit,
            remaining: counter.remaining(bucket.limit, bucket.seconds, now),
            reset_after: counter.full_at.saturating_duration_since(now).as_secs_f64(),
        };
        let scope = if bucket.shared { "shared" } else { "user" };
        if let Err(retry_after) = taken {
            return Verdict::Limited { retry_after, scope, told: Some(told) };
        }
        for (at, sub) in bucket.sub_limits.iter().enumerate() {
            if !sub.keys.iter().any(|key| body.get(key).is_some()) {
                continue;
            }
            let counter = self.counter(&format!("{name} sub {at}"), Refill::Fixed, now);
            if let Err(retry_after) = counter.take(sub.limit, sub.seconds, now) {
                return Verdict::Limited { retry_after, scope, told: Some(told) };
            }
        }
        Verdict::Pass(Some(told))
    }

    fn counter(&mut self, name: &str, refill: Refill, now: Instant) -> &mut Counter {
        if self.counters.len() > COUNTERS {
            self.counters.retain(|_, counter| counter.full_at > now);
        }
        self.counters.entry(name.to_owned()).or_insert(Counter { refill, used: 0, full_at: now })
    }
}

/// Whether the path holds the credential.
fn is_open(route: &str) -> bool {
    route.contains("{interaction_token}") || route.contains("{webhook_token}")
}

/// A bucket's name for routes without one of their own: FNV-1a, in hexadecimal.
fn hash(route: &str) -> String {
    let step = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let half = |seed: u64| route.bytes().fold(seed, step);
    format!("{:016x}{:016x}", half(0xcbf2_9ce4_8422_2325), half(0x8422_2325_cbf2_9ce4))
}

/// All operations of Discord's own description of its API, as `METHOD /template`.
pub fn operations() -> impl Iterator<Item = &'static str> {
    include_str!("routes.txt").lines()
}

/// The route of `routes.txt` that a path belongs to, and its top-level resource: channel, guild, webhook, or
/// webhook and token; each interaction counts by itself.
pub(crate) fn route(method: &str, path: &str) -> Option<(&'static str, String)> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let fits = |template: &str| {
        let wanted = template.trim_matches('/').split('/');
        wanted.clone().count() == parts.len()
            && wanted.zip(&parts).all(|(wanted, part)| wanted.starts_with('{') || wanted == *part)
    };
    let all = operations().filter_map(|line| line.split_once(' ').map(|pair| (line, pair)));
    let candidates = all.filter(|(_, (wanted, template))| *wanted == method && fits(template));
    // `/users/@me` before `/users/{user_id}`.
    let (line, (_, template)) = candidates.min_by_key(|(_, (_, template))| template.matches('{').count())?;
    let resource = match (parts.first(), template.contains("{webhook_token}")) {
        (Some(&"interactions"), _) | (Some(&"webhooks"), true) => {
            parts.get(1..3).unwrap_or_default().join("/")
        }
        (Some(&("channels" | "guilds" | "webhooks")), _) => {
            parts.get(1).copied().unwrap_or_default().to_owned()
        }
        _ => String::new(),
    };
    Some((line, resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOT: &str = "Bot t";
    const SEND: &str = "POST /channels/{channel_id}/messages";

    #[test]
    fn paths_find_their_route_and_resource() {
        assert_eq!(route("POST", "/channels/7/messages"), Some((SEND, "7".to_owned())));
        assert_eq!(route("GET", "/users/@me").map(|found| found.0), Some("GET /users/@me"));
        let (hook, resource) = route("POST", "/webhooks/1/token").unwrap();
        assert_eq!((hook, resource.as_str()), ("POST /webhooks/{webhook_id}/{webhook_token}", "1/token"));
        assert_eq!(route("GET", "/nowhere"), None);
    }

    #[test]
    fn a_steady_bucket_frees_one_place_after_another_and_counts_per_resource() {
        let (mut limiter, start) = (limiter(), Instant::now());
        for left in (0..5).rev() {
            assert_eq!(remaining(&limiter.judge(BOT, SEND, "7", &Value::Null, start)), Some(left));
        }
        let Verdict::Limited { retry_after, scope, .. } = limiter.judge(BOT, SEND, "7", &Value::Null, start)
        else {
            panic!("limited")
        };
        assert!((retry_after - 1.0).abs() < 1e-6 && scope == "user");
        assert_eq!(remaining(&limiter.judge(BOT, SEND, "8", &Value::Null, start)), Some(4));
        let later = start + Duration::from_millis(1_001);
        assert_eq!(remaining(&limiter.judge(BOT, SEND, "7", &Value::Null, later)), Some(0));
    }

    #[test]
    fn a_fixed_bucket_comes_back_as_a_whole() {
        let (mut limiter, start) = (limiter(), Instant::now());
        let role = "PUT /guilds/{guild_id}/members/{user_id}/roles/{role_id}";
        for _ in 0..10 {
            assert!(remaining(&limiter.judge(BOT, role, "1", &Value::Null, start)).is_some());
        }
        assert!(
            remaining(&limiter.judge(BOT, role, "1", &Value::Null, start + Duration::from_secs(9))).is_none()
        );
        assert_eq!(
            remaining(&limiter.judge(BOT, role, "1", &Value::Null, start + Duration::from_secs(10))),
            Some(9)
        );
    }

    #[test]
    fn a_sub_limit_is_told_only_by_the_429() {
        let (mut limiter, now) = (limiter(), Instant::now());
        let (patch, rename) = ("PATCH /channels/{channel_id}", serde_json::json!({"name": "x"}));
        assert!(remaining(&limiter.judge(BOT, patch, "1", &rename, now)).is_some());
        assert!(remaining(&limiter.judge(BOT, patch, "1", &rename, now)).is_some());
        let Verdict::Limited { retry_after, told, .. } = limiter.judge(BOT, patch, "1", &rename, now) else {
            panic!("limited")
        };
        assert!(retry_after > 599.0 && told.unwrap().remaining == 2);
        assert!(
            remaining(&limiter.judge(BOT, patch, "1", &serde_json::json!({"nsfw": true}), now)).is_some()
        );
    }

    #[test]
    fn the_global_limit_has_both_forms_and_spares_interactions() {
        for (refill, after_half) in [(Refill::Fixed, 50), (Refill::Steady, 25)] {
            let limits = RestLimits { global_refill: refill, default_limit: 1_000, ..RestLimits::default() };
            let (mut limiter, start) = (Limiter::new(limits), Instant::now());
            for n in 0..50 {
                let at = start + Duration::from_millis(if n < 25 { 0 } else { 900 });
                assert!(matches!(limiter.judge(BOT, "GET /gateway", "", &Value::Null, at), Verdict::Pass(_)));
            }
            let late = start + Duration::from_millis(950);
            assert!(matches!(
                limiter.judge(BOT, "GET /gateway", "", &Value::Null, late),
                Verdict::Limited { scope: "global", .. }
            ));
            let callback = "POST /interactions/{interaction_id}/{interaction_token}/callback";
            assert!(matches!(limiter.judge(BOT, callback, "", &Value::Null, late), Verdict::Pass(_)));
            let passed = (0..100)
                .filter(|_| {
                    let at = start + Duration::from_millis(1_001);
                    matches!(limiter.judge(BOT, "GET /gateway", "", &Value::Null, at), Verdict::Pass(_))
                })
                .count();
            assert_eq!(passed, after_half, "{refill:?}");
        }
    }

    #[test]
    fn too_many_invalid_requests_are_banned_until_the_oldest_are_ten_minutes_ago() {
        let limits = RestLimits { invalid_requests: 2, ..RestLimits::default() };
        let (mut limiter, start) = (Limiter::new(limits), Instant::now());
        limiter.note_invalid(start);
        limiter.note_invalid(start + Duration::from_secs(60));
        let late = start + Duration::from_secs(120);
        assert_eq!(limiter.judge(BOT, SEND, "1", &Value::Null, late), Verdict::Banned(480.0));
        let free = start + Duration::from_secs(600);
        assert!(matches!(limiter.judge(BOT, SEND, "1", &Value::Null, free), Verdict::Pass(_)));
    }

    #[test]
    fn each_token_has_limits_of_its_own_but_not_where_the_path_holds_the_credential() {
        let limits = RestLimits { global_per_second: 1, default_limit: 1, ..RestLimits::default() };
        let (mut limiter, now) = (Limiter::new(limits), Instant::now());
        let mut passes = |token: &str, route: &str| {
            matches!(limiter.judge(token, route, "1", &Value::Null, now), Verdict::Pass(_))
        };
        assert!(passes("Bot a", SEND) && passes("Bot b", SEND) && !passes("Bot a", SEND));
        let hook = "POST /webhooks/{webhook_id}/{webhook_token}";
        assert!(passes("Bot a", hook) && !passes("Bot b", hook) && !passes("", hook));
    }

    fn limiter() -> Limiter {
        Limiter::new(RestLimits::default())
    }

    fn remaining(verdict: &Verdict) -> Option<u32> {
        match verdict {
            Verdict::Pass(told) => told.as_ref().map(|told| told.remaining),
            _ => None,
        }
    }
}
