// SPDX-License-Identifier: AGPL-3.0-only
//! The queue of late replies, which outlives this process. In: what workers publish there. Out: each sent, or set aside with
//! the reason. Declares what the service has at the broker.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use holdfast_broker::{
    Broker, ConsumerOptions, DeadLetter, DeclareError, Delivery, Exchange, ExchangeKind, Names, Overflow,
    Queue, QueueKind, Refusal, Topology,
};
use holdfast_contract::v1::{Error, ErrorCode};
use holdfast_service::Condition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{DEFERRED_BY, Late, unix_ms};
use crate::interactions::outcome;
use crate::metrics::Metrics;
use crate::ticket::Ticket;
use crate::ways::amqp;

/// Late replies of the queue that are sent at once.
const AT_ONCE: usize = 64;

/// The queue holds a quarter of an hour's late replies of a bot with eleven a second; then the oldest go: they would have
/// been too late next.
const MAX_QUEUE: u64 = 10_000;
const MAX_QUEUE_BYTES: u64 = 256 << 20;
/// Crashes over one message before it is set aside.
const DELIVERY_LIMIT: u32 = 5;

/// Declares what the service needs of the broker, and sends what comes by the queue of late replies until it stops.
///
/// # Errors
/// The broker refuses the queue.
pub(crate) async fn run(
    broker: Broker,
    late: Arc<Late>,
    metrics: Arc<Metrics>,
    declared: Condition,
    stop: CancellationToken,
) -> Result<(), Refusal> {
    match broker.declare(&topology(broker.names())).await {
        Ok(()) => declared.ready(),
        Err(DeclareError::Refused(refusal)) => return Err(refusal),
        Err(DeclareError::Closed) => return Ok(()),
    }
    let queue = broker.names().late_interactions();
    let consumer =
        broker.consume(ConsumerOptions { prefetch: AT_ONCE as u16, ..ConsumerOptions::new(queue) });
    let deliveries = stream::unfold(consumer, async |mut consumer| Some((consumer.next().await?, consumer)));
    let (broker, late, metrics) = (&broker, &late, &metrics);
    let sending = deliveries.take_until(stop.cancelled_owned());
    sending.for_each_concurrent(AT_ONCE, |delivery| take(broker, late, metrics, delivery)).await;
    Ok(())
}

async fn take(broker: &Broker, late: &Late, metrics: &Metrics, delivery: Delivery) {
    let (reply, receipt) = amqp::read(broker, &delivery.message);
    let ticket = reply.as_ref().ok().and_then(|reply| Ticket::read(&reply.ticket));
    let became = match (reply, &ticket) {
        (Err(error), _) => Err(error),
        (Ok(_), None) => Err(Error::new(ErrorCode::Malformed, "the ticket isn't the interaction's")),
        (Ok(reply), Some(ticket)) => late.send(ticket, amqp::raw(reply), deferred(ticket)).await,
    };
    metrics.late(outcome(&became));
    let refused = became.as_ref().err().map(|error| error.code().name());
    if let Some(receipt) = receipt {
        receipt.send(ticket.map_or(0, |ticket| ticket.id), became).await;
    }
    match refused {
        None => delivery.ack(),
        Some(reason) => {
            debug!(reason, "a late reply is of no use");
            if let Err(error) = delivery.reject(reason).await {
                warn!(%error, "a late reply that is of no use could not be set aside");
            }
        }
    }
}

/// When Discord has the deferral, whichever process has sent it.
fn deferred(ticket: &Ticket) -> Instant {
    let left = (ticket.answer_by_ms).saturating_add(DEFERRED_BY.as_millis() as u64).saturating_sub(unix_ms());
    Instant::now() + Duration::from_millis(left)
}

/// The exchanges that the service declares.
#[must_use]
pub fn exchanges(names: &Names) -> Vec<Exchange> {
    topology(names).exchanges
}

/// What interactions need at the broker.
fn topology(names: &Names) -> Topology {
    let late = Queue {
        max_length: Some(MAX_QUEUE),
        max_length_bytes: Some(MAX_QUEUE_BYTES),
        overflow: Overflow::DropHead,
        delivery_limit: Some(DELIVERY_LIMIT),
        dead_letter: Some(DeadLetter { exchange: names.dead(), key: Some(names.late_interactions()) }),
        ..Queue::new(names.late_interactions(), QueueKind::Quorum)
    };
    Topology {
        exchanges: vec![
            Exchange::new(names.dead(), ExchangeKind::Topic),
            Exchange::new(names.interactions(), ExchangeKind::Topic),
            Exchange::new(names.webhook_events(), ExchangeKind::Topic),
            // For clients of the WebSocket front: where nobody has declared it, asking would end the channel for all.
            Exchange::new(names.commands(), ExchangeKind::Direct),
        ],
        queues: vec![late],
        bindings: Vec::new(),
    }
}
