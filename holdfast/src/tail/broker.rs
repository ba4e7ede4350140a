// SPDX-License-Identifier: AGPL-3.0-only
//! Events from the broker: a queue of its own, which goes with the process, bound by the filter's keys. In: the
//! section `[broker]`. Out: events, and notices when the broker goes and comes back.

use std::sync::Arc;
use std::time::Duration;

use holdfast_broker::{
    Binding, Broker, BrokerSettings, Consumer, ConsumerOptions, DeclareError, Delivery, Queue, State,
    Topology,
};
use holdfast_contract::{Body, v1};
use holdfast_service::Service;
use prost::Message;
use tokio::sync::{mpsc, watch};

use super::event::Event;
use super::filter::Filter;
use super::{Failure, Item};

/// Further attempts, if the first one fails.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// A queue and its bindings are a few round trips.
const BIND_WITHIN: Duration = Duration::from_secs(5);

/// What may wait at the broker for a terminal that stands still: then the oldest go.
const WAITING: u64 = 10_000;

/// The same in bytes.
const WAITING_BYTES: u64 = 64 << 20;

/// Begins to watch; gives what is watched, in words.
pub(super) async fn watch(
    settings: &BrokerSettings,
    filter: Arc<Filter>,
    items: mpsc::Sender<Item>,
    service: &Service,
) -> Result<String, Failure> {
    let broker =
        Broker::connect(settings, service).await.map_err(|refusal| Failure::error(refusal.to_string()))?;
    let mut state = broker.state();
    let there = |state: &State| !matches!(state, State::Connecting { .. });
    // The broker's own attempts go on; nobody who watches wants to wait for them without a word.
    if tokio::time::timeout(CONNECT_WITHIN, state.wait_for(there)).await.is_err()
        && let State::Connecting { reason } = &*state.borrow_and_update()
    {
        return Err(Failure::error(format!("cannot reach the broker: {reason} (broker.url)")));
    }
    let (exchange, queue) = (broker.names().events(), unique_name(broker.names().prefix()));
    bind(&broker, &exchange, &queue, &filter).await?;
    let consumer = broker.consume(ConsumerOptions { exclusive: true, ..ConsumerOptions::new(queue) });
    service.tasks.spawn("tail: state of the broker", tell(state, items.clone()));
    service.tasks.spawn("tail: events", pass_on(consumer, filter, items));
    Ok(format!("the exchange {exchange}"))
}

/// A queue that nobody else has.
fn unique_name(prefix: &str) -> String {
    format!("{prefix}.tail.{:016x}", fastrand::u64(..))
}

async fn bind(broker: &Broker, exchange: &str, queue: &str, filter: &Filter) -> Result<(), Failure> {
    let bounded =
        Queue { max_length: Some(WAITING), max_length_bytes: Some(WAITING_BYTES), ..Queue::exclusive(queue) };
    let bindings = filter.keys().into_iter().map(|key| Binding::queue(exchange, queue, key)).collect();
    let topology = Topology { exchanges: Vec::new(), queues: vec![bounded], bindings };
    match tokio::time::timeout(BIND_WITHIN, broker.declare(&topology)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(DeclareError::Refused(refusal))) => Err(Failure::error(refusal.to_string())),
        Ok(Err(DeclareError::Closed)) => Err(Failure::error("the process is ending")),
        // An exchange that isn't there may yet come, which is tried again and again.
        Err(_) => Err(Failure::error(format!(
            "cannot bind to the exchange {exchange}: is Holdfast running with this broker, and this broker.prefix?"
        ))),
    }
}

async fn pass_on(mut consumer: Consumer, filter: Arc<Filter>, items: mpsc::Sender<Item>) {
    while let Some(delivery) = consumer.next().await {
        let event = decode(&delivery).filter(|event| filter.admits(&event.name, event.shard, event.guild));
        if let Some(event) = event
            && items.send(Item::Event(event)).await.is_err()
        {
            return;
        }
        delivery.ack();
    }
}

/// The event in a message; types that this version doesn't know are passed over.
fn decode(delivery: &Delivery) -> Option<Event> {
    let body = delivery.message.body.clone();
    match delivery.message.properties.kind.as_deref()? {
        v1::Event::TYPE => v1::Event::decode(body).ok().map(Event::from),
        v1::Gap::TYPE => v1::Gap::decode(body).ok().map(Event::from),
        _ => None,
    }
}

/// Says when the broker goes, and when it is back.
async fn tell(mut state: watch::Receiver<State>, items: mpsc::Sender<Item>) {
    while state.changed().await.is_ok() {
        let what = match &*state.borrow_and_update() {
            State::Connected => "connected to the broker again".to_owned(),
            State::Connecting { reason } => format!("no connection to the broker: {reason}; trying again"),
            State::Refused(refusal) => refusal.to_string(),
            // It concerns those who publish.
            State::Blocked { .. } => continue,
        };
        if items.send(Item::Notice(what)).await.is_err() {
            return;
        }
    }
}
