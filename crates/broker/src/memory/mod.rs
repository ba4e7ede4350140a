// SPDX-License-Identifier: AGPL-3.0-only
//! The broker in memory, for services that run in one process: what is published is in its queues at once, and goes
//! with the process. Its queues know no priorities among consumers, and there are no streams.

mod consumer;
mod publisher;
mod queue;
mod routing;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use consumer::{Consumer, Settle};
use holdfast_service::Tasks;
use state::State;

use crate::consumer::{ConsumerOptions, Home};
use crate::error::{DeclareError, PublishError};
use crate::message::Publication;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::publisher::Intake;
use crate::rpc::replies::{REPLY_TO, Replies};
use crate::topology::Topology;

/// How late a message may die of age. None is delivered late: that is looked at when it is asked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// A broker in memory.
pub(crate) struct Memory {
    shared: Arc<Shared>,
    tasks: Tasks,
}

/// What consumers and publishers share.
pub(crate) struct Shared {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    replies: Replies,
    max_message_bytes: usize,
}

impl Memory {
    pub(crate) fn start(
        names: &Names,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
        replies: Replies,
        max_message_bytes: usize,
    ) -> Self {
        let state = Mutex::new(State::new(&Topology::of_every_broker(names)));
        let shared = Arc::new(Shared { state, metrics, replies, max_message_bytes });
        let (clock, token) = (Arc::clone(&shared), tasks.token().clone());
        tasks.spawn("broker expiry", async move {
            while token.run_until_cancelled(tokio::time::sleep(EXPIRE_EVERY)).await.is_some() {
                clock.lock().expire(Instant::now());
            }
        });
        Self { shared, tasks: tasks.clone() }
    }

    pub(crate) fn declare(&self, topology: &Topology) -> Result<(), DeclareError> {
        Ok(self.shared.lock().declare(topology, Instant::now())?)
    }

    pub(crate) fn delete(&self, topology: &Topology) {
        self.shared.lock().delete(topology);
    }

    pub(crate) fn publish(&self, intake: Intake) {
        let publisher =
            publisher::Publisher::new(Arc::clone(&self.shared), intake, self.tasks.token().clone());
        self.tasks.spawn("broker publisher", publisher.run());
    }

    pub(crate) fn publish_one(&self, publication: Publication) -> Result<(), PublishError> {
        self.shared.publish(publication)
    }

    pub(crate) fn consume(&self, options: ConsumerOptions, home: Arc<Home>) -> Consumer {
        Consumer::new(&self.shared, options, home, self.tasks.token().clone())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes one message, counted.
    fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        if let Err(why) = publication.check(self.max_message_bytes) {
            self.metrics.unsendable.inc();
            return Err(why.into());
        }
        self.metrics.published.inc();
        // Replies go straight to who waits for them, as with direct reply-to.
        let outcome = if publication.exchange.is_empty() && publication.key == REPLY_TO {
            self.replies.deliver(publication.message);
            Ok(())
        } else {
            self.lock().publish(publication, Instant::now())
        };
        match &outcome {
            Ok(()) => _ = self.metrics.confirmed.inc(),
            Err(PublishError::Unrouted) => _ = self.metrics.returned.inc(),
            Err(_) => {}
        }
        outcome
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}
