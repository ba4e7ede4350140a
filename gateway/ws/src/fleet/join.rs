// SPDX-License-Identifier: AGPL-3.0-only
//! Who this replica is. In: settings, Discord's answer about the application, the name that an earlier process had in the
//! same folder. Out: its handle on the store.

use std::{path::Path, time::Duration};

use holdfast_cluster::{Cluster, Identity, ReplicaId, Settings, Standing, StoreState};
use holdfast_service::{Backoff, Condition, Service};
use tracing::warn;

use super::Member;
use crate::{settings::Config, shard::unix_ms, start::WsError};

/// File in `state_dir` with the replica's name.
const NAME: &str = "replica";

/// Makes this process one of the replicas. Waits for Discord, and for the store's first answer; `/readyz` says so.
///
/// # Errors
/// The store refuses us, its certificates can't be read, or Discord refuses the token.
pub(crate) async fn join(
    config: &Config,
    settings: &Settings,
    total: u32,
    rest: &holdfast_rest::Client,
    service: &Service,
) -> Result<Member, WsError> {
    let condition =
        service.readiness.condition("cluster", "waiting for Discord's answer about the application");
    let identity = Identity {
        id: name(&config.state_dir),
        application: application(rest).await?,
        address: config.advertise.clone().unwrap_or_else(|| config.listen.to_string()),
    };
    let cluster = Cluster::start(settings, identity, &service.tasks)?;
    connected(&cluster, &condition).await?;
    let total = match config.shards.total {
        Some(total) => total,
        // Resharded, perhaps: what Discord recommends is for a bot that begins.
        None => cluster.fleet_total().await?.unwrap_or(total),
    };
    let standing = Standing {
        total,
        weight: settings.weight,
        max_shards: settings.max_shards,
        draining: false,
        started_unix_ms: unix_ms(),
    };
    // Half of the drain is for the shards; a hand-over has to leave room for its records.
    Ok(Member { cluster, standing, times: settings.times, within: config.drain_timeout / 3, condition })
}

/// Waits for the first connection to the store.
async fn connected(cluster: &Cluster, condition: &Condition) -> Result<(), WsError> {
    let mut state = cluster.state();
    loop {
        match &*state.borrow_and_update() {
            StoreState::Connected => break,
            StoreState::Down { why, .. } if why.is_refused() => return Err(why.clone().into()),
            StoreState::Down { why, .. } => condition.waiting(why.to_string()),
        }
        if state.changed().await.is_err() {
            break;
        }
    }
    condition.waiting("not registered among the replicas yet");
    Ok(())
}

/// The bot's application.
async fn application(rest: &holdfast_rest::Client) -> Result<u64, WsError> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        match rest.application().await {
            Ok(application) => return Ok(application.id.parse().unwrap_or(0)),
            Err(error) if error.is_final() => return Err(error.into()),
            Err(error) => {
                let pause = backoff.failed();
                warn!(%error, pause_ms = pause.as_millis(), "Discord can't be asked for the application yet");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// The name of the process before in this folder, which is dead: `state_dir` is locked. So its shards are ours at once.
fn name(state_dir: &Path) -> ReplicaId {
    let file = state_dir.join(NAME);
    let known = std::fs::read_to_string(&file).ok().and_then(|name| name.trim().parse().ok());
    known.unwrap_or_else(|| {
        let name = ReplicaId::random();
        if let Err(error) = std::fs::write(&file, name.to_string()) {
            warn!(%error, file = %file.display(), "the replica's name can't be kept: after a restart it waits for its leases to lapse");
        }
        name
    })
}
