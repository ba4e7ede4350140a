// SPDX-License-Identifier: AGPL-3.0-only
//! A shard's records: on this process's disk, and, with replicas, what is on its way to the store that they share.
//!
//! In: what the shard saves, without ever waiting. Out: files; [`Pending`] records, which the replica's task fetches,
//! the latest of each kind.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use holdfast_cluster::{
    ClientRecord, Cluster, Lease, Progress, Saved, SessionRecord, ShardStore, WriteError, WriteFailed,
};

use super::Tenure;

/// Where one shard's records go. Clones go to the same places.
#[derive(Clone)]
pub(crate) struct Records {
    pub(crate) local: ShardStore,
    shared: Option<Arc<Shared>>,
}

struct Shared {
    cluster: Cluster,
    lease: Lease,
    pending: Mutex<Pending>,
    /// Discord's sequence from which another replica would resume: the latest that the store has.
    resumable: AtomicU64,
    tenure: Arc<Tenure>,
    lost: AtomicBool,
}

/// What the store hasn't got yet.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) session: Option<SessionRecord>,
    pub(crate) progress: Option<Progress>,
    pub(crate) clients: Option<Vec<ClientRecord>>,
    /// Guilds that the bot has left.
    pub(crate) removed: Vec<u64>,
}

impl Records {
    /// Of a shard of this process alone.
    pub(crate) fn local(local: ShardStore) -> Self {
        Self { local, shared: None }
    }

    /// Of a shard that other replicas may take over.
    pub(crate) fn shared(
        local: ShardStore,
        cluster: Cluster,
        lease: Lease,
        tenure: Arc<Tenure>,
        resumable: Option<u64>,
    ) -> Self {
        let resumable = AtomicU64::new(resumable.unwrap_or(0));
        let lost = AtomicBool::new(false);
        let shared = Shared { cluster, lease, pending: Mutex::default(), resumable, tenure, lost };
        Self { local, shared: Some(Arc::new(shared)) }
    }

    /// The shard is another replica's: nothing of it is to be published any more.
    pub(super) fn lose(&self) {
        if let Some(shared) = &self.shared {
            shared.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the shard is known to be another replica's.
    pub(crate) fn is_lost(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.lost.load(Ordering::Relaxed))
    }

    /// Waits until the session may be resumed: two replicas that resume one would take it from each other, over and
    /// over. For ever, if the shard is another's: whoever waits is about to be stopped.
    pub(crate) async fn may_resume(&self) {
        let Some(shared) = &self.shared else { return };
        shared.tenure.is_certain().await;
        if self.is_lost() {
            std::future::pending().await
        }
    }

    /// Waits until events may be published: at once, unless the process stood still for longer than a lease holds.
    pub(crate) async fn may_publish(&self) {
        let Some(shared) = &self.shared else { return };
        shared.tenure.is_attended().await;
        if self.is_lost() {
            std::future::pending().await
        }
    }

    /// Whether other replicas may take the shard over.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The generation that events are published under; 1 where nobody else may own the shard.
    pub(crate) fn generation(&self) -> u64 {
        self.shared.as_ref().map_or(1, |shared| shared.lease.generation)
    }

    /// The sequence up to which a crash of this replica would lose nothing; none while the store has nothing.
    /// `None` for a shard of this process alone: its own disk decides.
    pub(crate) fn resumable(&self) -> Option<u64> {
        self.shared.as_ref().map(|shared| shared.resumable.load(Ordering::Relaxed))
    }

    /// Saves the session's record.
    pub(crate) fn save(&self, record: SessionRecord) {
        self.local.save(&record);
        if let Some(shared) = &self.shared {
            let mut pending = shared.pending();
            pending.progress = None;
            pending.session = Some(record);
        }
    }

    /// Saves from where another replica would resume. Nothing to do where there is none.
    pub(crate) fn save_progress(&self, progress: Progress) {
        if let Some(shared) = &self.shared {
            shared.pending().progress = Some(progress);
        }
    }

    /// Saves all clients' sessions.
    pub(crate) fn save_clients(&self, clients: Vec<ClientRecord>) {
        self.local.save_clients(&clients);
        if let Some(shared) = &self.shared {
            shared.pending().clients = Some(clients);
        }
    }

    /// Saves a guild's checkpoint on this process's disk.
    pub(crate) fn save_guild(&self, guild: u64, checkpoint: &[u8]) -> Saved {
        self.local.save_guild(guild, checkpoint)
    }

    /// Removes a guild's checkpoint.
    pub(crate) fn remove_guild(&self, guild: u64) {
        self.local.remove_guild(guild);
        if let Some(shared) = &self.shared {
            shared.pending().removed.push(guild);
        }
    }

    /// Saves guilds' checkpoints in the store, where other replicas may need them.
    pub(crate) async fn share_guilds(&self, guilds: &[(u64, Vec<u8>)]) -> Result<(), WriteError> {
        match &self.shared {
            Some(shared) => shared.cluster.save_guilds(&shared.lease, guilds).await,
            None => Ok(()),
        }
    }

    /// Whether the store hasn't got everything yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| {
            let it = shared.pending();
            it.session.is_some() || it.progress.is_some() || it.clients.is_some() || !it.removed.is_empty()
        })
    }

    /// What the store hasn't got yet; its taker brings it there, or gives it back.
    pub(crate) fn take_pending(&self) -> Option<(Lease, Pending)> {
        let shared = self.shared.as_ref()?;
        Some((shared.lease, std::mem::take(&mut *shared.pending())))
    }

    /// The store could not be reached: what nothing newer has replaced waits on.
    pub(crate) fn give_back(&self, back: Pending) {
        let Some(shared) = &self.shared else { return };
        let mut pending = shared.pending();
        if pending.session.is_none() {
            pending.progress = pending.progress.take().or(back.progress);
            pending.session = back.session;
        }
        pending.clients = pending.clients.take().or(back.clients);
        pending.removed.extend(back.removed);
    }

    /// The store has this.
    pub(crate) fn arrived(&self, sequence: Option<u64>) {
        if let (Some(shared), Some(sequence)) = (&self.shared, sequence) {
            shared.resumable.store(sequence, Ordering::Relaxed);
        }
    }

    /// Waits until everything is on this process's disk.
    pub(crate) async fn flush(&self) -> Result<(), WriteFailed> {
        self.local.flush().await
    }
}

impl Shared {
    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
