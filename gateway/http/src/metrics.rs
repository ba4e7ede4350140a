// SPDX-License-Identifier: AGPL-3.0-only
//! What `http` counts, by the names that docs/contract.md gives, and how much of it Discord takes for failures.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tracing::warn;

/// The time that Discord gives ("Interaction Callback", "Responding to Events").
pub(crate) const DISCORD_WAITS: Duration = Duration::from_secs(3);

/// From a fast worker's millisecond to what is too late.
const SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0];

/// Failures are looked at over so many steps of so long: ten minutes.
const STEPS: usize = 60;
const STEP: Duration = Duration::from_secs(10);
/// Fewer requests say nothing.
const ENOUGH: u64 = 20;
/// Discord doesn't say how many failures it takes. One in twenty is a good many.
const MANY: f64 = 0.05;
/// So often that is said.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// All metrics of one `http` service.
pub(crate) struct Metrics {
    pub(crate) connections: Gauge<i64, AtomicI64>,
    in_flight: Gauge<i64, AtomicI64>,
    body_bytes: Gauge<i64, AtomicI64>,
    pub(crate) waiting_late: Gauge<i64, AtomicI64>,
    interactions: Family<KindOutcome, Counter>,
    deferred: Family<Cause, Counter>,
    late: Family<Outcome, Counter>,
    refused: Family<Reason, Counter>,
    events: Family<Outcome, Counter>,
    answer_seconds: Histogram,
    failure_ratio: Gauge<f64, std::sync::atomic::AtomicU64>,
    share: Mutex<Share>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindOutcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            body_bytes: Gauge::default(),
            waiting_late: Gauge::default(),
            interactions: Family::default(),
            deferred: Family::default(),
            late: Family::default(),
            refused: Family::default(),
            events: Family::default(),
            answer_seconds: Histogram::new(SECONDS),
            failure_ratio: Gauge::default(),
            share: Mutex::new(Share::new(Instant::now())),
        };
        let Self { connections, in_flight, waiting_late, interactions, deferred, late, .. } = &metrics;
        let Self { body_bytes, refused, events, answer_seconds, failure_ratio, .. } = &metrics;
        registry.register("holdfast_http_connections", "connections of Discord's", connections.clone());
        registry.register("holdfast_http_in_flight", "requests being answered", in_flight.clone());
        let help = "memory for bodies of requests being answered";
        registry.register("holdfast_http_body_bytes", help, body_bytes.clone());
        let help = "deferred interactions whose reply is waited for";
        registry.register("holdfast_http_waiting_late", help, waiting_late.clone());
        let help = "interactions by kind and how they were answered";
        registry.register("holdfast_http_interactions", help, interactions.clone());
        let help = "interactions that no worker answered in time, by why";
        registry.register("holdfast_http_deferred", help, deferred.clone());
        registry.register(
            "holdfast_http_late",
            "replies after the deferral, by what became of them",
            late.clone(),
        );
        registry.register("holdfast_http_refused", "requests that were not taken, by why", refused.clone());
        registry.register("holdfast_http_events", "webhook events by outcome", events.clone());
        let help = "from a request of Discord's to its answer";
        registry.register("holdfast_http_answer_seconds", help, answer_seconds.clone());
        let help = "part of the last ten minutes' requests that Discord takes for failed";
        registry.register("holdfast_http_failure_ratio", help, failure_ratio.clone());
        metrics
    }

    pub(crate) fn interaction(&self, kind: &'static str, outcome: &'static str) {
        self.interactions.get_or_create(&KindOutcome { kind, outcome }).inc();
    }

    pub(crate) fn deferred(&self, cause: &'static str) {
        self.deferred.get_or_create(&Cause { cause }).inc();
    }

    pub(crate) fn late(&self, outcome: &'static str) {
        self.late.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&Outcome { outcome }).inc();
    }

    /// A request that Discord has signed is being answered.
    pub(crate) fn answering(self: &Arc<Self>, received: Instant) -> Answering {
        Answering { metrics: Arc::clone(self), received, succeeded: Some(false) }
    }

    /// It is answered. Discord stops calling whom it has too many failures of.
    fn answered(&self, took: Duration, succeeded: bool) {
        self.answer_seconds.observe(took.as_secs_f64());
        let failed = !succeeded || took > DISCORD_WAITS;
        let mut share = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        let ratio = share.count(Instant::now(), failed);
        self.failure_ratio.set(ratio);
        if share.is_to_be_said(Instant::now(), ratio) {
            drop(share);
            warn!(
                percent = (ratio * 100.0).round(),
                "of Discord's requests fail, or are answered too late: it removes the address if that goes on. Are \
                 workers there, and fast enough? Is this clock right?"
            );
        }
    }
}

