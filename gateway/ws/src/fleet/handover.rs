// SPDX-License-Identifier: AGPL-3.0-only
//! What goes from one owner of a shard to the next, by the store: the session, clients' sessions, guilds, how far events
//! were published. The log doesn't: Discord replays what follows the session's place, and each event gets the same
//! position again.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use holdfast_cluster::{
    Checkpoint, Cluster, Lease, Progress, SessionRecord, ShardId, Unavailable, WriteError,
};
use tokio::sync::{Notify, Semaphore};
use tracing::warn;

use super::{Pending, Records, Running, records::Inherited};
use crate::shard::unix_ms;

/// Shards that leave Discord at once. What each has to do takes some round trips to the store and one to the broker,
/// and some milliseconds of a core.
const LEAVE_AT_ONCE: usize = 16;
/// Shards that are taken over at once: 32 with 1,000 guilds of 25 KB each are 800 MB.
const TAKEN_AT_ONCE: usize = 32;

/// What all of a replica's hand-overs share, both ways.
pub(super) struct Handovers {
    /// Records that can't wait: the replica's task brings them to the store.
    pub(super) urgent: Arc<Notify>,
    /// Shards that have stopped here, and wait to be let go.
    stopped: Mutex<Vec<(Lease, Arc<Running>)>>,
    turn: tokio::sync::Mutex<()>,
    /// Held by a shard from when it leaves Discord to when another may have it.
    pub(super) leaving: Arc<Semaphore>,
    /// Held while a shard is taken over.
    pub(super) taking: Semaphore,
}

impl Default for Handovers {
    fn default() -> Self {
        let (urgent, stopped, turn) = Default::default();
        let (leaving, taking) = (Arc::new(Semaphore::new(LEAVE_AT_ONCE)), Semaphore::new(TAKEN_AT_ONCE));
        Self { urgent, stopped, turn, leaving, taking }
    }
}

impl Handovers {
    /// Saves what the next owner needs of a shard that has stopped, and lets it have the shard.
    pub(super) async fn hand_over(&self, cluster: &Cluster, lease: Lease, running: Arc<Running>) {
        note_end(&running);
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).push((lease, running));
        // A replica that ends hands over all its shards: whoever has the turn does it for all that wait by then.
        let _turn = self.turn.lock().await;
        let stopped = std::mem::take(&mut *self.stopped.lock().unwrap_or_else(PoisonError::into_inner));
        if stopped.is_empty() {
            return;
        }
        let (leases, running): (Vec<Lease>, Vec<Arc<Running>>) = stopped.into_iter().unzip();
        if let Err(error) = save(cluster, &running).await {
            warn!(%error, shards = leases.len(), "the store is away: the next owner goes on from what it has");
        }
        if let Err(error) = cluster.release(&leases).await {
            warn!(%error, shards = leases.len(), "the store is away: the leases lapse by themselves");
        }
        running.iter().for_each(|running| running.records.has_left());
    }
}

/// Saves what a next owner would need of a shard that has stopped, and lets nobody have it.
pub(super) async fn save_last(cluster: &Cluster, running: &Arc<Running>) {
    note_end(running);
    if let Err(error) = save(cluster, std::slice::from_ref(running)).await {
        warn!(%error, shard = running.hub.shard, "the store is away: a next owner would go on from what it has");
    }
    running.records.has_left();
}

fn note_end(running: &Running) {
    let mut core = running.hub.core();
    core.save_clients(true);
    // Everything is published and given by now, as far as it could be: the next owner resumes from here.
    if let Some(progress) = core.progress(unix_ms()) {
        running.records.save_progress(progress);
    }
}

/// What the owner before has left of a shard.
pub(super) async fn inherit(cluster: &Cluster, shard: ShardId) -> Result<Inherited, Unavailable> {
    let of = [shard];
    let records = cluster.load_sessions(&of);
    let (mut records, clients, guilds) =
        tokio::try_join!(records, cluster.load_clients(shard), guilds(cluster, shard))?;
    Ok(Inherited { record: records.pop().flatten(), clients, guilds })
}

async fn guilds(cluster: &Cluster, shard: ShardId) -> Result<Vec<Checkpoint>, Unavailable> {
    let (mut pages, mut all) = (cluster.guilds(shard), Vec::new());
    while let Some(page) = pages.next().await? {
        all.extend(page);
    }
    Ok(all)
}

/// Brings to the store what it hasn't got yet of these shards.
///
/// # Errors
/// The store is away: everything waits on.
pub(super) async fn save(cluster: &Cluster, running: &[Arc<Running>]) -> Result<(), Unavailable> {
    let taken: Vec<(&Records, Lease, Pending)> = running
        .iter()
        .filter(|running| running.records.is_pending())
        .filter_map(|running| running.records.take_pending().map(|(lease, it)| (&running.records, lease, it)))
        .collect();
    let outcome = save_all(cluster, &taken).await;
    for (records, _, pending) in taken {
        let session = pending.session.as_ref().and_then(|session| session.sequence);
        match outcome {
            Ok(()) => records.arrived(pending.progress.and_then(|progress| progress.sequence).or(session)),
            Err(_) => records.give_back(pending),
        }
    }
    outcome
}

/// A write that is fenced says that the shard is another's: its lease will tell.
async fn save_all(cluster: &Cluster, taken: &[(&Records, Lease, Pending)]) -> Result<(), Unavailable> {
    let sessions: Vec<(Lease, &SessionRecord)> =
        taken.iter().filter_map(|(_, lease, it)| Some((*lease, it.session.as_ref()?))).collect();
    if !sessions.is_empty() {
        cluster.save_sessions(&sessions).await?;
    }
    let progress: Vec<(Lease, Progress)> =
        taken.iter().filter_map(|(_, lease, it)| Some((*lease, it.progress?))).collect();
    if !progress.is_empty() {
        cluster.save_progress(&progress).await?;
    }
    try_join_all(taken.iter().map(|(_, lease, pending)| save_rest(cluster, lease, pending))).await.map(drop)
}

async fn save_rest(cluster: &Cluster, lease: &Lease, pending: &Pending) -> Result<(), Unavailable> {
    if let Some(clients) = &pending.clients {
        unless_fenced(cluster.save_clients(lease, clients).await)?;
    }
    if !pending.removed.is_empty() {
        unless_fenced(cluster.remove_guilds(lease, &pending.removed).await)?;
    }
    Ok(())
}

fn unless_fenced(written: Result<(), WriteError>) -> Result<(), Unavailable> {
    match written {
        Err(WriteError::Unavailable(error)) => Err(error),
        Err(WriteError::Fenced(_)) | Ok(()) => Ok(()),
    }
}
