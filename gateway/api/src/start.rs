// SPDX-License-Identifier: AGPL-3.0-only
//! Puts the service together, and takes it apart in order: no new connections, then those that are there end with
//! their last answer. In: settings, a listener, the process's handle. Out: [`Api`], which ends when everything has.

use std::sync::Arc;
use std::time::Duration;

use holdfast_cluster::RestStore;
use holdfast_rest::{Forwarder, Limits, RestError, RestMetrics, Upstream};
use holdfast_service::{Page, Service, Tasks, TlsError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::front::Front;
use crate::listener;
use crate::metrics::Metrics;
use crate::settings::Config;

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
}

/// A running service.
pub struct Api {
    tasks: Tasks,
    /// What requests need as long as there are any.
    limits: Tasks,
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
    let tls = config.tls.as_ref().map(listener::tls).transpose()?;
    let upstream = Upstream::new(&config.api_url, config.upstream_timeout)?;
    // The limits outlive connections: who waits for a turn while draining gets it.
    let (tasks, limited) = (service.tasks.child(), service.tasks.child());
    let counted = service.metrics.register(|registry| Arc::new(RestMetrics::new(registry)));
    let metrics = service.metrics.register(|registry| Arc::new(Metrics::new(registry)));
    let store = config.cluster.as_ref().map(|cluster| RestStore::start(cluster, &limited)).transpose()?;
    let limits = Limits::new(config.limits.clone(), counted, store, &limited);
    let cleared = limits.clone();
    service.pages.on_post("/rest/clear", move |_| {
        cleared.clear();
        std::future::ready(Page::text("cleared\n"))
    });
    let drain = config.drain_timeout;
    let forwarder = Forwarder::new(upstream, limits);
    let front = Arc::new(Front::new(config, forwarder, metrics));
    info!(url = front.upstream_base(), "api started");
    tasks.spawn("accepting", listener::serve(front, listener, tls, tasks.clone()));
    Ok(Api { tasks, limits: limited, shutdown, drain })
}

impl Api {
    /// Waits for the end, and brings it about in order when it is asked for.
    pub async fn wait(self) {
        tokio::select! { biased;
            () = self.shutdown.cancelled() => {}
            // A task has panicked: the owner says so.
            () = self.tasks.token().cancelled() => {}
        }
        // A little less than the process waits, so that it is said here what was left.
        if let Err(unfinished) = self.tasks.finish(self.drain.mul_f64(0.9)).await {
            warn!(%unfinished, "not all requests were answered in time (api.drain_timeout)");
        }
        let _ = self.limits.finish(self.drain.mul_f64(0.05)).await;
    }
}
