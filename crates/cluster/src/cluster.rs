// SPDX-License-Identifier: AGPL-3.0-only
//! A replica's handle on what replicas share. In: its heartbeats, its wishes for shards, its records. Out: who lives,
//! who owns what, records of shards that it takes over. One interface over Redis and over one process's memory.

use holdfast_service::Tasks;
use tokio::sync::{broadcast, watch};

use crate::valkey::{CaFileError, Valkey};
use crate::{
    Acquired, Change, ClientRecord, Fenced, Guilds, HeartbeatError, Identity, Lease, Memory, Owner, Progress,
    Renewed, Replica, SessionRecord, Settings, ShardId, Standing, StoreState, Unavailable, WriteError,
};

/// A replica's handle on what replicas share; clones are the same replica's.
///
/// Every call answers within `cluster.timeout`, or says that the store is [`Unavailable`]; then it may or may not have
/// been done, and can be asked again: each of them may be done twice.
///
#[doc = include_str!("../README.md")]
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) backend: Backend,
}

#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Memory(Memory, Identity),
    Valkey(Valkey),
}

impl Cluster {
    /// A replica on Redis or Valkey. Connects in the background, for ever: see [`Cluster::state`]. The connections end
    /// with the last handle, not when `tasks` are asked to: leases are released while all else ends. A panic there is
    /// the owner's of `tasks`.
    ///
    /// # Errors
    /// When `ca_file` can't be used.
    pub fn start(settings: &Settings, identity: Identity, tasks: &Tasks) -> Result<Cluster, CaFileError> {
        Ok(Cluster { backend: Backend::Valkey(Valkey::start(settings, identity, tasks)?) })
    }

    /// A replica that shares with those of this process only.
    #[must_use]
    pub fn within(memory: &Memory, identity: Identity) -> Cluster {
        Cluster { backend: Backend::Memory(memory.clone(), identity) }
    }

