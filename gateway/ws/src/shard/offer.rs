// SPDX-License-Identifier: AGPL-3.0-only
//! An event for exactly one client of a shard, outside of the log: it has no position, isn't replayed, and is worth
//! nothing a moment later. In: its name and `d`. Out: the same at the reader that takes it, and a word when that one has
//! written it. Dropped unwritten, whoever waits for the word learns that.

use std::fmt;

use bytes::Bytes;
use tokio::sync::oneshot;

/// What a reader may hold of them, not yet written: a client that is so far behind is no client for more.
pub(crate) const MAX_OFFERS: usize = 64;

/// See the module's documentation.
pub(crate) struct Offer {
    /// The event's name.
    pub(crate) name: &'static str,
    /// Its guild, 0 for none.
    pub(crate) guild: u64,
    /// Its `d`.
    pub(crate) data: Bytes,
    written: oneshot::Sender<()>,
}

/// Told when the event is written. Err: it was not.
pub(crate) type Written = oneshot::Receiver<()>;

impl fmt::Debug for Offer {
    /// Without `data`: an interaction's token is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("name", &self.name).field("guild", &self.guild).finish_non_exhaustive()
    }
}

impl Offer {
    pub(crate) fn new(name: &'static str, guild: u64, data: Bytes) -> (Self, Written) {
        let (written, told) = oneshot::channel();
        (Self { name, guild, data, written }, told)
    }

    /// Whether nobody wants it any more.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.written.is_closed()
    }

    /// The client has it.
    pub(crate) fn written(self) {
        // Whoever asked may have stopped waiting.
        let _ = self.written.send(());
    }
}
