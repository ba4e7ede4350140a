// SPDX-License-Identifier: AGPL-3.0-only
//! A broker for one test, with names that no other test has.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_broker::{
    Binding, Broker, BrokerSettings, Consumer, ConsumerOptions, Delivery, Exchange, ExchangeKind, Message,
    Positioned, Publication, Queue, QueueKind, Topology, Undelivered,
};
use holdfast_service::Service;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a machine that is busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Where RabbitMQ is.
pub(crate) const RABBITMQ: &str = "amqp://guest:guest@127.0.0.1:5672";

/// A broker, and what was declared at it, which goes when the test ends.
pub(crate) struct Stage {
    pub(crate) broker: Broker,
    pub(crate) service: Service,
    declared: Mutex<Topology>,
}

impl Stage {
    /// RabbitMQ of this machine.
    pub(crate) async fn rabbit() -> Self {
        Self::at(RABBITMQ).await
    }

    /// In memory.
    pub(crate) fn memory() -> Self {
        let service = Service::new(CancellationToken::new());
        let broker = Broker::memory("test", &service);
        Self { broker, service, declared: Mutex::default() }
    }

    /// RabbitMQ at an address.
    pub(crate) async fn at(url: &str) -> Self {
        let service = Service::new(CancellationToken::new());
        let broker = Broker::connect(&settings(url), &service).await.expect("RabbitMQ lets us in");
        Self { broker, service, declared: Mutex::default() }
    }

    /// A name that is this test's.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.broker.names().prefix())
    }

    /// Declares something.
    pub(crate) async fn declare(&self, topology: Topology) {
        self.broker.declare(&topology).await.expect("declared");
        let mut declared = self.declared.lock().expect("unpoisoned");
        declared.exchanges.extend(topology.exchanges);
        declared.queues.extend(topology.queues);
    }

    /// Declares a queue.
    pub(crate) async fn queue(&self, queue: Queue) {
        self.declare(Topology { queues: vec![queue], ..Topology::default() }).await;
    }

    /// A topic exchange `events` with one queue bound by a pattern; the queue's name.
    pub(crate) async fn events(&self, pattern: &str) -> String {
        let (exchange, queue) = (self.broker.names().events(), self.name("worker"));
        self.declare(Topology {
            exchanges: vec![Exchange::new(&exchange, ExchangeKind::Topic)],
            queues: vec![classic(&queue)],
            bindings: vec![Binding::queue(&exchange, &queue, pattern)],
        })
        .await;
        queue
    }

    pub(crate) fn consume(&self, queue: &str) -> Consumer {
        self.broker.consume(ConsumerOptions::new(queue))
    }

    /// Waits until the metrics say something.
    pub(crate) async fn counted(&self, line: &str) {
        let counted = async {
            while !self.service.metrics.encode().lines().any(|known| known == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let counted = tokio::time::timeout(DEADLINE, counted).await;
        assert!(counted.is_ok(), "no {line} in {}", self.service.metrics.encode());
    }

    /// Takes away what was declared.
    pub(crate) async fn end(self) {
        let declared = std::mem::take(&mut *self.declared.lock().expect("unpoisoned"));
        end(&self.broker, &self.service, declared).await;
    }
}

/// Takes away what was declared, and what every broker declares, and ends the broker.
pub(crate) async fn end(broker: &Broker, service: &Service, mut declared: Topology) {
    declared.exchanges.push(Exchange::new(broker.names().dead(), ExchangeKind::Topic));
    broker.delete(&declared).await;
    service.tasks.finish(DEADLINE).await.expect("the broker's tasks end");
}

/// Settings with a prefix of their own.
pub(crate) fn settings(url: &str) -> BrokerSettings {
    let prefix = format!("test-{:x}-{:x}", std::process::id(), nanoseconds());
    BrokerSettings { prefix, ..BrokerSettings::at(url) }
}

fn nanoseconds() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos()
}

/// A classic queue that goes by itself if the test can't take it away.
pub(crate) fn classic(name: &str) -> Queue {
    Queue { expires: Some(Duration::from_secs(300)), ..Queue::new(name, QueueKind::Classic) }
}

/// A quorum queue of the same kind.
pub(crate) fn quorum(name: &str) -> Queue {
    Queue { kind: QueueKind::Quorum, ..classic(name) }
}

/// A message whose body is a text.
pub(crate) fn message(text: impl Into<String>) -> Message {
    Message::new("TEST", text.into())
}

/// A numbered message to an exchange, its number in its body.
pub(crate) fn numbered(position: u64, exchange: &str, key: &str) -> Positioned {
    let publication = Publication::new(exchange.to_owned(), key.to_owned(), message(position.to_string()));
    Positioned { position, publication: publication.mandatory() }
}

/// The text in a delivery's body.
pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body.to_vec()).expect("a text")
}

/// The next delivery, which must come.
pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    tokio::time::timeout(DEADLINE, consumer.next()).await.expect("a delivery in time").expect("no end")
}

/// Waits for something that must come.
pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

/// An observer that keeps what it is told.
pub(crate) fn ledger() -> (Arc<Mutex<Vec<Undelivered>>>, holdfast_broker::Observer) {
    let ledger: Arc<Mutex<Vec<Undelivered>>> = Arc::default();
    let keep = Arc::clone(&ledger);
    (ledger, Box::new(move |undelivered| keep.lock().expect("unpoisoned").push(undelivered.clone())))
}
