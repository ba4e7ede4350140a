// SPDX-License-Identifier: AGPL-3.0-only
//! Puts the service together, and takes it apart in order: nothing more is taken, what is sent already ends, the rest
//! stays with the broker. In: settings, the process's handle. Out: [`Webhook`], which ends when everything has.

use std::sync::Arc;
use std::time::Duration;

use holdfast_broker::{Broker, DeclareError, Refusal};
use holdfast_cluster::CaFileError;
use holdfast_rest::{Forwarder, Limits, RestError, Upstream};
use holdfast_service::{Condition, Service, Tasks};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::partition::{self, Shared};
use crate::send::Sender;
use crate::settings::Config;
use crate::topology;
use crate::uploads::Uploads;

/// Why the service never began, or ended unasked.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// `discord.api_url`.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The shared store's certificates.
    #[error(transparent)]
    ClusterCertificates(#[from] CaFileError),
    /// The broker refuses us.
    #[error(transparent)]
    Broker(#[from] Refusal),
}

/// A running service.
pub struct Webhook {
    tasks: Tasks,
    refused: mpsc::Receiver<Refusal>,
    shutdown: CancellationToken,
    drain: Duration,
}

/// Starts the service: takes messages as soon as the broker has its queues, and needs nothing of Discord to be ready.
///
/// # Errors
/// See [`WebhookError`].
pub async fn start(
    config: Config,
    service: &Service,
    shutdown: CancellationToken,
) -> Result<Webhook, WebhookError> {
    let declared = service.readiness.condition("webhook", "its queues are not declared yet");
    let upstream = Upstream::new(&config.api_url, config.upstream_timeout)?;
    let limits = Limits::of_process(&config.limits, config.cluster.as_ref(), service).await?;
    let broker = Broker::of_process(config.broker.as_ref(), service).await?;
    if config.broker.is_none() {
        warn!("without a [broker], only services of this process can send webhook messages");
    }
    let tasks = service.tasks.child();
    let (refuse, refused) = mpsc::channel(1);
    let drain = config.drain_timeout;
    let (forwarder, uploads) = (Forwarder::new(upstream, limits), Uploads::new()?);
    let sender = Sender { forwarder, uploads, patience: config.upstream_timeout };
    let metrics = service.metrics.register(Metrics::new);
    let shared = Arc::new(Shared { broker, sender, metrics, config });
    tasks.spawn("declaring", begin(shared, tasks.clone(), declared, refuse));
    Ok(Webhook { tasks, refused, shutdown, drain })
}

/// Declares what is needed, and then takes messages.
async fn begin(shared: Arc<Shared>, tasks: Tasks, declared: Condition, refuse: mpsc::Sender<Refusal>) {
    let topology = topology::of(&shared.config, shared.broker.names());
    let declaring = tasks.token().run_until_cancelled(shared.broker.declare(&topology)).await;
    match declaring {
        Some(Ok(())) => {}
        Some(Err(DeclareError::Refused(refusal))) => {
            // One is enough: the service ends with it.
            let _ = refuse.try_send(refusal);
            return;
        }
        Some(Err(DeclareError::Closed)) | None => return,
    }
    for number in 0..shared.config.partitions {
        tasks.spawn("partition", partition::run(Arc::clone(&shared), number, tasks.token().clone()));
    }
    declared.ready();
    info!(partitions = shared.config.partitions, "webhook started");
}

impl Webhook {
    /// Waits for the end, and brings it about in order when it is asked for.
    ///
    /// # Errors
    /// The broker refuses us.
    pub async fn wait(mut self) -> Result<(), WebhookError> {
        let outcome = tokio::select! { biased;
            () = self.shutdown.cancelled() => Ok(()),
            // A task has panicked: the owner says so.
            () = self.tasks.token().cancelled() => Ok(()),
            Some(refusal) = self.refused.recv() => Err(refusal.into()),
        };
        // A little less than the process waits, so that it is said here what was left.
        if let Err(unfinished) = self.tasks.finish(self.drain.mul_f64(0.9)).await {
            warn!(%unfinished, "not all messages were answered in time (webhook.drain_timeout)");
        }
        outcome
    }
}
