// SPDX-License-Identifier: AGPL-3.0-only
//! Who may identify when. In: shards that wish to, Discord's figures. Out: permits, one per bucket and interval, lowest
//! shard first; an error when the day's budget is used up. One process keeps them by itself, replicas in the store.
//! Owned by the service; clones share one queue.

mod local;

use std::time::Duration;

use holdfast_discord::limits::SessionStartLimit;

pub(crate) use self::local::Local;
pub use self::local::PermitsState;
use crate::cluster::Backend;
use crate::valkey::SharedPermits;
use crate::{Cluster, Store};

/// Permits to identify: for all shards of this process, or of all replicas.
#[derive(Clone, Debug)]
pub struct Permits {
    queue: Queue,
}

#[derive(Clone, Debug)]
enum Queue {
    Local(Local),
    Shared(SharedPermits),
}

/// The day's IDENTIFYs are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no IDENTIFY is left today: Discord renews them in {} minutes", renewed_in.as_secs().div_ceil(60))]
pub struct Exhausted {
    /// Time until there are new ones.
    pub renewed_in: Duration,
}

impl Permits {
    /// Permits within `limit`, Discord's answer of this moment, and within what the store remembers. Blocks.
    #[must_use]
    pub fn new(store: &Store, limit: SessionStartLimit) -> Permits {
        Permits { queue: Queue::Local(Local::new(store, limit)) }
    }

    /// Permits of all replicas together, within `limit`, Discord's answer of this moment, and within what they know.
    /// Times are the store's. Blocks where replicas share the memory of one process.
    #[must_use]
    pub fn shared(cluster: &Cluster, limit: SessionStartLimit) -> Permits {
        let queue = match &cluster.backend {
            Backend::Memory(memory, _) => Queue::Local(memory.permits(limit)),
            Backend::Valkey(valkey) => Queue::Shared(SharedPermits::new(valkey, limit)),
        };
        Permits { queue }
    }

    /// Waits for the shard's turn; then the IDENTIFY counts as sent. While the shared store is away, nobody's turn
    /// comes. Dropping the future gives the turn up.
    ///
    /// # Errors
    /// When the day's budget is used up.
    pub async fn acquire(&self, shard: u32) -> Result<(), Exhausted> {
        match &self.queue {
            Queue::Local(local) => local.acquire(shard).await,
            Queue::Shared(shared) => shared.acquire(shard).await,
        }
    }

    /// Discord answered the shard's IDENTIFY with INVALID_SESSION: somebody else had used its turn.
    pub fn refused(&self, shard: u32) {
        match &self.queue {
            Queue::Local(local) => local.refused(shard),
            Queue::Shared(shared) => shared.refused(shard),
        }
    }

    /// Takes over a newer answer of Discord's. Among replicas, the lower of two figures for the same day counts: one
    /// may be behind what another replica has just been granted.
    pub fn update(&self, limit: SessionStartLimit) {
        match &self.queue {
            Queue::Local(local) => local.update(limit),
            Queue::Shared(shared) => shared.update(limit),
        }
    }

    /// IDENTIFYs that are left today, as last heard, without those that are kept back.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        match &self.queue {
            Queue::Local(local) => local.remaining(),
            Queue::Shared(shared) => shared.remaining(),
        }
    }

    /// Discord's figures as last heard.
    #[must_use]
    pub fn limit(&self) -> SessionStartLimit {
        match &self.queue {
            Queue::Local(local) => local.limit(),
            Queue::Shared(shared) => shared.limit(),
        }
    }
}
