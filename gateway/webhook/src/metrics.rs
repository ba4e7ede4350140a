// SPDX-License-Identifier: AGPL-3.0-only
//! What `webhook` counts, by the names that docs/contract.md gives. What it sends to Discord is counted by
//! `holdfast_rest`.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// All counters of one `webhook` service.
#[derive(Debug)]
pub(crate) struct Metrics {
    messages: Family<Labels, Counter>,
    pub(crate) sending: Gauge<i64, AtomicI64>,
    pub(crate) parked: Gauge<i64, AtomicI64>,
    pub(crate) parked_bytes: Gauge<i64, AtomicI64>,
    pub(crate) repeated: Counter,
    pub(crate) retried: Counter,
    pub(crate) replies_undelivered: Counter,
    pub(crate) seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    outcome: &'static str,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        // 50 ms to ten minutes: from what Discord needs to what a message may wait.
        let seconds = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0];
        let metrics = Self {
            messages: Family::default(),
            sending: Gauge::default(),
            parked: Gauge::default(),
            parked_bytes: Gauge::default(),
            repeated: Counter::default(),
            retried: Counter::default(),
            replies_undelivered: Counter::default(),
            seconds: Histogram::new(seconds),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("holdfast_webhook_messages", "messages that are over", self.messages.clone());
        let help = "messages under way: one of each webhook";
        registry.register("holdfast_webhook_sending", help, self.sending.clone());
        let help = "messages that wait for others of their webhook";
        registry.register("holdfast_webhook_parked", help, self.parked.clone());
        registry.register("holdfast_webhook_parked_bytes", "their bytes", self.parked_bytes.clone());
        let help = "messages that had been done before, by their idempotency key";
        registry.register("holdfast_webhook_repeated", help, self.repeated.clone());
        registry.register("holdfast_webhook_retried", "messages sent once more", self.retried.clone());
        let help = "replies that did not arrive";
        registry.register("holdfast_webhook_replies_undelivered", help, self.replies_undelivered.clone());
        let help = "from taking a message in to its end";
        registry.register("holdfast_webhook_seconds", help, self.seconds.clone());
    }

    /// A message is over.
    pub(crate) fn over(&self, operation: &'static str, outcome: &'static str) {
        self.messages.get_or_create(&Labels { operation, outcome }).inc();
    }
}
