// SPDX-License-Identifier: AGPL-3.0-only
//! A shard's records: files of this process, or, with replicas, what is in the store that they share and on its way
//! there.
//!
//! In: what the shard saves, without ever waiting. Out: files, or [`Pending`] records, which the replica's task fetches,
//! the latest of each kind; what an earlier process, or the owner before, has left.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_cluster::{
    Checkpoint, ClientRecord, Cluster, CursorRecord, Lease, Progress, Saved, SessionRecord, ShardStore,
    WriteError, WriteFailed,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tracing::warn;

use super::Tenure;

/// A new session's record is in the store within a round trip; a store that takes longer isn't waited for.
const KEPT_WITHIN: Duration = Duration::from_secs(1);

/// Where one shard's records go. Clones go to the same places.
#[derive(Clone)]
pub(crate) struct Records {
    pub(crate) local: ShardStore,
    shared: Option<Arc<Shared>>,
}

struct Shared {
    sharing: Sharing,
    /// What the shard came with, until it is taken over.
    inherited: Mutex<Inherited>,
    /// The guilds in it.
    guilds: Vec<u64>,
    /// How far the owner before had published.
    published: Option<CursorRecord>,
    pending: Mutex<Pending>,
    /// A new session isn't in the store yet.
    unkept: watch::Sender<bool>,
    /// Discord's sequence from which another replica would resume: the latest that the store has.
    resumable: AtomicU64,
    lost: AtomicBool,
    /// The shard is being handed over.
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

/// With whom a shard's records are shared.
pub(super) struct Sharing {
    pub(super) cluster: Cluster,
    pub(super) lease: Lease,
    pub(super) tenure: Arc<Tenure>,
    /// Wakes the replica's task: what is pending can't wait.
    pub(super) urgent: Arc<Notify>,
    /// Shards go so many at a time: see [`Records::may_leave`].
    pub(super) leaving: Arc<Semaphore>,
    /// Whether guilds are saved for other replicas.
    pub(super) checkpoints: bool,
}

/// What the owner before has left of a shard.
#[derive(Default)]
pub(super) struct Inherited {
    pub(super) record: Option<SessionRecord>,
    pub(super) clients: Vec<ClientRecord>,
    pub(super) guilds: Vec<Checkpoint>,
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

    /// Of a shard that other replicas may take over. Its files hold what doesn't fit into memory, and nothing that
    /// outlives its time here.
    pub(super) fn shared(local: ShardStore, sharing: Sharing, inherited: Inherited) -> Self {
        let record = inherited.record.as_ref();
        let shared = Shared {
            guilds: inherited.guilds.iter().map(|(guild, _)| *guild).collect(),
            published: record.and_then(|record| record.published),
            pending: Mutex::default(),
            unkept: watch::Sender::new(false),
            resumable: AtomicU64::new(record.and_then(|record| record.sequence).unwrap_or(0)),
            lost: AtomicBool::new(false),
            turn: Mutex::default(),
            inherited: Mutex::new(inherited),
            sharing,
        };
        Self { local, shared: Some(Arc::new(shared)) }
    }

    /// The session's record that was left. Blocks, as all that load do; to be called once, as all of them.
    pub(crate) fn load(&self) -> Option<SessionRecord> {
        match &self.shared {
            Some(shared) => shared.inherited().record.take(),
            None => self.local.load(),
        }
    }

    /// The clients' sessions that were left.
    pub(crate) fn load_clients(&self) -> Vec<ClientRecord> {
        match &self.shared {
            Some(shared) => std::mem::take(&mut shared.inherited().clients),
            None => self.local.load_clients(),
        }
    }

    /// The guilds' checkpoints that were left.
    pub(crate) fn load_guilds(&self) -> Box<dyn Iterator<Item = Checkpoint>> {
        match &self.shared {
            Some(shared) => Box::new(std::mem::take(&mut shared.inherited().guilds).into_iter()),
            None => Box::new(self.local.load_guilds()),
        }
    }

    /// The session that was left can't be gone on with: whoever comes next doesn't try it either, even if it is before
    /// there is another one. Its guilds may be gone by then, and resuming would not bring them back. Blocks.
    pub(crate) fn give_up(&self, session: SessionRecord) {
        let given_up = SessionRecord { checkpoints: false, ..session };
        match &self.shared {
            Some(shared) => shared.pending().session = Some(given_up),
            None => {
                if let Err(error) = self.local.save_at_once(&given_up) {
                    warn!(%error, "the stored session could not be given up");
                }
            }
        }
    }

