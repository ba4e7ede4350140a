// SPDX-License-Identifier: AGPL-3.0-only
//! The one interface to both brokers: RabbitMQ, and memory within one process.

use std::fmt;
use std::sync::Arc;

use holdfast_service::{Condition, Service};
use tokio::sync::watch;

use crate::consumer::{Consumer, ConsumerOptions, Home};
use crate::error::{DeclareError, PublishError, Refusal};
use crate::memory::Memory;
use crate::message::Publication;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::publisher::{Observer, OrderedPublisher, PublisherOptions, stream};
use crate::rabbit::Rabbit;
use crate::rpc::replies::Replies;
use crate::rpc::{Requester, Responder};
use crate::settings::BrokerSettings;
use crate::state::{Board, State};
use crate::topology::Topology;

/// A broker: RabbitMQ, or memory, behind one interface. Clones share its connections.
///
/// - [`Broker::declare`]: exchanges, queues and bindings, again after every reconnection;
/// - [`Broker::publisher`]: an ordered stream with positions, for a reader of a log with a durable cursor;
/// - [`Broker::publish`]: one message, confirmed;
/// - [`Broker::consume`]: receives from a queue and settles what it received;
/// - [`Broker::requester`] and [`Broker::respond`]: requests with one or more replies;
/// - [`Broker::state`]: what the connections are doing.
///
/// Connections are made again whenever they end, without ever giving up. There are three of them, since RabbitMQ stops
/// reading from those that publish when it is short of memory: one for streams, one for requests and replies, one for
/// consuming. All of it belongs to the process's [`Tasks`](holdfast_service::Tasks) and ends with them, so streams are
/// to be confirmed before.
///
/// ```
/// use holdfast_broker::{
///     Binding, Broker, ConsumerOptions, Exchange, ExchangeKind, Message, Positioned, Publication, PublisherOptions, Queue,
///     QueueKind, Topology,
/// };
/// use holdfast_service::Service;
/// use tokio_util::sync::CancellationToken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = Service::new(CancellationToken::new());
/// // Over RabbitMQ: Broker::connect(&BrokerSettings::at("amqp://localhost"), &service).await?
/// let broker = Broker::memory("holdfast", &service);
/// let events = broker.names().events();
/// broker
///     .declare(&Topology {
///         exchanges: vec![Exchange::new(&events, ExchangeKind::Topic)],
///         queues: vec![Queue { max_length: Some(10_000), ..Queue::new("workers", QueueKind::Quorum) }],
///         bindings: vec![Binding::queue(&events, "workers", "MESSAGE_CREATE.#")],
///     })
///     .await?;
///
/// let mut publisher = broker.publisher(PublisherOptions::default(), Box::new(|_undelivered| {}));
/// let message = Message::new("holdfast.v1.Event", "an event").header("shard", "17");
/// let publication = Publication::new(events, "MESSAGE_CREATE.17.0", message).mandatory();
/// publisher.send(Positioned { position: 1, publication }).await?;
/// publisher.confirmed_through(1).await?;
///
/// let mut consumer = broker.consume(ConsumerOptions::new("workers"));
/// let delivery = consumer.next().await.ok_or("the process ends")?;
/// assert_eq!(delivery.message.body, "an event");
/// delivery.ack();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

struct Shared {
    kind: Kind,
    names: Names,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    replies: Replies,
}

enum Kind {
    Rabbit(Rabbit),
    Memory(Memory),
}

impl Broker {
    /// The broker of this process, which all its services share: RabbitMQ if there are settings for it, else memory.
    ///
    /// # Errors
    /// See [`Broker::connect`].
    pub async fn of_process(settings: Option<&BrokerSettings>, service: &Service) -> Result<Self, Refusal> {
        service
            .once(async {
                match settings {
                    Some(settings) => Self::connect(settings, service).await,
                    None => Ok(Self::memory(&BrokerSettings::at("").prefix, service)),
                }
            })
            .await
    }

