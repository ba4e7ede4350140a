// SPDX-License-Identifier: AGPL-3.0-only
//! The AMQP front: a durable reader of each shard's log that publishes what it reads.
//!
//! In: entries of the logs, from where publishing was confirmed last. Out: [`envelope`]s on the exchange of
//! events, one ordered stream per shard, and the place up to which everything is confirmed. The [`topology`]
//! that it declares comes from the settings. A broker that is away holds up nobody: the log holds the backlog.

mod commands;
mod cursor;
mod envelope;
mod lag;
mod metrics;
mod publish;
mod settings;
mod source;
mod state;
mod topology;

use std::sync::Arc;

use holdfast_broker::{Broker, DeclareError, Exchange, Names};
use holdfast_service::{Service, Tasks};
use tokio::sync::{mpsc, watch};
use tracing::info;

pub(crate) use publish::READER;
pub use settings::{AmqpSettings, Outage, QueueSettings, QueueType};

use self::{commands::Commands, metrics::Metrics, publish::Publishing};
use crate::{
    fleet::{Hubs, Records},
    shard::Hub,
    start::WsError,
};

/// The exchanges that the front declares, with these settings.
#[must_use]
pub fn exchanges(settings: &AmqpSettings, names: &Names) -> Vec<Exchange> {
    [topology::of(settings, names).exchanges, commands::exchanges(names)].concat()
}

/// What all shards' publishing shares.
pub(crate) struct Amqp {
    pub(crate) broker: Broker,
    settings: AmqpSettings,
    /// The largest body that the broker takes.
    max_bytes: usize,
    metrics: Metrics,
    /// The topology stands: messages may be published.
    declared: watch::Sender<bool>,
    commands: Commands,
    /// Whether events are published. Nobody would get them of a broker in memory.
    publishes: bool,
}

impl Amqp {
    /// The front on this broker. Declares the topology as soon as there is a connection; a refusal goes to `refused`.
    pub(crate) fn start(
        broker: Broker,
        settings: AmqpSettings,
        max_bytes: usize,
        service: &Service,
        tasks: &Tasks,
        (intents, hubs): (u64, Arc<Hubs>),
        refused: mpsc::Sender<WsError>,
    ) -> Arc<Self> {
        let taking = commands::Settings { intents, in_flight: settings.commands_in_flight };
        let commands = Commands::start(broker.clone(), &taking, hubs, service, tasks, refused.clone());
        let metrics = service.metrics.register(Metrics::new);
        let declared = watch::Sender::new(false);
        let publishes = !broker.is_in_process();
        let amqp = Arc::new(Self { broker, settings, max_bytes, metrics, declared, commands, publishes });
        if !publishes {
            return amqp;
        }
        let counting = lag::count_outage(Arc::clone(&amqp), amqp.broker.state());
        let stop = tasks.token().clone();
        tasks.spawn("counting the broker's outages", async move {
            stop.run_until_cancelled(counting).await;
        });
        let declaring = Arc::clone(&amqp);
        tasks.spawn("declaring the topology", async move {
            let topology = topology::of(&declaring.settings, declaring.broker.names());
            match declaring.broker.declare(&topology).await {
                Ok(()) => {
                    info!(queues = topology.queues.len(), "exchanges and queues are declared");
                    declaring.declared.send_replace(true);
                }
                Err(DeclareError::Refused(refusal)) => {
                    // One is enough: the service ends with it.
                    let _ = refused.try_send(refusal.into());
                }
                Err(DeclareError::Closed) => {}
            }
        });
        amqp
    }

    /// Whether events are published, rather than commands taken only.
    pub(crate) fn publishes(&self) -> bool {
        self.publishes
    }

    /// Publishes a shard's events and takes its commands from now on, until `tasks` are asked to end.
    pub(crate) fn follow(self: &Arc<Self>, hub: &Arc<Hub>, records: &Records, shards: usize, tasks: &Tasks) {
        if !self.publishes {
            return self.commands.own(hub, tasks.token().clone());
        }
        let publishing = {
            // The publisher's task is begun there, too: from the log to the library an event changes threads once.
            let _on_the_shards_thread = hub.runtime.enter();
            Publishing::new(self, hub, records.clone(), shards)
        };
        let stop = tasks.token().clone();
        self.commands.own(hub, stop.clone());
        tasks.spawn_on(&hub.runtime, "publishing", publishing.run(stop));
    }
}
