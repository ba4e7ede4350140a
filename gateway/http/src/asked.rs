// SPDX-License-Identifier: AGPL-3.0-only
//! One interaction as it goes to workers: what Discord posted, what was read of it, and until when an answer counts.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use holdfast_discord::interaction::{Interaction, InteractionKind};
use tokio::time::Instant;

use crate::routes::Rule;
use crate::settings::{Config, Defer, WayKind};
use crate::ticket::{Deferral, Ticket};

/// A request of Discord's whose signature is right.
#[derive(Clone)]
pub(crate) struct Posted {
    pub(crate) body: Bytes,
    pub(crate) content_type: String,
    pub(crate) signature: String,
    pub(crate) timestamp: String,
    /// W3C trace context; empty without one.
    pub(crate) trace: String,
    pub(crate) received: Instant,
    /// The same, in microseconds of Unix time.
    pub(crate) received_us: u64,
}

/// See the module's documentation.
pub(crate) struct Asked {
    pub(crate) posted: Posted,
    pub(crate) kind: InteractionKind,
    /// The command's name, or the `custom_id`.
    pub(crate) name: String,
    /// 0: none.
    pub(crate) guild: u64,
    pub(crate) ticket: Ticket,
    pub(crate) rule: Arc<Rule>,
    /// When Discord is told to wait.
    pub(crate) answer_by: Instant,
    /// Until when a later reply can be used; the same as `answer_by` where none can.
    pub(crate) late_until: Instant,
}

impl Asked {
    pub(crate) fn new(
        posted: Posted,
        interaction: &Interaction<'_>,
        rule: Arc<Rule>,
        config: &Config,
    ) -> Self {
        let kind = interaction.kind();
        // What only clients of the WebSocket front are asked for nobody can answer later.
        let later = rule.ways.iter().any(|way| *way != WayKind::WebSocket);
        let defer = if later { rule.defer } else { Defer::Never };
        let deferral = deferral(kind, interaction.has_message(), defer);
        let answer_by = posted.received + config.answer_within;
        let late = if deferral == Deferral::None { Duration::ZERO } else { config.late_within };
        let received_ms = posted.received_us / 1_000;
        let after = |time: Duration| received_ms + u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
        let number = |text: &str| text.parse().unwrap_or(0);
        let ticket = Ticket {
            id: number(&interaction.id),
            application: number(&interaction.application_id),
            has_message: interaction.has_message(),
            deferral,
            answer_by_ms: after(config.answer_within),
            late_until_ms: after(config.late_within),
            ..Ticket::new(kind, &interaction.token)
        };
        Self {
            kind,
            name: interaction.name().to_owned(),
            guild: interaction.guild_id.as_deref().map_or(0, number),
            ticket,
            rule,
            answer_by,
            late_until: answer_by.max(posted.received + late),
            posted,
        }
    }

    /// Until when a later reply can be used without the worker's having told Discord itself to wait, in milliseconds of
    /// Unix time. 0: it can't.
    pub(crate) fn late_until_ms(&self) -> u64 {
        if self.ticket.deferral == Deferral::None { 0 } else { self.ticket.late_until_ms }
    }
}

/// What Discord can be told of such an interaction ("Interaction Callback Type").
fn deferral(kind: InteractionKind, has_message: bool, defer: Defer) -> Deferral {
    let ephemeral = defer == Defer::Ephemeral;
    match kind {
        _ if defer == Defer::Never => Deferral::None,
        InteractionKind::Command => Deferral::Message { ephemeral },
        InteractionKind::Component if ephemeral => Deferral::Message { ephemeral },
        InteractionKind::Component => Deferral::Update,
        InteractionKind::Modal if has_message && !ephemeral => Deferral::Update,
        InteractionKind::Modal => Deferral::Message { ephemeral },
        InteractionKind::Ping | InteractionKind::Autocomplete | InteractionKind::Other(_) => Deferral::None,
    }
}

/// Microseconds of Unix time.
pub(crate) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discord_is_told_what_fits_the_kind() {
        let public = |kind, has_message| deferral(kind, has_message, Defer::Public);
        assert_eq!(public(InteractionKind::Command, false), Deferral::Message { ephemeral: false });
        assert_eq!(public(InteractionKind::Component, true), Deferral::Update);
        assert_eq!(public(InteractionKind::Modal, true), Deferral::Update);
        assert_eq!(public(InteractionKind::Modal, false), Deferral::Message { ephemeral: false });
        assert_eq!(public(InteractionKind::Autocomplete, false), Deferral::None);
        let alone = Deferral::Message { ephemeral: true };
        for kind in [InteractionKind::Command, InteractionKind::Component, InteractionKind::Modal] {
            assert_eq!(deferral(kind, true, Defer::Ephemeral), alone);
            assert_eq!(deferral(kind, true, Defer::Never), Deferral::None);
        }
    }
}
