// SPDX-License-Identifier: AGPL-3.0-only
//! Replicas of one bot, each a process of its own, and how a client comes back to them.

use std::time::Duration;

use holdfast_simulator::Simulator;
use serde_json::Value;

use super::{Client, Ended, Holdfast, until, within};

/// See the module's documentation.
pub(crate) struct Fleet {
    pub(crate) replicas: Vec<Holdfast>,
    cluster: String,
    /// Of the bot.
    pub(crate) shards: u32,
}

impl Fleet {
    /// Starts replicas, one after the other, and waits until each runs what it should.
    pub(crate) async fn start(discord: &Simulator, shards: u32, count: usize, ws: &str) -> Self {
        let prefix = format!("splice-{:016x}", fastrand::u64(..));
        let cluster = format!(
            "[cluster]\nurl = \"redis://127.0.0.1:6379\"\nprefix = \"{prefix}\"\nexpiry = \"6s\"\nrenew_interval = \"1s\"\n"
        );
        let mut fleet = Self { replicas: Vec::new(), cluster, shards };
        for _ in 0..count {
            fleet.add(discord, ws).await;
            fleet.settled().await;
        }
        fleet
    }

    /// The same, where none runs more than so many.
    pub(crate) async fn with_bound(
        discord: &Simulator,
        shards: u32,
        count: usize,
        bound: u32,
        ws: &str,
    ) -> Self {
        let mut fleet = Self::start(discord, shards, 0, "").await;
        fleet.cluster.push_str(&format!("max_shards = {bound}\n"));
        for _ in 0..count {
            fleet.add(discord, ws).await;
        }
        let all = async || {
            let mut live = 0;
            for index in 0..count {
                live += fleet.shards(index).await.len();
            }
            live == shards as usize
        };
        until("every shard runs", all).await;
        fleet
    }

    /// One more, which runs some by the time this returns.
    pub(crate) async fn add(&mut self, discord: &Simulator, ws: &str) {
        // A third one gets shards of those before it, whatever their names are.
        let weight = if self.replicas.len() < 2 { 100 } else { 400 };
        let ws = format!("{ws}\n{}weight = {weight}\n", self.cluster);
        let holdfast = Holdfast::start(discord, &ws).await;
        until("the replica is one", async || holdfast.metric("holdfast_cluster_takeovers_total").await > 0.0)
            .await;
        self.replicas.push(holdfast);
    }

    /// Waits until every shard runs where it should.
    pub(crate) async fn settled(&self) {
        until("every shard runs where it should", async || self.is_settled().await).await;
    }

    /// Whether what has been handed over has been taken, and runs.
    async fn is_settled(&self) -> bool {
        let (mut given, mut taken, mut live) = (0.0, 0.0, 0);
        for (index, replica) in self.replicas.iter().enumerate() {
            given += replica.metric("holdfast_cluster_handovers_total").await;
            taken += replica.metric("holdfast_cluster_takeovers_total").await;
            live += self.shards(index).await.len();
        }
        taken == given + f64::from(self.shards) && live == self.shards as usize
    }

    /// The shards that are live at a replica.
    pub(crate) async fn shards(&self, replica: usize) -> Vec<u32> {
        let page = self.replicas[replica].page("/shards").await;
        let shards: Vec<Value> = serde_json::from_str(&page).unwrap_or_default();
        let live = shards.iter().filter(|shard| shard["phase"] == "live");
        live.filter_map(|shard| shard["shard"].as_u64()?.try_into().ok()).collect()
    }

    /// One of them.
    pub(crate) async fn shard_of(&self, replica: usize) -> u32 {
        self.shards(replica).await[0]
    }
}

/// Comes back through a replica until RESUMED: the shard may be on its way.
pub(crate) async fn back(client: &mut Client, url: &str) {
    within("the session is resumed", async {
        while let Err(ended) = try_back(client, url).await {
            assert_ne!(ended, Ended::Closed(4010));
            client.cut();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Tries it once.
pub(crate) async fn try_back(client: &mut Client, url: &str) -> Result<(), Ended> {
    client.try_connect(url).await?;
    client.try_send(&client.resume_payload()).await?;
    loop {
        let payload = client.next().await?;
        assert_ne!(payload["op"], 9, "the session is lost");
        if payload["t"] == "RESUMED" {
            return Ok(());
        }
    }
}
