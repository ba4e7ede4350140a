// SPDX-License-Identifier: AGPL-3.0-only
//! The broker as RabbitMQ. The only place that knows `lapin`.

mod consumer;
mod convert;
mod declare;
mod link;
mod outbox;
mod pending;
mod publisher;
mod refusal;
mod session;
mod window;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(crate) use consumer::{Consumer, Settle};
use holdfast_service::Tasks;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use link::{Common, Link};
use session::Failure;

use crate::consumer::{ConsumerOptions, Home};
use crate::error::{DeclareError, Refusal};
use crate::metrics::Metrics;
use crate::names::Names;
use crate::outbox::Outbox;
use crate::publisher::Intake;
use crate::rpc::replies::Replies;
use crate::settings::BrokerSettings;
use crate::state::{Board, Role};
use crate::topology::{Binding, Destination, Topology};

/// Pauses after the broker ended or refused a channel of a healthy connection: a full queue, something deleted.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Three connections, and what is declared over them.
pub(crate) struct Rabbit {
    events: Link,
    consume: Link,
    topology: Arc<Mutex<Topology>>,
    max_message_bytes: usize,
    tasks: Tasks,
    outbox: Outbox,
}

impl Rabbit {
    /// Begins to connect, and waits for the outcome of the first attempts: a refusal is an error, silence is not.
    pub(crate) async fn connect(
        settings: &BrokerSettings,
        board: Arc<Board>,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
        replies: Replies,
    ) -> Result<Self, Refusal> {
        let topology = Arc::new(Mutex::new(Topology::of_every_broker(&Names::new(&settings.prefix))));
        let tasks = tasks.child();
        let common = Common { board, metrics, topology: Arc::clone(&topology), tasks: tasks.clone() };
        let (events, first) = Link::start(settings, Role::Events, &common)?;
        let (rpc, second) = Link::start(settings, Role::Rpc, &common)?;
        let (consume, third) = Link::start(settings, Role::Consume, &common)?;
        for outcome in [first, second, third] {
            if let Ok(Some(refusal)) = outcome.await {
                tasks.token().cancel();
                return Err(refusal);
            }
        }
        let (outbox, jobs) = Outbox::new();
        let max_message_bytes = settings.max_message_bytes;
        tasks.spawn("broker outbox", outbox::Outbox::new(rpc, jobs, replies, max_message_bytes).run());
        Ok(Self { events, consume, topology, max_message_bytes, tasks, outbox })
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub(crate) fn publish(&self, intake: Intake) {
        let publisher = publisher::Publisher::new(self.events.clone(), intake, self.max_message_bytes);
        self.tasks.spawn("broker publisher", publisher.run());
    }

    pub(crate) fn consume(&self, options: ConsumerOptions, home: Arc<Home>) -> Consumer {
        Consumer::new(self.consume.clone(), options, home)
    }

    /// Declares, now and after each reconnection; waits for a connection.
    pub(crate) async fn declare(&self, topology: &Topology) -> Result<(), DeclareError> {
        loop {
            let session = self.consume.session().await.ok_or(DeclareError::Closed)?;
            match declare::all(&session, topology).await {
                Ok(()) => {}
                Err(Failure::Refused(refusal)) => return Err(refusal.into()),
                Err(Failure::Failed(reason)) => {
                    tracing::warn!(reason, "could not declare; trying again");
                    tokio::time::sleep(PAUSE_MIN).await;
                    continue;
                }
            }
            self.topology.lock().unwrap_or_else(PoisonError::into_inner).merge(topology);
            // A connection that came in between has not declared it.
            if !session.lost.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Deletes queues and exchanges, and forgets them; waits for a connection. What the broker refuses to delete stays.
    pub(crate) async fn delete(&self, topology: &Topology) {
        {
            let mut known = self.topology.lock().unwrap_or_else(PoisonError::into_inner);
            topology.queues.iter().for_each(|queue| known.forget_queue(&queue.name));
            topology.exchanges.iter().for_each(|exchange| known.forget_exchange(&exchange.name));
            known.bindings.retain(|binding| !topology.bindings.contains(binding));
        }
        while let Some(session) = self.consume.session().await {
            let reason = match delete(&session, topology).await {
                Ok(()) => return,
                // The session may have ended without anybody having noticed yet.
                Err(_) if !session.connection.status().connected() => {
                    session.lost.cancelled().await;
                    continue;
                }
                Err(Failure::Failed(reason)) => reason,
                Err(Failure::Refused(refusal)) => refusal.to_string(),
            };
            tracing::warn!(reason, "could not delete at the broker");
            return;
        }
    }
}

async fn delete(session: &session::Session, topology: &Topology) -> Result<(), Failure> {
    let failed = |error| Failure::of(&error, refusal::During::Declare);
    let channel = session.channel().await.map_err(failed)?;
    for binding in &topology.bindings {
        unbind(&channel, binding).await?;
    }
    for queue in &topology.queues {
        let name = declare::short(&queue.name)?;
        channel.queue_delete(name, QueueDeleteOptions::default()).await.map_err(failed)?;
    }
    for exchange in &topology.exchanges {
        let name = declare::short(&exchange.name)?;
        channel.exchange_delete(name, ExchangeDeleteOptions::default()).await.map_err(failed)?;
    }
    // The channel has served; if it can't be closed, it went with its connection.
    let _ = channel.close(200, "OK".into()).await;
    Ok(())
}

async fn unbind(channel: &lapin::Channel, binding: &Binding) -> Result<(), Failure> {
    let (source, key) = (declare::short(&binding.source)?, declare::short(&binding.key)?);
    let none = FieldTable::default();
    let unbound = match &binding.destination {
        Destination::Queue(queue) => channel.queue_unbind(declare::short(queue)?, source, key, none).await,
        Destination::Exchange(exchange) => {
            let options = lapin::options::ExchangeUnbindOptions::default();
            channel.exchange_unbind(declare::short(exchange)?, source, key, options, none).await
        }
    };
    unbound.map_err(|error| Failure::of(&error, refusal::During::Declare))
}
