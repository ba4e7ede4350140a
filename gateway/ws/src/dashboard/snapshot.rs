// SPDX-License-Identifier: AGPL-3.0-only
//! What the dashboard shows at one moment, as docs/contract.md outlines it. In: a look at everything. Out: one line of
//! JSON. Counters go out as they are: whoever watches makes rates of them.

use std::collections::BTreeMap;

use holdfast_cluster::Owner;
use serde::Serialize;

use super::{
    Dashboard,
    clients::{Clients, clients},
    figures,
};
use crate::shard::{Phase, ShardStatus, unix_ms};

/// See the module.
#[derive(Serialize)]
pub(super) struct Snapshot {
    at_ms: u64,
    version: &'static str,
    /// Shards of the bot, wherever they run.
    total: u32,
    identifies: Identifies,
    bounds: Bounds,
    /// The lines of `/readyz`; none when the process is ready.
    unmet: Vec<String>,
    /// Those that run here.
    shards: Vec<Row>,
    /// Without a `[cluster]` there are none.
    replicas: Option<Vec<Line>>,
    /// By shard, which of `replicas`; `null` without an answer of the store.
    owners: Option<Vec<Option<usize>>>,
    clients: Clients,
    figures: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
struct Identifies {
    remaining: u32,
    total: u32,
}

#[derive(Serialize)]
struct Bounds {
    log_memory_bytes: u64,
    log_disk_bytes: u64,
}

/// Number, phase, latency in ms, events, guilds, clients, sessions that wait for their client, resumes, identifies. No
/// names: two thousand of them go out each second.
#[derive(Serialize)]
struct Row(u32, Phase, Option<f64>, u64, usize, usize, usize, u64, u64);

#[derive(Serialize)]
struct Line {
    address: String,
    /// It is the one that tells this.
    this: bool,
    draining: bool,
    started_unix_ms: u64,
}

impl From<ShardStatus> for Row {
    fn from(of: ShardStatus) -> Self {
        // Tenths are enough, and short.
        let latency = of.latency_ms.map(|latency| (latency * 10.0).round() / 10.0);
        Self(
            of.shard,
            of.phase,
            latency,
            of.events,
            of.guilds,
            of.clients,
            of.detached,
            of.resumes,
            of.identifies,
        )
    }
}

impl Snapshot {
    /// Looks at everything. `owners`: what the store says.
    pub(super) fn take(from: &Dashboard, owners: Option<Vec<Option<Owner>>>) -> Self {
        let hubs = from.hubs.all();
        let known = from.hubs.replicas();
        let place = |owner: Owner| known.iter().position(|replica| replica.id == owner.replica);
        let owners = owners.map(|all| all.into_iter().map(|owner| owner.and_then(place)).collect());
        let replicas = from.cluster.as_ref().map(|cluster| {
            let line = |replica: &holdfast_cluster::Replica| Line {
                address: replica.address.clone(),
                this: replica.id == cluster.identity().id,
                draining: replica.draining,
                started_unix_ms: replica.started_unix_ms,
            };
            known.iter().map(line).collect()
        });
        let log = &from.config.log;
        Self {
            at_ms: unix_ms(),
            version: env!("CARGO_PKG_VERSION"),
            total: from.hubs.total(),
            identifies: Identifies {
                remaining: from.gateway.identifies_remaining(),
                total: from.gateway.identifies_total(),
            },
            bounds: Bounds { log_memory_bytes: log.memory, log_disk_bytes: log.disk },
            unmet: from.readiness.unmet(),
            shards: hubs.iter().map(|hub| hub.status().into()).collect(),
            replicas,
            owners,
            clients: clients(&hubs),
            figures: figures::read(&from.metrics.encode()),
        }
    }

    /// On one line.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}
