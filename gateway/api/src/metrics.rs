// SPDX-License-Identifier: AGPL-3.0-only
//! What `api` counts about its callers, by the names that docs/contract.md gives. What it sends to Discord is counted
//! by `holdfast_rest`.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// All counters of one `api` service.
pub(crate) struct Metrics {
    pub(crate) connections: Gauge<i64, AtomicI64>,
    /// By hundreds of the status.
    answers: [Counter; 6],
    errors: Family<ErrorLabels, Counter>,
    shared: Family<SharedLabels, Counter>,
    amqp: Family<OutcomeLabels, Counter>,
    pub(crate) amqp_in_flight: Gauge<i64, AtomicI64>,
    pub(crate) amqp_repeated: Counter,
    pub(crate) uploads_bytes: Gauge<i64, AtomicI64>,
    pub(crate) replicas: Gauge<i64, AtomicI64>,
    relayed: Family<OutcomeLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    error: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SharedLabels {
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Statuses by hundreds; the first stands for everything else.
const STATUSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let answers: Family<StatusLabels, Counter> = Family::default();
        let counted = STATUSES.map(|status| answers.get_or_create(&StatusLabels { status }).clone());
        let metrics = Self {
            connections: Gauge::default(),
            answers: counted,
            errors: Family::default(),
            shared: Family::default(),
            amqp: Family::default(),
            amqp_in_flight: Gauge::default(),
            amqp_repeated: Counter::default(),
            uploads_bytes: Gauge::default(),
            replicas: Gauge::default(),
            relayed: Family::default(),
        };
        registry.register("holdfast_api_connections", "callers' connections", metrics.connections.clone());
        registry.register("holdfast_api_answers", "answers to callers, by hundreds of the status", answers);
        registry.register(
            "holdfast_api_errors",
            "answers that Holdfast made instead of Discord, by why",
            metrics.errors.clone(),
        );
        let help = "answers that several callers had, by what they shared";
        registry.register("holdfast_api_shared", help, metrics.shared.clone());
        registry.register("holdfast_api_amqp_requests", "requests by AMQP that ended", metrics.amqp.clone());
        let help = "requests by AMQP that are taken in and not yet answered";
        registry.register("holdfast_api_amqp_in_flight", help, metrics.amqp_in_flight.clone());
        let help = "requests by AMQP that were not sent because of their idempotency key";
        registry.register("holdfast_api_amqp_repeated", help, metrics.amqp_repeated.clone());
        let help = "replicas that lived when the store was heard last, this one among them";
        registry.register("holdfast_api_replicas", help, metrics.replicas.clone());
        let help = "requests sent on to the replica that their account belongs to, while the store is away";
        registry.register("holdfast_api_relayed", help, metrics.relayed.clone());
        registry.register(
            "holdfast_api_uploads_bytes",
            "uploads that are kept",
            metrics.uploads_bytes.clone(),
        );
        metrics
    }

    pub(crate) fn answered(&self, status: u16) {
        let counter = self.answers.get(usize::from(status / 100)).unwrap_or(&self.answers[0]);
        counter.inc();
    }

    /// An answer was had without a request of its own.
    pub(crate) fn shared(&self, by: &'static str) {
        self.shared.get_or_create(&SharedLabels { by }).inc();
    }

    /// A request was sent on to another replica.
    pub(crate) fn relayed(&self, outcome: &'static str) {
        self.relayed.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A request by AMQP has ended: with a status by hundreds, or an error code's name.
    pub(crate) fn ended(&self, outcome: &'static str) {
        self.amqp.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A status by hundreds.
    pub(crate) fn hundreds(status: u16) -> &'static str {
        STATUSES.get(usize::from(status / 100)).copied().unwrap_or(STATUSES[0])
    }

    pub(crate) fn failed(&self, error: &'static str) {
        self.errors.get_or_create(&ErrorLabels { error }).inc();
    }
}
