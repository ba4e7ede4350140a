// SPDX-License-Identifier: AGPL-3.0-only
//! Looks at all shards once a second: for metrics that are states, and for readiness.
//!
//! In: the shards' handles. Out: gauges, the condition behind `/readyz`. One task, which ends with the service.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use holdfast_service::Condition;
use tokio::{select, sync::Notify};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    fleet::Hubs,
    metrics::Metrics,
    shard::{Gateway, Phase},
};

/// Metrics that are states are read this often.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);

/// Reads the states that metrics and readiness show.
pub(crate) struct Observer {
    pub(crate) hubs: Arc<Hubs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) ready: Condition,
    /// Woken when a shard has changed its phase.
    pub(crate) phases: Arc<Notify>,
    /// Shards that were live at the last look.
    pub(crate) live: AtomicUsize,
}

impl Observer {
    /// Looks once a second until the service stops.
    pub(crate) async fn run(self, stopping: CancellationToken) {
        let mut every = tokio::time::interval(OBSERVE_EVERY);
        loop {
            select! { biased;
                () = stopping.cancelled() => return,
                () = self.phases.notified() => self.observe_phases(),
                _ = every.tick() => self.observe(),
            }
        }
    }

    fn observe(&self) {
        let metrics = &self.metrics;
        let (mut memory, mut disk, mut dropped, mut lag) = (0, 0, 0, 0);
        let (mut state, mut guilds, mut sessions) = (0, 0, 0);
        for hub in self.hubs.all() {
            let core = hub.core();
            let fill = core.log.fill();
            memory += fill.memory_bytes;
            disk += fill.disk_bytes;
            dropped += fill.dropped_unstored;
            lag += fill.pending;
            let kept = core.guilds.memory();
            state += kept.base_bytes + kept.change_bytes + kept.overhead_bytes;
            guilds += kept.guilds;
            metrics.entities(hub.shard, "guilds", kept.guilds as u64);
            metrics.entities(hub.shard, "unavailable_guilds", kept.unavailable as u64);
            metrics.entities(hub.shard, "members", kept.members);
            metrics.entities(hub.shard, "changes", kept.changes as u64);
            let (attached, detached) = core.sessions.count();
            sessions += attached + detached;
        }
        metrics.log_memory.set(memory);
        metrics.log_disk.set(disk);
        metrics.log_unstored_dropped.set(dropped);
        metrics.log_lag.set(lag);
        metrics.state_bytes.set(state as u64);
        metrics.guilds.set(guilds as u64);
        metrics.sessions.set(sessions as u64);
        metrics.identifies_remaining.set(i64::from(self.gateway.identifies_remaining()));
        self.observe_phases();
    }

    fn observe_phases(&self) {
        let mut live = 0;
        let hubs = self.hubs.all();
        for hub in &hubs {
            let phase = *hub.phase().borrow();
            live += usize::from(phase == Phase::Live);
            self.metrics.status(hub.shard, status(phase));
        }
        self.metrics.shards_live.set(live as u64);
        let all = hubs.len();
        if live == all {
            self.ready.ready();
        } else {
            self.ready.waiting(format!("{live} of {all} shards are live"));
        }
        if self.live.swap(live, Ordering::Relaxed) != live {
            info!(live, shards = all, "shards live");
        }
    }
}

/// A phase as the metric has it.
fn status(phase: Phase) -> i64 {
    match phase {
        Phase::Stopped => 0,
        Phase::Connecting => 1,
        Phase::Identifying => 2,
        Phase::Resuming => 3,
        Phase::Live => 4,
    }
}
