// SPDX-License-Identifier: AGPL-3.0-only
//! Commands and requests by AMQP: what workers want a shard to tell Discord, and to know of a guild.
//!
//! A command's way: a queue of the broker → [`forward`] to the shard's queue, if it came by guild → [`intake`], which
//! decodes it ([`decode`]), checks it ([`plan`]) and gives it to the shard's outbox → [`job`], which follows it and
//! puts the answer together ([`collect`]) → [`replies`]. One task per shard that we own, and two for all.

mod collect;
mod decode;
mod forward;
mod intake;
mod job;
mod metrics;
mod plan;
mod replies;
mod topology;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use holdfast_broker::{Broker, DeclareError, Exchange, Names, Refusal, Request};
use holdfast_cluster::ShardId;
use holdfast_contract::v1::ErrorCode;
use holdfast_service::{Service, Tasks};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};

use self::{
    intake::{Held, Intake},
    metrics::Metrics,
};
use crate::{amqp::state, fleet::Hubs, shard::Hub, start::WsError};

pub(super) use self::{decode::MAX_BYTES, forward::elsewhere};

/// The exchanges that commands and requests need.
pub(super) fn exchanges(names: &Names) -> Vec<Exchange> {
    topology::shared(names).exchanges
}

/// Commands of the shards that this process owns. Shards come and go while it runs.
pub(crate) struct Commands {
    shared: Arc<Shared>,
    tasks: Tasks,
}

/// How commands are taken.
pub(crate) struct Settings {
    /// Intents of our shards.
    pub(crate) intents: u64,
    /// Commands of one shard that may wait or be under way.
    pub(crate) in_flight: usize,
}

/// Held by whoever takes a shard's commands.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// What all tasks of commands share.
pub(in crate::amqp) struct Shared {
    pub(super) broker: Broker,
    /// The shards that this process owns.
    pub(super) hubs: Arc<Hubs>,
    intents: u64,
    in_flight: usize,
    pub(super) metrics: Metrics,
    /// By shard and count: whoever takes its commands. The next one waits for the one before it to be gone.
    taking: Mutex<BTreeMap<ShardId, Turn>>,
    refused: mpsc::Sender<WsError>,
}

impl Commands {
    /// Begins to forward commands and to answer requests. A refusal of the broker's goes to `refused`.
    pub(crate) fn start(
        broker: Broker,
        settings: &Settings,
        hubs: Arc<Hubs>,
        service: &Service,
        tasks: &Tasks,
        refused: mpsc::Sender<WsError>,
    ) -> Self {
        let shared = Arc::new(Shared {
            broker,
            hubs,
            intents: settings.intents,
            in_flight: settings.in_flight,
            metrics: service.metrics.register(Metrics::new),
            taking: Mutex::default(),
            refused,
        });
        let (starting, stop) = (Arc::clone(&shared), tasks.token().clone());
        tasks.spawn("commands", async move {
            let topology = topology::shared(starting.broker.names());
            match starting.broker.declare(&topology).await {
                Ok(()) => {
                    let answering = state::run(Arc::clone(&starting), stop.clone());
                    tokio::join!(forward::run(starting, stop), answering);
                }
                Err(DeclareError::Refused(refusal)) => starting.refuse(refusal),
                Err(DeclareError::Closed) => {}
            }
        });
        Self { shared, tasks: tasks.clone() }
    }

    /// Takes a shard's commands until the token says that it is no longer ours, or the service stops.
    pub(crate) fn own(&self, hub: &Arc<Hub>, stop: CancellationToken) {
        let (shared, shard) = (Arc::clone(&self.shared), hub.shard);
        let intake =
            Intake { shared: Arc::clone(&shared), hub: Arc::clone(hub), stop, held: Arc::<Held>::default() };
        let taking = shared.taking(ShardId::new(shard, hub.total));
        let run = async move {
            let _taking = taking.lock().await;
            intake.run().await;
        };
        self.tasks.spawn_on(&hub.runtime, "commands of a shard", run.instrument(info_span!("shard", shard)));
    }
}

impl Shared {
    /// How many shards the bot has by now.
    pub(super) fn total(&self) -> u32 {
        self.hubs.total()
    }

    fn taking(&self, shard: ShardId) -> Turn {
        let mut taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(taking.entry(shard).or_default())
    }

    fn refuse(&self, refusal: Refusal) {
        // One is enough: the service ends with it.
        let _ = self.refused.try_send(refusal.into());
    }

    /// The last reply to a message is sent. What nobody can use is kept for people to look at.
    pub(super) async fn settle(&self, request: Request, outcome: &str, poison: bool) {
        if poison {
            if let Err(error) = request.reject(outcome).await {
                debug!(%error, "a message that can't be used could not be set aside");
            }
        } else if outcome == ErrorCode::DeadlineExceeded.name() {
            self.metrics.expired.inc();
            request.expired();
        } else {
            request.done();
        }
    }
}
