// SPDX-License-Identifier: AGPL-3.0-only
//! Taking a shard over. In: a lease, what the owner before has left in the store. Out: the shard, running.

use std::{sync::Arc, time::Duration};

use holdfast_cluster::{Change, Cluster, Lease, ShardId, ShardStore, Store};
use tokio::sync::broadcast::{Receiver, error::TryRecvError};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Records, Running, Starter, Tenure,
    handover::{Handovers, inherit},
    records::{Inherited, Sharing},
    reshard::above,
};
use crate::{log::Position, start::WsError};

/// A pause before the store is asked again for a shard's records.
const AGAIN: Duration = Duration::from_millis(500);

/// A shard that was released, with those of which it is known by now: a replica that ends releases many at once. And
/// whether anything else has changed.
pub(super) fn released_with(shard: ShardId, changes: &mut Receiver<Change>) -> (Vec<ShardId>, bool) {
    let mut shards = vec![shard];
    loop {
        match changes.try_recv() {
            Ok(Change::Released(shard)) => shards.push(shard),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return (shards, false),
            Ok(_) | Err(TryRecvError::Lagged(_)) => return (shards, true),
        }
    }
}

/// What a shard is taken over with.
pub(super) struct Takeover {
    pub(super) cluster: Cluster,
    pub(super) store: Store,
    pub(super) starter: Arc<Starter>,
    pub(super) tenure: Arc<Tenure>,
    pub(super) handovers: Arc<Handovers>,
    pub(super) lease: Lease,
    /// It is of the bot's next count: the current one.
    pub(super) gathers_beside: Option<u32>,
}

/// Fetches a shard's records, and starts it with them.
///
/// # Errors
/// The shard's files can't be used; or `stop` came before the store had given the records.
pub(super) async fn take_over(takeover: Takeover, stop: CancellationToken) -> Result<Running, WsError> {
    let Takeover { cluster, store, starter, tenure, handovers, lease, gathers_beside } = takeover;
    let local = store.shard(lease.shard.shard, lease.shard.total);
    // Guilds are in memory twice until the shard has them.
    let taking = handovers.taking.acquire().await;
    let (emptied, inherited) = tokio::join!(empty(&local), fetch(&cluster, lease, &stop));
    emptied?;
    let checkpoints = starter.config.cluster.as_ref().is_none_or(|settings| settings.checkpoints);
    let (urgent, leaving) = (Arc::clone(&handovers.urgent), Arc::clone(&handovers.leaving));
    let sharing = Sharing { cluster, lease, tenure, urgent, leaving, checkpoints };
    let inherited = inherited?;
    let gathers = match gathers_beside {
        Some(total) => Some(highest(&sharing.cluster, total, &stop).await?),
        None => None,
    };
    let records = Records::shared(local, sharing, inherited);
    let started = tokio::task::spawn_blocking(move || starter.start(lease.shard, records, gathers));
    let started = started.await.map_err(std::io::Error::other)?;
    drop(taking);
    started
}

/// Where the log of a shard of the next count begins.
async fn highest(cluster: &Cluster, total: u32, stop: &CancellationToken) -> Result<Position, WsError> {
    let shards: Vec<ShardId> = ShardId::all(total).collect();
    loop {
        match cluster.load_sessions(&shards).await {
            Ok(records) => return Ok(above(records.into_iter().flatten().map(|record| record.position))),
            Err(error) => {
                debug!(%error, "the shards' records can't be fetched yet");
                if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
                    return Err(WsError::Stopped);
                }
            }
        }
    }
}

/// What lies here is of an earlier time as the shard's owner, or of none.
async fn empty(local: &ShardStore) -> std::io::Result<()> {
    let Some(dir) = local.dir() else { return Ok(()) };
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
    match removed.map_err(std::io::Error::other)? {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the owner before has left, as soon as the store gives it.
async fn fetch(cluster: &Cluster, lease: Lease, stop: &CancellationToken) -> Result<Inherited, WsError> {
    loop {
        match inherit(cluster, lease.shard).await {
            Ok(inherited) => return Ok(inherited),
            Err(error) => {
                debug!(%error, shard = lease.shard.shard, "the shard's records can't be fetched yet");
                if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
                    return Err(WsError::Stopped);
                }
            }
        }
    }
}
