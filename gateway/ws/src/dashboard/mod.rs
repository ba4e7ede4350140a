// SPDX-License-Identifier: AGPL-3.0-only
//! The dashboard: a page, and once a second, while somebody watches, one snapshot for all who do.
//!
//! In: shards, sessions of clients, the store's owners, the process's metrics and readiness. Out: the page at `/`, its
//! events at `/events`. One task, which ends with the service. There is no token, session or name of a guild in it.

mod clients;
mod figures;
mod page;
mod snapshot;

use std::{sync::Arc, time::Duration};

use holdfast_cluster::{Cluster, Owner, ShardId};
use holdfast_service::{Feed, Metrics, Page, Readiness, Service};
use tokio::{
    select,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::snapshot::Snapshot;
use crate::{
    fleet::{Hubs, Member, Starter},
    settings::Config,
    shard::Gateway,
};

/// Browsers that may watch at once. 16 at 2,000 shards are 16 × 90 KB a second.
const WATCHERS: usize = 16;
const EVERY: Duration = Duration::from_secs(1);
/// What the store may take to say who owns what; without its answer the snapshot goes out all the same.
const OWNERS_WITHIN: Duration = Duration::from_millis(500);

/// What a snapshot is made of.
pub(crate) struct Dashboard {
    feed: Feed,
    config: Arc<Config>,
    hubs: Arc<Hubs>,
    gateway: Arc<Gateway>,
    cluster: Option<Cluster>,
    metrics: Metrics,
    readiness: Readiness,
}

impl Dashboard {
    /// Adds the page and its events, and tells who watches until the service stops.
    pub(crate) fn start(starter: &Starter, member: Option<&Member>, service: &Service) {
        let feed = Feed::new(WATCHERS, starter.metrics.dashboard.clone());
        let page = page::text();
        service.pages.add("/", move || Page::html(page.clone()));
        service.pages.add_feed("/events", &feed);
        let dashboard = Self {
            feed,
            config: Arc::clone(&starter.config),
            hubs: Arc::clone(&starter.hubs),
            gateway: Arc::clone(&starter.gateway),
            cluster: member.map(|member| member.cluster.clone()),
            metrics: service.metrics.clone(),
            readiness: service.readiness.clone(),
        };
        starter.tasks.spawn("dashboard", dashboard.run(starter.tasks.token().clone()));
    }

    async fn run(self, stopping: CancellationToken) {
        let dashboard = Arc::new(self);
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! { biased;
                () = stopping.cancelled() => return,
                _ = every.tick() => {}
            }
            if !dashboard.feed.is_watched() {
                continue;
            }
            let owners = dashboard.owners().await;
            let making = Arc::clone(&dashboard);
            // Thousands of shards and their metrics take a while.
            let made = tokio::task::spawn_blocking(move || Snapshot::take(&making, owners).json()).await;
            match made {
                Ok(Ok(json)) => dashboard.feed.tell(&json),
                Ok(Err(error)) => warn!(%error, "no snapshot for the dashboard"),
                // The runtime ends.
                Err(error) if !error.is_panic() => return,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }

    /// Who owns which shard, if replicas share them and the store says so in time.
    async fn owners(&self) -> Option<Vec<Option<Owner>>> {
        let cluster = self.cluster.as_ref()?;
        let total = self.hubs.total();
        let all: Vec<ShardId> = (0..total).map(|shard| ShardId::new(shard, total)).collect();
        timeout(OWNERS_WITHIN, cluster.owners(&all)).await.ok()?.ok()
    }
}
