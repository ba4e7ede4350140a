// SPDX-License-Identifier: AGPL-3.0-only
//! Puts the service together, and takes it apart in order: no new connections, then those that are there end with
//! their last answer. In: settings, a listener, the process's handle. Out: [`Api`], which ends when everything has.

use std::sync::Arc;
use std::time::Duration;

use holdfast_broker::{Broker, Refusal};
use holdfast_rest::{Forwarder, Limits, RestError, Upstream};
use holdfast_service::{Service, Tasks, TlsError};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::front::Front;
use crate::metrics::Metrics;
use crate::outgoing::Outgoing;
use crate::peers::{Peers, Way};
use crate::settings::Config;
use crate::uploads::Uploads;
use crate::{amqp, listener};

/// Why the service never began.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// `discord.api_url`.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The shared store's certificates.
    #[error(transparent)]
    ClusterCertificates(#[from] holdfast_cluster::CaFileError),
    /// Certificate or key of the listener.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The broker refuses us.
    #[error(transparent)]
    Broker(#[from] Refusal),
}

/// A running service.
pub struct Api {
    tasks: Tasks,
    refused: mpsc::Receiver<Refusal>,
    shutdown: CancellationToken,
    drain: Duration,
}

/// Starts the service: accepts connections at once, and needs nothing of Discord to be ready.
///
/// # Errors
/// See [`ApiError`].
pub async fn start(
    config: Config,
    listener: TcpListener,
    service: &Service,
    shutdown: CancellationToken,
) -> Result<Api, ApiError> {
    let upstream = Upstream::new(&config.api_url, config.upstream_timeout)?;
    // The limits are the process's and outlive connections: who waits for a turn while draining gets it.
    let tasks = service.tasks.child();
    let metrics = service.metrics.register(|registry| Arc::new(Metrics::new(registry)));
    let limits = Limits::of_process(&config.limits, config.cluster.as_ref(), service).await?;
    let drain = config.drain_timeout;
    let own = address(&config, &listener);
    let uploads = Uploads::new(&config, &own, Arc::clone(&metrics));
    let peers = Peers::new(&config, &limits, own, Arc::clone(&metrics))?;
    if let Some(peers) = &peers {
        let condition = service.readiness.condition("store", "not heard yet");
        condition.remark("not heard yet");
        tasks.spawn("replicas", Arc::clone(peers).follow(tasks.token().clone(), condition));
    }
    let listener = listener::listener(&config, listener, &metrics)?;
    info!(url = config.api_url, "api started");
    let outgoing =
        Arc::new(Outgoing::new(config, Way { forwarder: Forwarder::new(upstream, limits), peers }, metrics));
    if let Some(uploads) = &uploads {
        tasks.spawn("uploads", uploads.clone().sweep(tasks.token().clone()));
    }
    let (refuse, refused) = mpsc::channel(1);
    tasks.spawn(
        "requests by AMQP",
        take_messages(Arc::clone(&outgoing), service.clone(), tasks.token().clone(), refuse),
    );
    let front = Arc::new(Front::new(outgoing, uploads));
    tasks.spawn("accepting", listener.serve(front, tasks.clone()));
    Ok(Api { tasks, refused, shutdown, drain })
}

/// Where others reach the listener.
fn address(config: &Config, listener: &TcpListener) -> String {
    let address = listener.local_addr().unwrap_or(config.listen);
    config.advertise.clone().unwrap_or_else(|| address.to_string())
}

/// The AMQP front. A broker that is away holds up nobody who comes by HTTP.
async fn take_messages(
    outgoing: Arc<Outgoing>,
    service: Service,
    stop: CancellationToken,
    refuse: mpsc::Sender<Refusal>,
) {
    let connecting = Broker::of_process(outgoing.config.broker.as_ref(), &service);
    let outcome = match stop.run_until_cancelled(connecting).await {
        Some(Ok(broker)) => amqp::run(outgoing, broker, stop).await,
        Some(Err(refusal)) => Err(refusal),
        None => Ok(()),
    };
    if let Err(refusal) = outcome {
        // One is enough: the service ends with it.
        let _ = refuse.try_send(refusal);
    }
}

impl Api {
    /// Waits for the end, and brings it about in order when it is asked for.
    ///
    /// # Errors
    /// The broker refuses us.
    pub async fn wait(mut self) -> Result<(), ApiError> {
        let outcome = tokio::select! { biased;
            () = self.shutdown.cancelled() => Ok(()),
            // A task has panicked: the owner says so.
            () = self.tasks.token().cancelled() => Ok(()),
            Some(refusal) = self.refused.recv() => Err(refusal.into()),
        };
        // A little less than the process waits, so that it is said here what was left.
        if let Err(unfinished) = self.tasks.finish(self.drain.mul_f64(0.9)).await {
            warn!(%unfinished, "not all requests were answered in time (api.drain_timeout)");
        }
        outcome
    }
}
