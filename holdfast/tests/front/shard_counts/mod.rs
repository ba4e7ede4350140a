// SPDX-License-Identifier: AGPL-3.0-only
//! Clients whose shard count isn't ours: they get what Discord would give a client of their count.

mod commands;
mod events;
mod sessions;

use std::collections::BTreeMap;

use holdfast_simulator::Simulator;
use serde_json::Value;

use crate::support::Client;

/// The client's among all that was sent since `from` came once and in order.
async fn finish(
    discord: &Simulator,
    client: &mut Client,
    sent: &BTreeMap<String, u64>,
    from: &BTreeMap<String, u64>,
) {
    let own = own(sent, client.shard);
    assert!(!own.is_empty());
    client.until_last(&own).await;
    client.ledger.assert_each_once(&own, from);
    assert_eq!(discord.violations().len(), 0);
}

/// The messages of a client's guilds.
fn own(sent: &BTreeMap<String, u64>, [shard, count]: [u32; 2]) -> BTreeMap<String, u64> {
    let guilds = of_client(&sent.keys().map(|id| id.parse().unwrap()).collect::<Vec<_>>(), shard, count);
    guilds.iter().map(|guild| (guild.to_string(), sent[&guild.to_string()])).collect()
}

fn all_guilds(discord: &Simulator) -> Vec<u64> {
    sorted(discord.guilds(0, 1))
}

fn of_client(guilds: &[u64], shard: u32, count: u32) -> Vec<u64> {
    let is_own = |guild: &u64| (guild >> 22) % u64::from(count) == u64::from(shard);
    sorted(guilds.iter().copied().filter(is_own).collect())
}

fn ids(guilds: &[Value]) -> Vec<u64> {
    sorted(guilds.iter().map(|guild| guild["id"].as_str().unwrap().parse().unwrap()).collect())
}

fn sorted(mut ids: Vec<u64>) -> Vec<u64> {
    ids.sort_unstable();
    ids
}
