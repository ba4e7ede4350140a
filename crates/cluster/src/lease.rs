// SPDX-License-Identifier: AGPL-3.0-only
//! The right to own a shard for a while, and its fencing number. Plain values; the rules are in the README.

use std::time::Duration;

use crate::{ReplicaId, ShardId, Unavailable};

/// The right to own a shard until it lapses, and the proof of it afterwards. Every write names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The shard.
    pub shard: ShardId,
    /// Who owns it.
    pub owner: ReplicaId,
    /// The fencing number: each owner's is above that of all before it. A shard's first is the store's clock in
    /// seconds, so that numbers rise even over a store that has lost everything.
    pub generation: u64,
}

/// Who owns a shard, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The replica.
    pub replica: ReplicaId,
    /// Where it is reached.
    pub address: String,
    /// Its fencing number.
    pub generation: u64,
}

/// Answer to a wish to own a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours.
    Granted(Lease),
    /// Somebody has it.
    Held(Owner),
    /// The store was away, and its last owner may come back for it this long.
    Reserved(Duration),
}

/// Answer to a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It is still ours, for one expiry from now.
    Held,
    /// It isn't ours any more: stop, resumably. With its owner, if it has one now.
    Lost(Option<Owner>),
}

/// A write under a lease that isn't the latest any more. Nothing was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "shard {shard} belongs to generation {latest} by now: a write of generation {generation} was refused"
)]
pub struct Fenced {
    /// The shard.
    pub shard: ShardId,
    /// The generation that wished to write.
    pub generation: u64,
    /// The latest one. The same number: it was released before the write.
    pub latest: u64,
}

/// Why a shard's records were not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The store can't be reached, or can't write: it may or may not have been written.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The shard is another's: nothing was written.
    #[error(transparent)]
    Fenced(#[from] Fenced),
}