    /// The guilds' checkpoints that were left are of no use.
    pub(crate) fn forget_guilds(&self) {
        match &self.shared {
            Some(shared) => shared.guilds.iter().for_each(|guild| self.remove_guild(*guild)),
            None => self.local.load_guilds().for_each(|(guild, _)| self.remove_guild(guild)),
        }
    }

    /// Where a durable reader of the log goes on.
    pub(crate) fn load_cursor(&self, reader: &str) -> Option<CursorRecord> {
        match &self.shared {
            Some(shared) => shared.published,
            None => self.local.load_cursor(reader),
        }
    }

    /// Saves how far a durable reader of the log is; shared, that is a part of progress.
    pub(crate) fn save_cursor(&self, reader: &str, cursor: &CursorRecord) {
        if self.shared.is_none() {
            self.local.save_cursor(reader, cursor);
        }
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
        shared.sharing.tenure.is_certain().await;
        if self.is_lost() {
            std::future::pending().await
        }
    }

    /// Waits for the shard's turn to leave Discord, so that the pause of each is short: what all of a replica's shards
    /// have to do at once takes as long for all as for the last of them. The turn lasts until [`Records::has_left`].
    pub(crate) async fn may_leave(&self) {
        let Some(shared) = &self.shared else { return };
        // Never closed.
        let turn = Arc::clone(&shared.sharing.leaving).acquire_owned().await.ok();
        *shared.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }

