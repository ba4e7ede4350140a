// SPDX-License-Identifier: AGPL-3.0-only
//! The section `[ws.reshard]`: what the user wrote comes in, checked values go out.

use std::time::Duration;

use holdfast_service::settings::Section;

use super::{SECOND, Shards};

/// The section `[ws.reshard]`: changing the count of shards while the bot runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reshard {
    /// Whether the bot follows Discord when it recommends more shards than there are; only with `shards.total` open.
    pub automatic: bool,
    /// How long both counts have the same events before the old shards are cut: longer than an event takes to come over
    /// one connection when it has come over the other.
    pub overlap: Duration,
}

impl Reshard {
    pub(super) fn read(reshard: &Section<'_>, shards: &Shards) -> Self {
        let automatic = reshard.flag("automatic", false);
        if automatic && shards.total.is_some() {
            reshard.problem("automatic", "ws.shards.total is set: make it \"auto\", or leave this off");
        }
        Self { automatic, overlap: reshard.duration("overlap", 10 * SECOND, SECOND / 10..=30 * SECOND) }
    }
}
