// SPDX-License-Identifier: AGPL-3.0-only
//! What a client's task knows of what writes to its client: the pump of one shard, or that of several.

use std::task::{Context, Poll};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{link::Writing, pump::Stopped, query::Refused};
use crate::log::OwnedRun;

/// What a client gets its events from, and where its place is noted.
pub(super) trait Outlet: Sized {
    /// The way to the client's socket.
    fn writing(&mut self) -> &mut Writing;

    /// The same, for good.
    fn into_writing(self) -> Writing;

    /// Takes a payload of the client's that is no heartbeat.
    fn command(&mut self, op: u64, data: Value) -> Result<(), Refused>;

    /// A heartbeat: the client has everything up to this sequence, and what was filtered away since.
    fn confirm(&mut self, sequence: u64);

    /// The same, as it came. Whether that is all that whoever was asked for it has to say.
    fn heartbeat(&mut self, data: &Value) -> bool {
        if let Some(sequence) = data.as_u64() {
            self.confirm(sequence);
        }
        true
    }

    /// Everything that was to be written has been.
    fn flushed(&mut self);

    /// Notes the client's place in its session.
    fn note(&mut self);

    /// How much [`Stopped::Disk`] may bring.
    fn read_bytes(&self) -> usize;

    /// Takes what [`Stopped::Disk`] asked for.
    fn read(&mut self, run: OwnedRun);

    /// The connection is over: the session waits for its client. `ended`: the client closed with 1000 or 1001, which
    /// ends a session ("Initiating a Disconnect").
    fn detach(&mut self, ended: bool);

    /// Tells the client where events may be missing, if its session ends for that reason.
    fn tell_gap(&mut self);
}

/// Where a client's task finds its outlet while that is woken by others.
pub(super) trait Place: Sized {
    type Outlet: Outlet;

    /// Writes until nothing is left or the socket takes no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stopped>;

    /// Does something with the outlet.
    fn with<T>(&mut self, what: impl FnOnce(&mut Self::Outlet) -> T) -> T;

    /// What asks the client to go: one for each shard that serves it, at least one.
    fn leaving(&self) -> Vec<CancellationToken>;

    /// Nobody wakes the outlet any more. None: somebody else holds on to it, which nobody does.
    fn leave(self) -> Option<Self::Outlet>;
}