    /// Another replica may have the shard.
    pub(super) fn has_left(&self) {
        if let Some(shared) = &self.shared {
            shared.turn.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// Waits until events may be published: at once, unless the process stood still for longer than a lease holds.
    pub(crate) async fn may_publish(&self) {
        let Some(shared) = &self.shared else { return };
        shared.sharing.tenure.is_attended().await;
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
        self.shared.as_ref().map_or(1, |shared| shared.sharing.lease.generation)
    }

    /// The sequence up to which a crash of this replica would lose nothing; none while the store has nothing.
    /// `None` for a shard of this process alone: its own disk decides.
    pub(crate) fn resumable(&self) -> Option<u64> {
        self.shared.as_ref().map(|shared| shared.resumable.load(Ordering::Relaxed))
    }

    /// Saves the session's record; that of a `new` one at once: a crash would lose it, and with it one of the day's
    /// IDENTIFYs.
    pub(crate) fn save(&self, record: SessionRecord, new: bool) {
        let Some(shared) = &self.shared else { return self.local.save(&record) };
        let mut pending = shared.pending();
        pending.progress = None;
        pending.session = Some(record);
        if new {
            shared.unkept.send_replace(true);
            shared.sharing.urgent.notify_one();
        }
    }

    /// Waits until a new session survives this process's death, but not for long.
    pub(crate) async fn is_kept(&self) {
        if let Some(shared) = &self.shared {
            // The sender is ours: it doesn't go before we do.
            let _ = timeout(KEPT_WITHIN, shared.unkept.subscribe().wait_for(|unkept| !unkept)).await;
        }
    }

    /// Saves from where another replica would resume. Nothing to do where there is none.
    pub(crate) fn save_progress(&self, progress: Progress) {
        let Some(shared) = &self.shared else { return };
        let mut pending = shared.pending();
        match &mut pending.session {
            Some(session) => session.advance(&progress),
            None => pending.progress = Some(progress),
        }
    }

    /// Saves all clients' sessions.
    pub(crate) fn save_clients(&self, clients: Vec<ClientRecord>) {
        match &self.shared {
            Some(shared) => shared.pending().clients = Some(clients),
            None => self.local.save_clients(&clients),
        }
    }

    /// Whether guilds' checkpoints are kept for whoever comes next.
    pub(crate) fn keeps_guilds(&self) -> bool {
        self.shared.as_ref().map_or_else(|| self.local.dir().is_some(), |shared| shared.sharing.checkpoints)
    }

    /// Saves a guild's checkpoint on this process's disk.
    pub(crate) fn save_guild(&self, guild: u64, checkpoint: &[u8]) -> Saved {
        self.local.save_guild(guild, checkpoint)
    }

    /// Removes a guild's checkpoint.
    pub(crate) fn remove_guild(&self, guild: u64) {
        match &self.shared {
            Some(shared) => shared.pending().removed.push(guild),
            None => self.local.remove_guild(guild),
        }
    }

    /// Saves guilds' checkpoints in the store, where other replicas may need them.
    pub(crate) async fn share_guilds(&self, guilds: &[(u64, Vec<u8>)]) -> Result<(), WriteError> {
        match &self.shared {
            Some(shared) => shared.sharing.cluster.save_guilds(&shared.sharing.lease, guilds).await,
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
        Some((shared.sharing.lease, std::mem::take(&mut *shared.pending())))
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

    /// The store has what was taken, up to this sequence.
    pub(crate) fn arrived(&self, sequence: Option<u64>) {
        let Some(shared) = &self.shared else { return };
        if let Some(sequence) = sequence {
            shared.resumable.store(sequence, Ordering::Relaxed);
        }
        let pending = shared.pending();
        if pending.session.is_none() {
            shared.unkept.send_replace(false);
        }
    }

    /// Waits until everything is on this process's disk.
    pub(crate) async fn flush(&self) -> Result<(), WriteFailed> {
        self.local.flush().await
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inherited(&self) -> MutexGuard<'_, Inherited> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use holdfast_cluster::{Acquired, Identity, Memory, ReplicaId, ShardId, Store, StreamId, Times};
    use serde_json::value::RawValue;

    use super::*;

    #[tokio::test]
    async fn a_new_session_is_kept_once_the_store_has_it() {
        let (records, urgent) = shared().await;
        assert!(records.is_kept().now_or_never().is_some(), "there is none");
        records.save(record(), true);
        assert!(urgent.notified().now_or_never().is_some(), "the replica's task is woken");
        assert!(records.is_kept().now_or_never().is_none(), "it waits to be taken");
        let taken = records.take_pending().expect("shared");
        assert!(taken.1.session.is_some());
        assert!(records.is_kept().now_or_never().is_none(), "it is under way");
        records.arrived(Some(1));
        assert!(records.is_kept().now_or_never().is_some());
        assert_eq!(records.resumable(), Some(1));
        records.save(record(), false);
        assert!(records.is_kept().now_or_never().is_some(), "an older session is in the store already");
        assert!(urgent.notified().now_or_never().is_none(), "nothing is urgent about it");
    }

    #[tokio::test]
    async fn one_that_begins_while_others_are_written_is_not_taken_for_written() {
        let (records, _) = shared().await;
        records.save(record(), false);
        let earlier = records.take_pending();
        records.save(record(), true);
        drop(earlier);
        records.arrived(None);
        assert!(records.is_kept().now_or_never().is_none());
    }

    #[tokio::test]
    async fn progress_goes_into_a_record_that_waits() {
        let (records, _) = shared().await;
        records.save(record(), false);
        records.save_progress(Progress { position: 9, ..record().progress() });
        let (_, pending) = records.take_pending().expect("shared");
        assert_eq!((pending.session.map(|it| it.position), pending.progress), (Some(9), None));
    }

    async fn shared() -> (Records, Arc<Notify>) {
        let (store, _) = Store::open(None).expect("memory");
        let times = Times::default();
        let identity = Identity { id: ReplicaId::random(), application: 1, address: String::new() };
        let cluster = Cluster::within(&Memory::new(&store, times), identity);
        let acquired = cluster.acquire(&[ShardId::new(0, 1)]).await.expect("memory is never away");
        let Some(Acquired::Granted(lease)) = acquired.into_iter().next() else { panic!("nobody has it") };
        let urgent = Arc::new(Notify::new());
        let sharing = Sharing {
            cluster,
            lease,
            tenure: Arc::new(Tenure::new(times.expiry)),
            urgent: Arc::clone(&urgent),
            leaving: Arc::new(Semaphore::new(1)),
            checkpoints: true,
        };
        (Records::shared(store.shard(0, 1), sharing, Inherited::default()), urgent)
    }

    fn record() -> SessionRecord {
        SessionRecord {
            session_id: "s".to_owned(),
            resume_url: "wss://gateway.example".to_owned(),
            stream: StreamId::from_number(1),
            sequence_base: 1,
            sequence: Some(1),
            position: 1,
            state_from: 1,
            checkpoints: true,
            published: None,
            shard: 0,
            total: 1,
            ready: RawValue::from_string("{}".to_owned()).expect("JSON"),
            settings: String::new(),
            wishes: None,
            written_unix_ms: 0,
        }
    }
}
