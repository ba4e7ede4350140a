// SPDX-License-Identifier: AGPL-3.0-only
//! What the service declares. In: settings, names. Out: exchanges, queues, bindings. Pure.
//!
//! A full queue refuses what comes, so that a publisher learns by a nack that a message won't be sent.

use holdfast_broker::{
    Binding, DeadLetter, Exchange, ExchangeKind, HEADER_WEBHOOK, Names, Overflow, Queue, QueueKind, Topology,
};

use crate::settings::Config;

/// Weight of a queue on the consistent-hash exchange: points on its ring. With too few the webhooks would be spread
/// unevenly.
const WEIGHT: &str = "20";

/// The exchanges that the service declares.
#[must_use]
pub fn exchanges(config: &Config, names: &Names) -> Vec<Exchange> {
    of(config, names).exchanges
}

/// Everything that these settings need.
pub(crate) fn of(config: &Config, names: &Names) -> Topology {
    let kind = ExchangeKind::ConsistentHash { header: HEADER_WEBHOOK.into() };
    let dead = Exchange::new(names.dead(), ExchangeKind::Topic);
    let mut topology =
        Topology { exchanges: vec![dead, Exchange::new(names.webhook(), kind)], ..Topology::default() };
    for number in 0..config.partitions {
        let name = names.webhook_queue(number);
        topology.bindings.push(Binding::queue(names.webhook(), name.clone(), WEIGHT));
        topology.queues.push(Queue {
            single_active_consumer: true,
            max_length: Some(config.queue.max_length),
            max_length_bytes: Some(config.queue.max_bytes),
            overflow: Overflow::RejectPublish,
            delivery_limit: Some(config.queue.delivery_limit),
            dead_letter: Some(DeadLetter { exchange: names.dead(), key: Some(name.clone()) }),
            ..Queue::new(name, QueueKind::Quorum)
        });
    }
    topology
}
