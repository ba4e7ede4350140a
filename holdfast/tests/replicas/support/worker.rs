// SPDX-License-Identifier: AGPL-3.0-only
//! A worker: consumes everything that is published, and keeps account of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use holdfast_broker::{
    Binding, Broker, BrokerSettings, ConsumerOptions, Delivery, Exchange, ExchangeKind, Queue, QueueKind,
    Topology,
};
use holdfast_contract::{
    Body,
    v1::{Event, Gap},
};
use holdfast_service::Service;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::{account::Account, until};

/// The machine's RabbitMQ.
pub(crate) const RABBITMQ: &str = "amqp://guest:guest@127.0.0.1:5672";

/// See the module's documentation.
pub(crate) struct Worker {
    broker: Broker,
    service: Service,
    account: Arc<Mutex<Account>>,
}

impl Worker {
    /// Binds a queue to everything below a prefix, before anybody publishes, and begins to consume.
    pub(crate) async fn start(prefix: &str) -> Self {
        let service = Service::new(CancellationToken::new());
        let settings = BrokerSettings { prefix: prefix.to_owned(), ..BrokerSettings::at(RABBITMQ) };
        let broker = Broker::connect(&settings, &service).await.expect("RabbitMQ lets us in");
        let (exchange, queue) = (broker.names().events(), format!("{prefix}.worker"));
        let topology = Topology {
            exchanges: vec![Exchange::new(&exchange, ExchangeKind::Topic)],
            queues: vec![durable(&queue)],
            bindings: vec![Binding::queue(&exchange, &queue, "#")],
        };
        broker.declare(&topology).await.expect("declared");
        let account = Arc::new(Mutex::new(Account::default()));
        let mut consumer = broker.consume(ConsumerOptions::new(queue));
        let noting = Arc::clone(&account);
        service.tasks.spawn("consuming", async move {
            while let Some(delivery) = consumer.next().await {
                note(&mut noting.lock().unwrap(), &delivery);
                delivery.ack();
            }
        });
        Self { broker, service, account }
    }

    /// What has come so far.
    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap()
    }

    /// Waits until the last message of each guild has come.
    pub(crate) async fn until_last(&self, sent: &BTreeMap<String, u64>) {
        until("the last messages", async || self.account().ledger.has_last(sent)).await;
    }

    /// Waits until so many more messages have come.
    pub(crate) async fn until_more(&self, count: usize) {
        let goal = self.account().ledger.count() + count;
        until("more messages", async || self.account().ledger.count() >= goal).await;
    }

    /// Takes away what was declared.
    pub(crate) async fn end(self) {
        let exchange = |name| Exchange::new(name, ExchangeKind::Topic);
        let names = self.broker.names();
        let exchanges = vec![exchange(names.events()), exchange(names.dead())];
        let queues = vec![durable(&format!("{}.worker", names.prefix()))];
        self.broker.delete(&Topology { exchanges, queues, ..Topology::default() }).await;
        let _ = self.service.tasks.finish(super::PATIENCE).await;
    }
}

/// It outlives the broker, which other tests stop and start; it goes by itself after a test that failed.
fn durable(name: &str) -> Queue {
    let expires = Some(std::time::Duration::from_secs(600));
    Queue { expires, ..Queue::new(name, QueueKind::Classic) }
}

fn note(account: &mut Account, delivery: &Delivery) {
    let message = &delivery.message;
    match message.properties.kind.as_deref() {
        Some(Event::TYPE) => {
            let event = Event::decode(message.body.clone()).expect("an event");
            assert_eq!(message.headers.integer("generation"), i64::try_from(event.generation).ok());
            account.note(&event);
        }
        Some(Gap::TYPE) => account.gaps += 1,
        other => account.wrong.push(format!("a message of type {other:?}")),
    }
}
