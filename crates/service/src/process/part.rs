// SPDX-License-Identifier: AGPL-3.0-only
//! A service as its process sees it: bound to its listener, not yet running.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{Exit, Service};

/// Starts a service, waits for its end, asked for by the token or not, and says how it went. What went wrong it logs
/// itself.
pub type Life = Box<dyn FnOnce(Service, CancellationToken) -> BoxFuture<'static, Exit> + Send>;

/// A service in a process.
pub struct Part {
    /// The service's name, which names its address too.
    pub name: &'static str,
    /// Where programs reach it.
    pub url: String,
    /// Where people find it: a line of its own, without its end.
    pub greeting: String,
    /// The pages that it adds to the admin listener.
    pub pages: &'static [&'static str],
    /// How long it may take to drain.
    pub drain: Duration,
    /// The setting that says so.
    pub drain_setting: &'static str,
    /// All that it does.
    pub life: Life,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}
