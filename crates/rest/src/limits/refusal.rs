// SPDX-License-Identifier: AGPL-3.0-only
//! Why a request isn't sent, and when to come again. Plain values.

use std::time::Duration;

/// Why a request isn't sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its turn doesn't come before its deadline.
    #[error("the turn of this request comes after its deadline")]
    Late {
        /// When it could be sent, about.
        retry_after: Duration,
    },
    /// Too many wait already.
    #[error("too many requests wait already")]
    Full {
        /// When to try again.
        retry_after: Duration,
    },
    /// So many requests were invalid that Discord would ban this address.
    #[error("too many requests were answered with 401, 403 or 429: more would get this address banned")]
    Guarded {
        /// When some of them are long enough ago.
        retry_after: Duration,
    },
    /// Discord has banned this address.
    #[error("Discord has banned this address for a while")]
    Banned {
        /// When it is over, as far as was told.
        retry_after: Duration,
    },
    /// Discord doesn't know the token.
    #[error("Discord does not know this token: it was refused lately")]
    Token,
    /// Discord doesn't know the webhook.
    #[error("Discord does not know this webhook: it was refused lately")]
    Webhook,
    /// Whoever sends it is ending.
    #[error("the service is ending")]
    Stopped,
}

impl Refusal {
    /// A short name for metrics and the header `Holdfast-Error`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Late { .. } => "late",
            Self::Full { .. } => "full",
            Self::Guarded { .. } => "guarded",
            Self::Banned { .. } => "banned",
            Self::Token => "token-refused",
            Self::Webhook => "webhook-gone",
            Self::Stopped => "stopped",
        }
    }

    /// When to come again, if that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Late { retry_after }
            | Self::Full { retry_after }
            | Self::Guarded { retry_after }
            | Self::Banned { retry_after } => Some(*retry_after),
            Self::Token | Self::Webhook | Self::Stopped => None,
        }
    }
}
