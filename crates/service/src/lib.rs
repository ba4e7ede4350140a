// SPDX-License-Identifier: AGPL-3.0-only
//! The life of a process: settings, log, metrics, admin listener, tasks, backoff, drain, exit codes. Knows nothing of
//! Discord; every service stands on it and passes its handle, [`Service`], down.

pub mod admin;
mod backoff;
pub mod drain;
mod exit;
mod feed;
mod http;
mod listen;
mod metrics;
mod once;
mod open_files;
mod pages;
pub mod process;
mod random;
mod readiness;
mod secret;
pub mod settings;
mod tasks;
mod telemetry;
mod tls;

use std::net::SocketAddr;

pub use backoff::Backoff;
pub use exit::Exit;
pub use feed::{Feed, FeedMetrics};
pub use http::{Answers, HttpBounds, HttpListener, Peer};
pub use listen::{BindError, bind};
pub use metrics::Metrics;
pub use open_files::{file_limit, raise_file_limit};
pub use pages::{Page, Pages, Posted};
pub use random::unguessable;
pub use readiness::{Condition, Readiness};
pub use secret::Secret;
pub use tasks::{TaskPanic, Tasks, Unfinished};
pub use telemetry::{LogFormat, LogSettings, Telemetry, TelemetryError};
pub use tls::{Tls, TlsError};
use tokio_util::sync::CancellationToken;

/// What a process lends to the services in it. Clones share it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Where metrics are registered.
    pub metrics: Metrics,
    /// Where conditions of readiness are stated.
    pub readiness: Readiness,
    /// Pages of the admin listener; services add theirs.
    pub pages: Pages,
    /// Who owns the tasks. A panic among them ends the process.
    pub tasks: Tasks,
    once: once::Once,
}

impl Service {
    /// Everything that a service needs, ended by `shutdown`.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        let metrics = Metrics::new();
        let readiness = Readiness::default();
        let pages = Pages::new(&metrics, &readiness);
        Self { metrics, readiness, pages, tasks: Tasks::new(shutdown), once: once::Once::default() }
    }

    /// The one `T` that all services of this process share; made by whoever asks first, while the others wait.
    ///
    /// # Errors
    /// That of `make`; whoever asks next tries again.
    pub async fn once<T, E>(&self, make: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        T: Clone + Send + Sync + 'static,
    {
        self.once.get(make).await
    }
}

/// The section `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Whether there is an admin listener.
    pub enabled: bool,
    /// Where it listens: loopback unless told otherwise, since its pages ask for no credential.
    pub listen: SocketAddr,
}

impl AdminSettings {
    /// Reads the section; each service has a port of its own as the default.
    pub fn read(section: &settings::Section<'_>, default_port: u16) -> Self {
        Self {
            enabled: section.flag("enabled", true),
            listen: section.address("listen", SocketAddr::from(([127, 0, 0, 1], default_port))),
        }
    }
}

/// The environment's variables that are text.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