/// A request that Discord has signed. Dropped unanswered, Discord has left, and takes it for failed.
pub(crate) struct Answering {
    metrics: Arc<Metrics>,
    received: Instant,
    /// `None`: it isn't Discord's after all.
    succeeded: Option<bool>,
}

impl Answering {
    pub(crate) fn answered(mut self, succeeded: bool) {
        self.succeeded = Some(succeeded);
    }

    /// Somebody else has recorded it.
    pub(crate) fn forget(mut self) {
        self.succeeded = None;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(succeeded) = self.succeeded {
            self.metrics.answered(self.received.elapsed(), succeeded);
        }
    }
}

/// One request that is being answered, for as long as its caller waits.
pub(crate) struct InFlight(Gauge<i64, AtomicI64>);

impl InFlight {
    pub(crate) fn begin(metrics: &Metrics) -> Self {
        metrics.in_flight.inc();
        Self(metrics.in_flight.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Memory for bodies is counted in so many bytes.
pub(crate) const MEMORY_UNIT: usize = 1 << 10;

/// Memory for one body as it comes, as long as its request is being answered.
pub(crate) struct Reserved<'a> {
    gauge: Gauge<i64, AtomicI64>,
    all: &'a Semaphore,
    units: usize,
    permits: Option<SemaphorePermit<'a>>,
}

impl<'a> Reserved<'a> {
    /// None so far, of `all`.
    pub(crate) fn new(metrics: &Metrics, all: &'a Semaphore) -> Self {
        Self { gauge: metrics.body_bytes.clone(), all, units: 0, permits: None }
    }

    /// It has so many bytes by now. False: there is no room for them.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.div_ceil(MEMORY_UNIT).saturating_sub(self.units);
        let Ok(permits) = self.all.try_acquire_many(u32::try_from(more).unwrap_or(u32::MAX)) else {
            return false;
        };
        match &mut self.permits {
            Some(held) => held.merge(permits),
            None => self.permits = Some(permits),
        }
        self.units += more;
        self.gauge.inc_by(in_bytes(more));
        true
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.gauge.dec_by(in_bytes(self.units));
    }
}

fn in_bytes(units: usize) -> i64 {
    i64::try_from(units * MEMORY_UNIT).unwrap_or(i64::MAX)
}

/// Requests and failures of the last ten minutes.
struct Share {
    begun: Instant,
    /// Requests and failures by step; the step that they are of, from the beginning.
    steps: [(u64, u64, u64); STEPS],
    said: Option<Instant>,
}

impl Share {
    fn new(begun: Instant) -> Self {
        Self { begun, steps: [(0, 0, 0); STEPS], said: None }
    }

    /// Counts one; the part of failures since.
    fn count(&mut self, now: Instant, failed: bool) -> f64 {
        let step = (now - self.begun).as_secs() / STEP.as_secs();
        let place = &mut self.steps[usize::try_from(step).unwrap_or(0) % STEPS];
        if place.2 != step {
            *place = (0, 0, step);
        }
        place.0 += 1;
        place.1 += u64::from(failed);
        let oldest = (step + 1).saturating_sub(STEPS as u64);
        let recent = self.steps.iter().filter(|(_, _, of)| *of >= oldest);
        let (all, failed) = recent.fold((0, 0), |(all, failed), step| (all + step.0, failed + step.1));
        if all < ENOUGH { 0.0 } else { failed as f64 / all as f64 }
    }

    fn is_to_be_said(&mut self, now: Instant, ratio: f64) -> bool {
        let is = ratio >= MANY && self.said.is_none_or(|said| now - said >= WARN_EVERY);
        if is {
            self.said = Some(now);
        }
        is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_failures_is_of_the_last_ten_minutes() {
        let begun = Instant::now();
        let mut share = Share::new(begun);
        let at = |seconds| begun + Duration::from_secs(seconds);
        for _ in 0..19 {
            assert!(share.count(at(1), true).abs() < f64::EPSILON, "too few say nothing");
        }
        assert!((share.count(at(1), true) - 1.0).abs() < f64::EPSILON);
        for _ in 0..20 {
            share.count(at(300), false);
        }
        assert!((share.count(at(599), false) - 20.0 / 41.0).abs() < 1e-9);
        assert!(share.count(at(605), false).abs() < f64::EPSILON, "the first step is over");
        assert!(share.is_to_be_said(at(605), 0.05));
        assert!(!share.is_to_be_said(at(664), 1.0));
        assert!(share.is_to_be_said(at(665), 1.0));
        assert!(!share.is_to_be_said(at(800), 0.04));
    }
}
