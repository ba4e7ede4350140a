// SPDX-License-Identifier: AGPL-3.0-only
//! What is counted about requests to Discord, by the names that docs/contract.md gives. Labels are routes' templates
//! and short lists, never paths.

use std::sync::OnceLock;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use holdfast_discord::rest::{RouteId, Scope};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its bucket.
    Bucket,
    /// The token's global limit.
    Global,
    /// A limit that everybody shares.
    Shared,
    /// The guard against the ban.
    Guard,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScopeLabels {
    scope: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Counters of all requests of a process.
#[derive(Debug)]
pub struct Metrics {
    queue: Family<CauseLabels, Histogram, fn() -> Histogram>,
    upstream: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// Histograms that were looked up before, by route.
    known: Vec<OnceLock<Histogram>>,
    fill: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// Histograms that were looked up before, by route.
    known_fill: Vec<OnceLock<Histogram>>,
    limited: Family<ScopeLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    pub(crate) retried: Counter,
    pub(super) waiting: Gauge<i64, AtomicI64>,
    pub(super) in_flight: Gauge<i64, AtomicI64>,
    pub(super) invalid: Gauge<i64, AtomicI64>,
    pub(super) left: Counter,
    pub(super) store_connected: Gauge<i64, AtomicI64>,
    pub(crate) unreachable: Counter,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        // 1 ms to 60 s: from what Discord needs to what a caller may wait.
        fn seconds() -> Histogram {
            Histogram::new([0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0])
        }
        fn shares() -> Histogram {
            Histogram::new([0.25, 0.5, 0.75, 0.9, 0.999, 1.0])
        }
        let metrics = Self {
            queue: Family::new_with_constructor(seconds),
            upstream: Family::new_with_constructor(seconds),
            known: (0..RouteId::count()).map(|_| OnceLock::new()).collect(),
            fill: Family::new_with_constructor(shares),
            known_fill: (0..RouteId::count()).map(|_| OnceLock::new()).collect(),
            limited: Family::default(),
            refused: Family::default(),
            retried: Counter::default(),
            waiting: Gauge::default(),
            in_flight: Gauge::default(),
            invalid: Gauge::default(),
            left: Counter::default(),
            store_connected: Gauge::default(),
            unreachable: Counter::default(),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "holdfast_rest_queue_seconds",
            "time that requests waited, by what for",
            self.queue.clone(),
        );
        let help = "from sending a request to the head of Discord's answer";
        registry.register("holdfast_rest_upstream_seconds", help, self.upstream.clone());
        let help = "share of its bucket that was used, as an answer told it";
        registry.register("holdfast_rest_bucket_fill", help, self.fill.clone());
        registry.register("holdfast_rest_limited", "429s from Discord, by scope", self.limited.clone());
        registry.register("holdfast_rest_refused", "requests not sent, by reason", self.refused.clone());
        registry.register("holdfast_rest_retried", "requests sent once more", self.retried.clone());
        registry.register("holdfast_rest_waiting", "requests that wait", self.waiting.clone());
        let help = "requests that Discord hasn't answered";
        registry.register("holdfast_rest_in_flight", help, self.in_flight.clone());
        let help = "answers of 401, 403 and 429 in the last ten minutes";
        registry.register("holdfast_rest_invalid", help, self.invalid.clone());
        let help = "requests whose caller left before they were sent";
        registry.register("holdfast_rest_left", help, self.left.clone());
        let help = "1 while replicas share the account of the limits";
        registry.register("holdfast_rest_store_connected", help, self.store_connected.clone());
        let help = "requests that Discord didn't answer";
        registry.register("holdfast_rest_unreachable", help, self.unreachable.clone());
    }

    pub(super) fn waited(&self, cause: Cause, time: Duration) {
        let cause = match cause {
            Cause::Bucket => "bucket",
            Cause::Global => "global",
            Cause::Shared => "shared",
            Cause::Guard => "guard",
        };
        self.queue.get_or_create(&CauseLabels { cause }).observe(time.as_secs_f64());
    }

    pub(super) fn answered(&self, route: RouteId, time: Duration) {
        let Some(known) = self.known.get(usize::from(route.0)) else { return };
        let look_up = || self.upstream.get_or_create(&RouteLabels { route: route.route().name }).clone();
        known.get_or_init(look_up).observe(time.as_secs_f64());
    }

    /// An answer told that so much of its bucket is used.
    pub(super) fn filled(&self, route: RouteId, used: u32, limit: u32) {
        let Some(known) = self.known_fill.get(usize::from(route.0)).filter(|_| limit > 0) else { return };
        let look_up = || self.fill.get_or_create(&RouteLabels { route: route.route().name }).clone();
        known.get_or_init(look_up).observe(f64::from(used.min(limit)) / f64::from(limit));
    }

    pub(super) fn limited(&self, scope: Option<Scope>) {
        let scope = match scope {
            Some(Scope::User) => "user",
            Some(Scope::Global) => "global",
            Some(Scope::Shared) => "shared",
            None => "ban",
        };
        self.limited.get_or_create(&ScopeLabels { scope }).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }
}
