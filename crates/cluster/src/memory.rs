// SPDX-License-Identifier: AGPL-3.0-only
//! What replicas share within one process, and the records of a single node: leases in memory, records where the
//! [`Store`] has them. In: what [`Cluster`](crate::Cluster) is asked. Out: the same answers as from Redis, except that
//! it is never away. Each handle on it is a replica's.

mod reshard;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_discord::limits::SessionStartLimit;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::ownership::Ownership;
use crate::permits::Local;
use crate::unavailable::Cause;
use crate::{
    Acquired, Change, ClientRecord, Fenced, FleetConflict, Identity, Lease, Owner, Progress, Renewed,
    Replica, Saved, SessionRecord, ShardId, ShardStore, Standing, Store, StoreState, Times, Unavailable,
    WriteError,
};

/// Changes that are kept for one that is slow to hear of them; whoever is slower looks at everything.
pub(crate) const CHANGES: usize = 1024;

/// What the replicas of one process share; clones share it too.
#[derive(Clone, Debug)]
pub struct Memory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ownership: Mutex<Ownership>,
    store: Store,
    permits: OnceLock<Local>,
    times: Times,
    start: Instant,
    changes: broadcast::Sender<Change>,
    state: watch::Sender<StoreState>,
}

impl Memory {
    /// Nobody there, nothing owned; records as the store has them.
    #[must_use]
    pub fn new(store: &Store, times: Times) -> Memory {
        Memory {
            inner: Arc::new(Inner {
                ownership: Mutex::default(),
                store: store.clone(),
                permits: OnceLock::new(),
                times,
                start: Instant::now(),
                changes: broadcast::Sender::new(CHANGES),
                state: watch::Sender::new(StoreState::Connected),
            }),
        }
    }

    /// The one queue of all replicas. Blocks the first time.
    pub(crate) fn permits(&self, limit: SessionStartLimit) -> Local {
        let mut first = false;
        let permits = self.inner.permits.get_or_init(|| {
            first = true;
            Local::new(&self.inner.store, limit)
        });
        if !first {
            permits.learn(limit);
        }
        permits.clone()
    }

    pub(crate) fn state(&self) -> watch::Receiver<StoreState> {
        self.inner.state.subscribe()
    }

