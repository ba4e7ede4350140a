// SPDX-License-Identifier: AGPL-3.0-only
//! Replicas of the service that share a store.

use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_cluster::Settings;
use holdfast_simulator::RestLimits;

use super::{RunningApi, Stage, api, stage, until};

const REDIS: &str = "redis://127.0.0.1:6379";

/// Replicas before one Discord, under a prefix of their own.
pub(crate) async fn fleet(
    count: usize,
    change: impl FnOnce(&mut RestLimits),
) -> (Stage, Vec<(RunningApi, Settings)>) {
    configured_fleet(count, change, |_| {}).await
}

/// The same with settings that a test chooses.
pub(crate) async fn configured_fleet(
    count: usize,
    change: impl FnOnce(&mut RestLimits),
    configure: impl Fn(&mut holdfast_api::Config),
) -> (Stage, Vec<(RunningApi, Settings)>) {
    let stage = stage(change).await;
    let settings = store(REDIS);
    let mut replicas = Vec::new();
    for _ in 0..count {
        let replica = api(stage.discord.api_url(), |config| {
            config.cluster = Some(settings.clone());
            configure(config);
        })
        .await;
        until(|| replica.metric("holdfast_rest_store_connected") == 1.0).await;
        replicas.push((replica, settings.clone()));
    }
    (stage, replicas)
}

/// The store at an address, under a prefix of its own: what an earlier run has learnt isn't ours to know.
pub(crate) fn store(url: &str) -> Settings {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let mut settings = Settings::at(url).expect("an address");
    settings.prefix = format!("holdfast-test-{}", now.as_nanos());
    settings
}
