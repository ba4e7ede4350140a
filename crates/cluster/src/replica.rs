// SPDX-License-Identifier: AGPL-3.0-only
//! What replicas tell each other about themselves, and the guard that keeps strangers out. Plain values; a replica's
//! entry is stored as JSON: unknown fields are skipped, absent new ones get their default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ReplicaId, Unavailable};

/// Who this replica is, for as long as its process lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random; or the one that the process before had in the same `state_dir`. Whoever holds the lock on that
    /// directory knows that the process before is dead, and takes its shards again without waiting for anything.
    pub id: ReplicaId,
    /// The bot.
    pub application: u64,
    /// Where other replicas reach this one: `HOST:PORT` of its internal listener.
    pub address: String,
}

/// How a replica stands: told again with every heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Shards of the whole bot.
    pub total: u32,
    /// Its share of the shards, relative to the others'.
    pub weight: u32,
    /// The most shards that it takes.
    pub max_shards: Option<u32>,
    /// It is about to stop: it keeps what it has until that is handed over, and takes nothing.
    pub draining: bool,
    /// When its process began, milliseconds of Unix time.
    pub started_unix_ms: u64,
}

/// A replica that lives, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its name.
    pub id: ReplicaId,
    /// Where it is reached.
    pub address: String,
    /// Its share of the shards, relative to the others'.
    pub weight: u32,
    /// The most shards that it takes.
    #[serde(default)]
    pub max_shards: Option<u32>,
    /// It takes nothing any more.
    #[serde(default)]
    pub draining: bool,
    /// When its process began, milliseconds of Unix time.
    #[serde(default)]
    pub started_unix_ms: u64,
}

impl Replica {
    pub(crate) fn new(identity: &Identity, standing: &Standing) -> Replica {
        Replica {
            id: identity.id,
            address: identity.address.clone(),
            weight: standing.weight,
            max_shards: standing.max_shards,
            draining: standing.draining,
            started_unix_ms: standing.started_unix_ms,
        }
    }
}

/// Something that another replica did. A hint that saves a poll, never the only way to learn of it: while the store
/// is away nothing is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A shard was released: its new owner may take it.
    Released(crate::ShardId),
    /// A replica came, went, or stands differently.
    Replicas,
    /// A change of the count of shards has begun, gone into its next phase, had its last old shard cut, or is over:
    /// see [`Cluster::reshard`](crate::Cluster::reshard).
    Reshard,
    /// What was told may have been missed (the store is back): look at everything.
    Missed,
}

/// Another fleet works under the prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetConflict {
    /// Another bot's.
    #[error(
        "another bot ({theirs}) works under the prefix \"{prefix}\" of the shared store, this one is {ours}: \
         give each bot its own cluster.prefix"
    )]
    Application {
        /// `cluster.prefix`.
        prefix: String,
        /// This bot.
        ours: u64,
        /// The other one.
        theirs: u64,
        /// When its record lapses unless somebody refreshes it; `None` while one of its replicas lives.
        lapses_in: Option<Duration>,
    },
    /// One with another count of shards.
    #[error(
        "replicas with {theirs} shards work under the prefix \"{prefix}\" of the shared store, this one has \
         {ours}: set ws.shards.total = {theirs}, or stop all of them first, or reshard"
    )]
    Count {
        /// `cluster.prefix`.
        prefix: String,
        /// Our count.
        ours: u32,
        /// Theirs.
        theirs: u32,
        /// When their record lapses unless somebody refreshes it; `None` while one of them lives.
        lapses_in: Option<Duration>,
    },
}

impl FleetConflict {
    /// When the other fleet's record lapses unless one of its replicas shows itself. Until then, ask at least
    /// every renewal interval; `None`: one of them lives, and waiting is no use.
    #[must_use]
    pub fn lapses_in(&self) -> Option<Duration> {
        match self {
            Self::Application { lapses_in, .. } | Self::Count { lapses_in, .. } => *lapses_in,
        }
    }
}

/// Why a replica isn't registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    /// The store can't be asked: everybody goes on with what they have.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// This fleet isn't the one that works under the prefix.
    #[error(transparent)]
    Conflict(#[from] FleetConflict),
}
