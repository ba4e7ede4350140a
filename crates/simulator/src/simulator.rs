// SPDX-License-Identifier: AGPL-3.0-only
//! The simulator as a test holds it.
//!
//! In: options, then wishes. Out: listeners for gateway and HTTP, and everything that clients did. `Simulator` owns
//! all tasks: dropping it ends them. `Control` is the part that the HTTP routes share.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::connection;
use crate::control::Control;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::world::{World, WorldSpec};

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port of the gateway; 0 takes a free one. RESUMEs are told to come to a port of their own.
    pub gateway_port: u16,
    /// Port of REST and control routes; 0 takes a free one.
    pub http_port: u16,
    /// Tokens that are accepted.
    pub tokens: Vec<String>,
    /// The guilds.
    pub world: WorldSpec,
    /// Limits and knobs.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            gateway_port: 0,
            http_port: 0,
            tokens: vec!["sim-token".to_owned()],
            world: WorldSpec::default(),
            limits: Limits::default(),
        }
    }
}

/// Why it didn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener couldn't be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A running simulated Discord.
pub struct Simulator {
    control: Control,
    api_url: String,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Deref for Simulator {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Simulator {
    /// Listens and serves until dropped.
    ///
    /// # Errors
    /// When a port can't be had.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let gateway = listen(options.host, options.gateway_port).await?;
        let resume = listen(options.host, 0).await?;
        let http = listen(options.host, options.http_port).await?;
        let url = |listener: &(TcpListener, SocketAddr), scheme| format!("{scheme}://{}", listener.1);
        let hub = Arc::new(Hub::new(
            options.tokens,
            url(&gateway, "ws"),
            url(&resume, "ws"),
            options.limits,
            World::new(options.world),
        ));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let control = Control { hub: Arc::clone(&hub), generators: Arc::default(), stop: stop.clone() };
        let api_url = format!("{}/api/v10", url(&http, "http"));
        tasks.spawn(accept(Arc::clone(&hub), gateway.0, false, tasks.clone(), stop.clone()));
        tasks.spawn(accept(Arc::clone(&hub), resume.0, true, tasks.clone(), stop.clone()));
        tasks.spawn(sweep(Arc::clone(&hub), stop.clone()));
        let app = crate::rest::routes(hub).merge(crate::routes::routes(control.clone()));
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            // Serving ends with the token; an error of accept is retried by axum itself.
            let _ = axum::serve(http.0, app).with_graceful_shutdown(stopped).await;
        });
        let drop_guard = stop.clone().drop_guard();
        Ok(Self { control, api_url, tasks, stop, _stop_on_drop: drop_guard })
    }

    /// Base of the REST API: `http://127.0.0.1:P/api/v10`.
    #[must_use]
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// Where the control routes are: `http://127.0.0.1:P/control`.
    #[must_use]
    pub fn control_url(&self) -> String {
        self.api_url.replace("/api/v10", "/control")
    }

    /// `ws://127.0.0.1:P`, as `/gateway/bot` gives it.
    #[must_use]
    pub fn gateway_url(&self) -> &str {
        &self.control.hub.gateway_url
    }

    /// As READY gives it.
    #[must_use]
    pub fn resume_url(&self) -> &str {
        &self.control.hub.resume_url
    }

    /// Closes everything and waits until all tasks are over.
    pub async fn shut_down(self) {
        self.stop.cancel();
        self.tasks.close();
        // An HTTP client that keeps its connection open doesn't hold us up.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.tasks.wait()).await;
    }
}

async fn listen(host: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = SocketAddr::new(host, port);
    let open = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open.await.map_err(|source| StartError::Listen { address, source })
}

async fn accept(
    hub: Arc<Hub>,
    listener: TcpListener,
    by_resume_url: bool,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    tasks.spawn(connection::serve(Arc::clone(&hub), tcp, by_resume_url, stop.clone()));
                }
            }
        }
    }
}

/// Ends sessions that nobody resumed in time, and lets buffered events age.
async fn sweep(hub: Arc<Hub>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => hub.end_expired_sessions(),
        }
    }
}
