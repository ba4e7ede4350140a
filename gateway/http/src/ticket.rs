// SPDX-License-Identifier: AGPL-3.0-only
//! What a late reply needs to reach Discord, from whichever process: it travels with the interaction to the worker and back
//! with the reply. Opaque to workers; it holds the interaction's token.

use std::fmt;

use bytes::Bytes;
use holdfast_discord::interaction::InteractionKind;
use serde::{Deserialize, Serialize};

/// What Discord is told if nobody answers in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deferral {
    /// Nothing that a later reply could follow.
    None,
    /// That a message follows.
    Message {
        /// Only the user sees it.
        ephemeral: bool,
    },
    /// That the component's message may be edited.
    Update,
}

/// See the module's documentation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// Id of the interaction.
    pub(crate) id: u64,
    pub(crate) application: u64,
    /// The interaction's token.
    pub(crate) token: String,
    pub(crate) kind: u64,
    pub(crate) has_message: bool,
    pub(crate) deferral: Deferral,
    /// When Discord is told, in milliseconds of Unix time.
    pub(crate) answer_by_ms: u64,
    /// When it is too late, in milliseconds of Unix time.
    pub(crate) late_until_ms: u64,
}

impl Ticket {
    pub(crate) fn new(kind: InteractionKind, token: &str) -> Self {
        let kind = match kind {
            InteractionKind::Ping => 1,
            InteractionKind::Command => 2,
            InteractionKind::Component => 3,
            InteractionKind::Autocomplete => 4,
            InteractionKind::Modal => 5,
            InteractionKind::Other(number) => number,
        };
        Self {
            id: 0,
            application: 0,
            token: token.to_owned(),
            kind,
            has_message: false,
            deferral: Deferral::None,
            answer_by_ms: 0,
            late_until_ms: 0,
        }
    }

    pub(crate) fn kind(&self) -> InteractionKind {
        self.kind.into()
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(crate) fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("id", &self.id)
            .field("deferral", &self.deferral)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_comes_back_as_it_went_and_shows_no_token() {
        let deferral = Deferral::Message { ephemeral: true };
        let ticket = Ticket { id: 7, deferral, ..Ticket::new(InteractionKind::Other(99), "hunter2") };
        assert_eq!(Ticket::read(&ticket.bytes()), Some(ticket.clone()));
        assert_eq!(ticket.kind(), InteractionKind::Other(99));
        assert!(!format!("{ticket:?}").contains("hunter2"));
        assert_eq!(Ticket::read(b"{}"), None);
    }
}
