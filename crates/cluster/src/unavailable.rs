// SPDX-License-Identifier: AGPL-3.0-only
//! Whether the store that replicas share can be asked, and why not. Plain values.

use std::time::Duration;

use tokio::time::Instant;

/// The store could not be asked, or didn't answer in time. What was asked may or may not have been done: everything
/// can be asked again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Unavailable(Cause);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    #[error("the shared store has not been reached yet")]
    Starting,
    #[error("the shared store can't be reached: {0}")]
    Unreachable(String),
    #[error("the shared store doesn't answer within {} ms (cluster.timeout)", .0.as_millis())]
    Silent(Duration),
    #[error("the shared store refuses us: {0}")]
    Refused(String),
    #[error("the shared store can't do what it should: {0}")]
    Failed(String),
}

impl Unavailable {
    /// Whether trying again won't help before a setting is changed: credentials, rights, the service's name.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.0, Cause::Refused(_))
    }
}

impl From<Cause> for Unavailable {
    fn from(cause: Cause) -> Unavailable {
        Unavailable(cause)
    }
}

/// How the connection to the store stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// There is one.
    Connected,
    /// There is none; one is tried for, for ever.
    Down {
        /// Since when.
        since: Instant,
        /// Why the latest attempt failed.
        why: Unavailable,
    },
}

impl StoreState {
    /// Whether calls have a chance.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected)
    }
}