    /// Connects to RabbitMQ, declares the exchange of the dead, and stays connected: whenever a connection ends, it is made again, without ever giving up.
    /// Returns once the first attempt has succeeded or failed; a broker that can't be reached is waited for in the
    /// background, and [`Broker::state`] says so.
    ///
    /// # Errors
    /// The broker refuses, or the settings can't be used: trying again would not help.
    pub async fn connect(settings: &BrokerSettings, service: &Service) -> Result<Self, Refusal> {
        let board = Arc::new(Board::new(condition(service)));
        let metrics = metrics(service);
        let replies = Replies::default();
        let rabbit = Rabbit::connect(
            settings,
            Arc::clone(&board),
            Arc::clone(&metrics),
            &service.tasks,
            replies.clone(),
        )
        .await?;
        let names = Names::new(&settings.prefix);
        let shared = Shared { kind: Kind::Rabbit(rabbit), names, board, metrics, replies };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// A broker in memory, for services that run in one process. What it holds goes with the process.
    #[must_use]
    pub fn memory(prefix: &str, service: &Service) -> Self {
        let board = Arc::new(Board::connected(condition(service)));
        let metrics = metrics(service);
        let replies = Replies::default();
        let bytes = BrokerSettings::at("").max_message_bytes;
        let names = Names::new(prefix);
        let memory = Memory::start(&names, Arc::clone(&metrics), &service.tasks, replies.clone(), bytes);
        let shared = Shared { kind: Kind::Memory(memory), names, board, metrics, replies };
        Self { shared: Arc::new(shared) }
    }

    /// The names below this broker's prefix.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.shared.names
    }

    /// What the connections are doing, now and from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.board.watch()
    }

    /// Declares exchanges, queues and bindings, and again after each reconnection. Waits for a connection.
    ///
    /// # Errors
    /// The broker refuses: something of that name is there and differs, a plugin or a permission is missing. Nothing of
    /// it is remembered then.
    pub async fn declare(&self, topology: &Topology) -> Result<(), DeclareError> {
        match &self.shared.kind {
            Kind::Rabbit(rabbit) => rabbit.declare(topology).await,
            Kind::Memory(memory) => memory.declare(topology),
        }
    }

    /// Takes bindings away, deletes queues and exchanges, by their names, and no longer declares them. What isn't there
    /// is no error. Waits for a connection.
    pub async fn delete(&self, topology: &Topology) {
        match &self.shared.kind {
            Kind::Rabbit(rabbit) => rabbit.delete(topology).await,
            Kind::Memory(memory) => memory.delete(topology),
        }
    }

    /// Begins an ordered stream of messages. It ends when its handle is dropped. Its task runs on the runtime that this
    /// is called on: best the one that sends, since waking another thread for each message costs more than sending it.
    #[must_use]
    pub fn publisher(&self, options: PublisherOptions, observer: Observer) -> OrderedPublisher {
        let (publisher, intake) = stream(options, observer);
        match &self.shared.kind {
            Kind::Rabbit(rabbit) => rabbit.publish(intake),
            Kind::Memory(memory) => memory.publish(intake),
        }
        publisher
    }

    /// Publishes one message, in no order with others, and waits until the broker has confirmed it; without a
    /// connection, and during an alarm, until there is one. Dropped before its turn has come, it isn't published.
    ///
    /// # Errors
    /// No queue takes it (if it is mandatory), the broker refuses it, it can't be sent, or the connection ended before
    /// the confirmation.
    pub async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        match &self.shared.kind {
            Kind::Rabbit(rabbit) => rabbit.outbox().publish(publication).await,
            Kind::Memory(memory) => memory.publish_one(publication),
        }
    }

    /// Receives from a queue. The first message can be asked for at once; connecting and subscribing happen then.
    #[must_use]
    pub fn consume(&self, options: ConsumerOptions) -> Consumer {
        let home = Arc::new(Home { broker: self.clone(), queue: options.queue.clone() });
        match &self.shared.kind {
            Kind::Rabbit(rabbit) => Consumer::rabbit(rabbit.consume(options, home)),
            Kind::Memory(memory) => Consumer::memory(memory.consume(options, home)),
        }
    }

    /// Sends requests, at most so many at a time.
    #[must_use]
    pub fn requester(&self, in_flight: usize) -> Requester {
        Requester::new(self.clone(), in_flight)
    }

    /// Receives requests from a queue.
    #[must_use]
    pub fn respond(&self, options: ConsumerOptions) -> Responder {
        Responder::new(self.consume(options), self.clone())
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(crate) fn replies(&self) -> &Replies {
        &self.shared.replies
    }
}

fn condition(service: &Service) -> Condition {
    service.readiness.condition("broker", "connecting")
}

fn metrics(service: &Service) -> Arc<Metrics> {
    Arc::new(service.metrics.register(Metrics::new))
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("names", &self.shared.names).finish_non_exhaustive()
    }
}