    pub(crate) fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }

    pub(crate) fn heartbeat(
        &self,
        identity: &Identity,
        standing: &Standing,
    ) -> Result<Vec<Replica>, FleetConflict> {
        let heard = self.lock().heartbeat(identity, standing, self.now())?;
        if heard.news {
            self.tell(Change::Replicas);
        }
        if heard.reshard_over {
            self.tell(Change::Reshard);
        }
        Ok(heard.replicas)
    }

    pub(crate) fn leave(&self, identity: &Identity) {
        let reshard_over = self.lock().leave(identity.id, self.now().0);
        self.tell(Change::Replicas);
        if reshard_over {
            self.tell(Change::Reshard);
        }
    }

    pub(crate) fn replace_total(&self, from: u32, to: u32) -> bool {
        self.lock().replace_total(from, to) == Some(to)
    }

    pub(crate) fn fleet_total(&self, identity: &Identity) -> Option<u32> {
        self.lock().fleet_total(identity.application, self.now().0)
    }

    pub(crate) async fn forget(&self, total: u32) -> Result<(), Unavailable> {
        self.lock().forget(total);
        let store = self.inner.store.clone();
        blocking(move || store.forget_total(total)).await?.map_err(|error| failed(&error))
    }

    pub(crate) async fn acquire(
        &self,
        identity: &Identity,
        shards: &[ShardId],
    ) -> Result<Vec<Acquired>, Unavailable> {
        let stores: Vec<ShardStore> = shards.iter().map(|shard| self.shard(*shard)).collect();
        let known =
            blocking(move || stores.iter().map(ShardStore::load_generation).collect::<Vec<_>>()).await?;
        let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let acquired: Vec<Acquired> = {
            let mut ownership = self.lock();
            let acquire =
                |(shard, known): (&ShardId, _)| ownership.acquire(identity, *shard, known, self.now(), first);
            shards.iter().zip(known).map(acquire).collect()
        };
        // A fencing number is used only once it is stored: the process after this one must give higher ones.
        for acquired in &acquired {
            if let Acquired::Granted(lease) = acquired {
                let store = self.shard(lease.shard);
                store.save_generation(lease.generation);
                flush(&store).await?;
            }
        }
        Ok(acquired)
    }

    pub(crate) fn renew(&self, identity: &Identity, leases: &[Lease]) -> Vec<Renewed> {
        let (now, expiry) = self.now();
        let mut ownership = self.lock();
        leases.iter().map(|lease| ownership.renew(identity, lease, now, expiry)).collect()
    }

    pub(crate) fn release(&self, leases: &[Lease]) {
        for lease in leases {
            let released = self.lock().release(lease);
            if released {
                self.tell(Change::Released(lease.shard));
            }
        }
    }

    pub(crate) fn owners(&self, shards: &[ShardId]) -> Vec<Option<Owner>> {
        let (now, _) = self.now();
        let ownership = self.lock();
        shards.iter().map(|shard| ownership.owner(*shard, now)).collect()
    }

    pub(crate) async fn save_sessions(
        &self,
        sessions: &[(Lease, &SessionRecord)],
    ) -> Result<Vec<Result<(), Fenced>>, Unavailable> {
        self.write_each(sessions, |store, record| {
            store.save(record);
            store.save_progress(&record.progress());
        })
        .await
    }

    pub(crate) async fn save_progress(
        &self,
        progress: &[(Lease, Progress)],
    ) -> Result<Vec<Result<(), Fenced>>, Unavailable> {
        self.write_each(progress, ShardStore::save_progress).await
    }

    pub(crate) async fn load_sessions(
        &self,
        shards: &[ShardId],
    ) -> Result<Vec<Option<SessionRecord>>, Unavailable> {
        let stores: Vec<ShardStore> = shards.iter().map(|shard| self.shard(*shard)).collect();
        let load = |store: &ShardStore| {
            let mut record = store.load()?;
            if let Some(progress) = store.load_progress() {
                record.advance(&progress);
            }
            Some(record)
        };
        blocking(move || stores.iter().map(load).collect()).await
    }

    pub(crate) async fn forget_session(&self, lease: &Lease) -> Result<(), WriteError> {
        self.write(lease, ShardStore::forget).await
    }

    pub(crate) async fn save_clients(
        &self,
        lease: &Lease,
        clients: &[ClientRecord],
    ) -> Result<(), WriteError> {
        self.write(lease, |store| store.save_clients(clients)).await
    }

    pub(crate) async fn load_clients(&self, shard: ShardId) -> Result<Vec<ClientRecord>, Unavailable> {
        let store = self.shard(shard);
        blocking(move || store.load_clients()).await
    }

    pub(crate) async fn save_guilds(
        &self,
        lease: &Lease,
        guilds: &[(u64, Vec<u8>)],
    ) -> Result<(), WriteError> {
        let store = self.shard(lease.shard);
        for (guild, checkpoint) in guilds {
            self.check(lease)?;
            while store.save_guild(*guild, checkpoint) == Saved::Busy {
                flush(&store).await?;
            }
        }
        Ok(flush(&store).await?)
    }

    pub(crate) async fn remove_guilds(&self, lease: &Lease, guilds: &[u64]) -> Result<(), WriteError> {
        self.write(lease, |store| guilds.iter().for_each(|guild| store.remove_guild(*guild))).await
    }

    pub(crate) fn shard(&self, shard: ShardId) -> ShardStore {
        self.inner.store.shard(shard.shard, shard.total)
    }

    async fn write_each<T>(
        &self,
        records: &[(Lease, T)],
        save: impl Fn(&ShardStore, &T),
    ) -> Result<Vec<Result<(), Fenced>>, Unavailable> {
        let mut results = Vec::with_capacity(records.len());
        for (lease, record) in records {
            results.push(match self.write(lease, |store| save(store, record)).await {
                Ok(()) => Ok(()),
                Err(WriteError::Fenced(fenced)) => Err(fenced),
                Err(WriteError::Unavailable(unavailable)) => return Err(unavailable),
            });
        }
        Ok(results)
    }

    async fn write(&self, lease: &Lease, save: impl FnOnce(&ShardStore)) -> Result<(), WriteError> {
        let store = self.shard(lease.shard);
        self.check(lease)?;
        save(&store);
        Ok(flush(&store).await?)
    }

    fn check(&self, lease: &Lease) -> Result<(), Fenced> {
        let (shard, generation) = (lease.shard, lease.generation);
        match self.lock().fenced(lease) {
            Some(latest) => Err(Fenced { shard, generation, latest }),
            None => Ok(()),
        }
    }

    /// Nobody listens: nobody needs to know.
    fn tell(&self, change: Change) {
        let _ = self.inner.changes.send(change);
    }

    fn now(&self) -> (Duration, Duration) {
        (self.inner.start.elapsed(), self.inner.times.expiry)
    }

    /// Held for a few map operations, which leave nothing half done.
    fn lock(&self) -> MutexGuard<'_, Ownership> {
        self.inner.ownership.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is read of the disk on a thread that may wait for it.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unavailable> {
    tokio::task::spawn_blocking(read).await.map_err(|error| failed(&error))
}

async fn flush(store: &ShardStore) -> Result<(), Unavailable> {
    store.flush().await.map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> Unavailable {
    Cause::Failed(error.to_string()).into()
}
