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
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    error: &'static str,
}

/// Statuses by hundreds; the first stands for everything else.
const STATUSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let answers: Family<StatusLabels, Counter> = Family::default();
        let counted = STATUSES.map(|status| answers.get_or_create(&StatusLabels { status }).clone());
        let metrics = Self { connections: Gauge::default(), answers: counted, errors: Family::default() };
        registry.register("holdfast_api_connections", "callers' connections", metrics.connections.clone());
        registry.register("holdfast_api_answers", "answers to callers, by hundreds of the status", answers);
        registry.register(
            "holdfast_api_errors",
            "answers that Holdfast made instead of Discord, by why",
            metrics.errors.clone(),
        );
        metrics
    }

    pub(crate) fn answered(&self, status: u16) {
        let counter = self.answers.get(usize::from(status / 100)).unwrap_or(&self.answers[0]);
        counter.inc();
    }

    pub(crate) fn failed(&self, error: &'static str) {
        self.errors.get_or_create(&ErrorLabels { error }).inc();
    }
}