    /// Who this replica is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        match &self.backend {
            Backend::Memory(_, identity) => identity,
            Backend::Valkey(valkey) => valkey.identity(),
        }
    }

    /// Whether the store can be reached, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<StoreState> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.state(),
            Backend::Valkey(valkey) => valkey.state(),
        }
    }

    /// Waits for the first connection.
    ///
    /// # Errors
    /// When the store refuses us, so that waiting is no use: [`Unavailable::is_refused`].
    pub async fn connected(&self) -> Result<(), Unavailable> {
        let mut state = self.state();
        loop {
            match &*state.borrow_and_update() {
                StoreState::Connected => return Ok(()),
                StoreState::Down { why, .. } if why.is_refused() => return Err(why.clone()),
                StoreState::Down { .. } => {}
            }
            if state.changed().await.is_err() {
                return Err(crate::unavailable::Cause::Starting.into());
            }
        }
    }

    /// What other replicas do, as they do it. Hints that save a poll: see [`Change`].
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.changes(),
            Backend::Valkey(valkey) => valkey.changes(),
        }
    }

    /// Registers this replica for one expiry, and gives all that live, this one among them. Due every renewal
    /// interval, at once when [`Cluster::state`] turns to connected, and when its standing changes.
    ///
    /// # Errors
    /// The store is away; or another fleet works under the prefix, and this one must not begin.
    pub async fn heartbeat(&self, standing: &Standing) -> Result<Vec<Replica>, HeartbeatError> {
        match &self.backend {
            Backend::Memory(memory, identity) => Ok(memory.heartbeat(identity, standing)?),
            Backend::Valkey(valkey) => valkey.heartbeat(standing).await,
        }
    }

    /// Takes this replica off the list. The last one to leave makes room for another fleet.
    ///
    /// # Errors
    /// The store is away: the registration lapses by itself.
    pub async fn leave(&self) -> Result<(), Unavailable> {
        match &self.backend {
            Backend::Memory(memory, identity) => {
                memory.leave(identity);
                Ok(())
            }
            Backend::Valkey(valkey) => valkey.leave().await,
        }
    }

    /// Changes the fleet's count of shards, if it is `from` (or `to` already). Replicas of the old count then get
    /// [`HeartbeatError::Conflict`]. `false`: the count is another, nothing was done.
    ///
    /// # Errors
    /// The store is away.
    pub async fn replace_total(&self, from: u32, to: u32) -> Result<bool, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => Ok(memory.replace_total(from, to)),
            Backend::Valkey(valkey) => valkey.replace_total(from, to).await,
        }
    }

    /// The count of shards that this bot's fleet has, for a process that leaves it to the fleet. Also of one of which
    /// nobody has been heard for a while: after an outage it is still there, after a crash its sessions may be
    /// resumed. After an hour it counts for nothing.
    ///
    /// # Errors
    /// The store is away.
    pub async fn fleet_total(&self) -> Result<Option<u32>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, identity) => Ok(memory.fleet_total(identity)),
            Backend::Valkey(valkey) => valkey.fleet_total().await,
        }
    }

    /// Removes everything about the shards of a count that isn't used any more.
    ///
    /// # Errors
    /// The store is away, or refuses.
    pub async fn forget(&self, total: u32) -> Result<(), Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.forget(total).await,
            Backend::Valkey(valkey) => valkey.forget(total).await,
        }
    }

    /// Wishes to own shards; the answers are in their order. Asking again for one's own gives the same lease.
    ///
    /// # Errors
    /// The store is away: nobody takes over anything.
    pub async fn acquire(&self, shards: &[ShardId]) -> Result<Vec<Acquired>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, identity) => memory.acquire(identity, shards).await,
            Backend::Valkey(valkey) => valkey.acquire(shards).await,
        }
    }

    /// Renews leases for one expiry, in one round trip; the answers are in their order. Due every renewal interval
    /// and at once when [`Cluster::state`] turns to connected. A lapsed lease that nobody has taken is renewed, too;
    /// what the store has lost is told to it.
    ///
    /// # Errors
    /// The store is away: go on with what you have.
    pub async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewed>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, identity) => Ok(memory.renew(identity, leases)),
            Backend::Valkey(valkey) => valkey.renew(leases).await,
        }
    }

    /// Gives leases up, so that others may take the shards at once; those who listen to [`Cluster::changes`] hear of
    /// it. Those that are lost already are passed over. No write under them is taken afterwards.
    ///
    /// # Errors
    /// The store is away: they lapse by themselves.
    pub async fn release(&self, leases: &[Lease]) -> Result<(), Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => {
                memory.release(leases);
                Ok(())
            }
            Backend::Valkey(valkey) => valkey.release(leases).await,
        }
    }

    /// Who owns shards, in their order.
    ///
    /// # Errors
    /// The store is away.
    pub async fn owners(&self, shards: &[ShardId]) -> Result<Vec<Option<Owner>>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => Ok(memory.owners(shards)),
            Backend::Valkey(valkey) => valkey.owners(shards).await,
        }
    }

    /// Saves sessions' records, each under its lease; the answers are in their order. One that is fenced doesn't
    /// hinder the others.
    ///
    /// # Errors
    /// The store is away.
    pub async fn save_sessions(
        &self,
        sessions: &[(Lease, &SessionRecord)],
    ) -> Result<Vec<Result<(), Fenced>>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.save_sessions(sessions).await,
            Backend::Valkey(valkey) => valkey.save_sessions(sessions).await,
        }
    }

    /// Saves what of sessions' records changes all the time.
    ///
    /// # Errors
    /// The store is away.
    pub async fn save_progress(
        &self,
        progress: &[(Lease, Progress)],
    ) -> Result<Vec<Result<(), Fenced>>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.save_progress(progress).await,
            Backend::Valkey(valkey) => valkey.save_progress(progress).await,
        }
    }

    /// Sessions' records with their latest progress, in the order of the shards. One that can't be read counts as
    /// absent, with a warning.
    ///
    /// # Errors
    /// The store is away.
    pub async fn load_sessions(&self, shards: &[ShardId]) -> Result<Vec<Option<SessionRecord>>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.load_sessions(shards).await,
            Backend::Valkey(valkey) => valkey.load_sessions(shards).await,
        }
    }

    /// Forgets a session: there is nothing to resume.
    ///
    /// # Errors
    /// The store is away, or the shard is another's.
    pub async fn forget_session(&self, lease: &Lease) -> Result<(), WriteError> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.forget_session(lease).await,
            Backend::Valkey(valkey) => valkey.forget_session(lease).await,
        }
    }

    /// Saves all clients' sessions of a shard, in the place of those saved before.
    ///
    /// # Errors
    /// The store is away, or the shard is another's.
    pub async fn save_clients(&self, lease: &Lease, clients: &[ClientRecord]) -> Result<(), WriteError> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.save_clients(lease, clients).await,
            Backend::Valkey(valkey) => valkey.save_clients(lease, clients).await,
        }
    }

    /// Clients' sessions of a shard. Those that can't be read count as absent, with a warning.
    ///
    /// # Errors
    /// The store is away.
    pub async fn load_clients(&self, shard: ShardId) -> Result<Vec<ClientRecord>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.load_clients(shard).await,
            Backend::Valkey(valkey) => valkey.load_clients(shard).await,
        }
    }

    /// Saves guilds' checkpoints as they are: whoever saves them compresses them. Many go in few round trips, not in
    /// one transaction: on an error some may be written. A single process without files keeps none.
    ///
    /// # Errors
    /// The store is away, or the shard is another's.
    pub async fn save_guilds(&self, lease: &Lease, guilds: &[(u64, Vec<u8>)]) -> Result<(), WriteError> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.save_guilds(lease, guilds).await,
            Backend::Valkey(valkey) => valkey.save_guilds(lease, guilds).await,
        }
    }

    /// Removes guilds' checkpoints.
    ///
    /// # Errors
    /// The store is away, or the shard is another's.
    pub async fn remove_guilds(&self, lease: &Lease, guilds: &[u64]) -> Result<(), WriteError> {
        match &self.backend {
            Backend::Memory(memory, _) => memory.remove_guilds(lease, guilds).await,
            Backend::Valkey(valkey) => valkey.remove_guilds(lease, guilds).await,
        }
    }

    /// All guilds' checkpoints of a shard, a page at a time.
    #[must_use]
    pub fn guilds(&self, shard: ShardId) -> Guilds {
        match &self.backend {
            Backend::Memory(memory, _) => Guilds::stored(memory.shard(shard)),
            Backend::Valkey(valkey) => Guilds::shared(valkey.clone(), shard),
        }
    }
}
