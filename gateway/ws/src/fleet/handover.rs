// SPDX-License-Identifier: AGPL-3.0-only
//! What goes from one owner of a shard to the next, by the store: the session, clients' sessions, guilds, how far events
//! were published. The log doesn't: Discord replays what follows the session's place, and each event gets the same
//! position again.

use std::{sync::Arc, time::Duration};

use holdfast_cluster::{Cluster, Lease, Progress, SessionRecord, Store, Unavailable, WriteError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Pending, Records, Running, Starter, Tenure};
use crate::{amqp::READER, shard::unix_ms, start::WsError};

/// A pause before the store is asked again for a shard's records.
const AGAIN: Duration = Duration::from_millis(500);

/// What a shard is taken over with.
pub(super) struct Takeover {
    pub(super) cluster: Cluster,
    pub(super) store: Store,
    pub(super) starter: Arc<Starter>,
    pub(super) tenure: Arc<Tenure>,
    pub(super) lease: Lease,
}

/// Fetches a shard's records, and starts it with them.
///
/// # Errors
/// The shard's files can't be used; or `stop` came before the store had given the records.
pub(super) async fn take_over(takeover: Takeover, stop: CancellationToken) -> Result<Running, WsError> {
    let Takeover { cluster, store, starter, tenure, lease } = takeover;
    let local = store.shard(lease.shard.shard, lease.shard.total);
    // What lies here is of an earlier time as its owner, or of none.
    let _ = local.flush().await;
    let dir = local.dir();
    tokio::task::spawn_blocking(move || match dir.map(std::fs::remove_dir_all) {
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
    .await
    .map_err(std::io::Error::other)??;
    let record = loop {
        match fetch(&cluster, &store, lease).await {
            Ok(record) => break record,
            Err(error) => {
                debug!(%error, shard = lease.shard.shard, "the shard's records can't be fetched yet");
                if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
                    return Err(WsError::Stopped);
                }
            }
        }
    };
    if let Err(error) = local.flush().await {
        warn!(%error, "records could not be written");
    }
    let resumable = record.and_then(|record| record.sequence);
    let records = Records::shared(local, cluster, lease, tenure, resumable);
    let started = tokio::task::spawn_blocking(move || starter.start(lease.shard.shard, records));
    started.await.map_err(std::io::Error::other)?
}

/// Brings a shard's records from the store into its files.
async fn fetch(cluster: &Cluster, store: &Store, lease: Lease) -> Result<Option<SessionRecord>, Unavailable> {
    let local = store.shard(lease.shard.shard, lease.shard.total);
    let record = cluster.load_sessions(&[lease.shard]).await?.pop().flatten();
    let clients = cluster.load_clients(lease.shard).await?;
    if !clients.is_empty() {
        local.save_clients(&clients);
    }
    let Some(record) = record else { return Ok(None) };
    if let Some(published) = &record.published {
        local.save_cursor(READER, published);
    }
    let mut guilds = cluster.guilds(lease.shard);
    while let Some(page) = guilds.next().await? {
        for (guild, checkpoint) in page {
            while let Some(checkpoint) = &checkpoint
                && local.save_guild(guild, checkpoint) == holdfast_cluster::Saved::Busy
            {
                // The disk is behind.
                let _ = local.flush().await;
            }
        }
    }
    local.save(&record);
    Ok(Some(record))
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
    for (_, lease, pending) in taken {
        if let Some(clients) = &pending.clients {
            unless_fenced(cluster.save_clients(lease, clients).await)?;
        }
        if !pending.removed.is_empty() {
            unless_fenced(cluster.remove_guilds(lease, &pending.removed).await)?;
        }
    }
    Ok(())
}

fn unless_fenced(written: Result<(), WriteError>) -> Result<(), Unavailable> {
    match written {
        Err(WriteError::Unavailable(error)) => Err(error),
        Err(WriteError::Fenced(_)) | Ok(()) => Ok(()),
    }
}

/// Saves what the next owner needs of a shard that has stopped, and lets it have the shard.
pub(super) async fn hand_over(cluster: &Cluster, lease: Lease, running: &Running) {
    let shard = lease.shard.shard;
    {
        let mut core = running.hub.core();
        core.save_clients(true);
        // Everything is published and given by now, as far as it could be: the next owner resumes from here.
        if let Some(progress) = core.progress(unix_ms()) {
            running.records.save_progress(progress);
        }
    }
    if let Some((_, pending)) = running.records.take_pending()
        && let Err(error) = save_all(cluster, &[(&running.records, lease, pending)]).await
    {
        warn!(%error, shard, "the store is away: the next owner goes on from what it has");
    }
    if let Err(error) = cluster.release(&[lease]).await {
        warn!(%error, shard, "the store is away: the lease lapses by itself");
    }
}
