// SPDX-License-Identifier: AGPL-3.0-only
//! What the limits need to know. Defaults stand beside what they fill; docs/configuration.md has the arithmetic.

use std::time::Duration;

/// Bounds of what is sent, and of who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Requests a second of one token.
    pub global_limit: u32,
    /// How long a request may be on its way until Discord counts it. Its answer shows that it was counted; only one
    /// that takes longer is taken to have been.
    pub global_margin: Duration,
    /// Requests that may wait, of all tokens together.
    pub max_waiting: usize,
    /// How often a request is sent in all, if it gets 429s.
    pub attempts: u32,
    /// Invalid requests in ten minutes from which on requests are spaced, and at which none is sent.
    pub invalid_brake: u32,
    /// See `invalid_brake`.
    pub invalid_stop: u32,
    /// The name of the address from which Discord is reached: replicas that share the address share the name.
    pub egress: String,
    /// How long a token is refused that Discord doesn't know.
    pub token_refused_for: Duration,
    /// How long a webhook is refused that Discord doesn't know.
    pub webhook_gone_for: Duration,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            global_limit: 50,
            // Five times a usual way; a busy machine was seen to take 150 ms.
            global_margin: Duration::from_millis(250),
            // × about 16 KiB of a connection that waits: 256 MiB at worst.
            max_waiting: 16_384,
            attempts: 5,
            invalid_brake: 8_000,
            invalid_stop: 9_500,
            egress: "egress".to_owned(),
            token_refused_for: Duration::from_secs(300),
            webhook_gone_for: Duration::from_secs(3600),
        }
    }
}
