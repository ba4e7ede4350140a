// SPDX-License-Identifier: AGPL-3.0-only
//! Puts the service together, and takes it apart in order: no new connections, answers that are under way, what workers
//! still say. In: settings, a listener, the process's handle. Out: [`Http`], which ends when everything has.

use std::sync::Arc;
use std::time::Duration;

use holdfast_broker::{Broker, Refusal};
use holdfast_rest::{Forwarder, Limits, RestError, Upstream};
use holdfast_service::{HttpListener, Service, Tasks, TlsError};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::events::Events;
use crate::front::{Front, Parts};
use crate::late::{self, Late};
use crate::metrics::Metrics;
use crate::seen::Seen;
use crate::settings::{Config, DRAIN_ANSWERS, DRAIN_LATE};
use crate::ways::{Ways, Worker};

/// How long Discord may take to begin its answer to what comes late.
const UPSTREAM_WITHIN: Duration = Duration::from_secs(30);

/// Why the service never began.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// `discord.api_url`.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The broker refuses us.
    #[error(transparent)]
    Broker(#[from] Refusal),
    /// The shared store's certificates.
    #[error(transparent)]
    ClusterCertificates(#[from] holdfast_cluster::CaFileError),
    /// Certificate or key of the listener.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What the system refuses.
    #[error("the system refuses what the service needs")]
    System(#[from] std::io::Error),
}

/// A running service.
pub struct Http {
    /// Connections.
    tasks: Tasks,
    /// What outlives them for a moment.
    late: Tasks,
    refused: mpsc::Receiver<Refusal>,
    shutdown: CancellationToken,
    drain: Duration,
}

/// Starts the service.
///
/// # Errors
/// See [`HttpError`]. A broker that can't be reached is waited for.
pub async fn start(
    config: Config,
    listener: TcpListener,
    service: &Service,
    shutdown: CancellationToken,
) -> Result<Http, HttpError> {
    let (tasks, late_tasks) = (service.tasks.child(), service.tasks.child());
    let metrics = service.metrics.register(|registry| Arc::new(Metrics::new(registry)));
    let connections = metrics.connections.clone();
    let listener = HttpListener::new(listener, config.tls.as_ref(), config.bounds, connections)?;
    // Without one of its own, in memory: `ws` in the same process is asked by that.
    let broker = Broker::of_process(config.broker.as_ref(), service).await?;
    let upstream = Upstream::new(&config.api_url, UPSTREAM_WITHIN)?;
    // The account that all services of this process share, and with a store all replicas.
    let limits = Limits::of_process(&config.limits, config.cluster.as_ref(), service).await?;
    // Replicas know what the others have taken.
    let store = limits.store().cloned();
    let seen = |what| Seen::new(what, config.remember, store.clone());
    let late = Arc::new(Late::new(Forwarder::new(upstream, limits), seen("answered"), config.max_reply));
    let (refuse, refused) = mpsc::channel(1);
    let declared = service.readiness.condition("http", "its exchanges are not declared yet");
    let stop = late_tasks.token().clone();
    let sending = late::run(broker.clone(), Arc::clone(&late), Arc::clone(&metrics), declared, stop);
    late_tasks.spawn("late replies", async move {
        if let Err(refusal) = sending.await {
            // One is enough: the service ends with it.
            let _ = refuse.try_send(refusal);
        }
    });
    let requester = broker.requester(config.max_in_flight + config.max_late);
    let worker = Worker::new(config.max_reply)?;
    let url = config.events_url.as_ref().and_then(|url| url.parse().ok());
    let events = Events::new(broker.clone(), url, seen("events"));
    let ways = Ways { broker, requester, worker };
    let drain = config.drain_timeout;
    info!(applications = config.applications.len(), routes = config.routes.len(), "http started");
    let parts = Parts { metrics, ways, late, events, seen: seen("requests"), tasks: late_tasks.clone() };
    let front = Arc::new(Front::new(config, parts));
    tasks.spawn("accepting", listener.serve(front, tasks.clone()));
    Ok(Http { tasks, late: late_tasks, refused, shutdown, drain })
}

impl Http {
    /// Waits for the end, and brings it about in order when it is asked for.
    ///
    /// # Errors
    /// The broker refuses what the service needs.
    pub async fn wait(mut self) -> Result<(), Refusal> {
        let refused = tokio::select! { biased;
            () = self.shutdown.cancelled() => None,
            // A task has panicked: the owner says so.
            () = self.tasks.token().cancelled() => None,
            Some(refusal) = self.refused.recv() => Some(refusal),
        };
        if let Err(unfinished) = self.tasks.finish(self.drain.mul_f64(DRAIN_ANSWERS)).await {
            warn!(%unfinished, "not all requests were answered in time (http.drain_timeout)");
        }
        // Replies that are being sent are sent; whoever hasn't replied yet replies to the queue of late ones.
        if let Err(unfinished) = self.late.finish(self.drain.mul_f64(DRAIN_LATE)).await {
            warn!(%unfinished, "not all late replies were sent (http.drain_timeout)");
        }
        refused.map_or(Ok(()), Err)
    }
}
