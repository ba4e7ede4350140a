// SPDX-License-Identifier: AGPL-3.0-only
//! Replicas of one bot: the simulated Discord, the store, a worker, and processes as many as are asked for.

use std::collections::BTreeMap;

use holdfast_simulator::{Limits, Options, Simulator, WorldSpec};
use serde_json::Value;

use super::{
    Holdfast, Setup, Worker,
    process::run_to_the_end,
    store::{Prefix, REDIS},
    until,
    worker::RABBITMQ,
};

/// Leases that lapse soon, but not on a machine that is only busy.
pub(crate) const TIMES: &str = "expiry = \"6s\"\nrenew_interval = \"2s\"";

/// See the module's documentation.
pub(crate) struct Fleet {
    pub(crate) discord: Simulator,
    pub(crate) worker: Worker,
    pub(crate) prefix: Prefix,
    /// Lines of `[cluster]`: url and times.
    pub(crate) cluster: String,
    /// Further lines of `[ws]`.
    pub(crate) ws: &'static str,
    /// How many the bot has.
    pub(crate) shards: u32,
}

impl Fleet {
    /// A bot with so many shards, which may identify all at once, and guilds; no replica yet.
    pub(crate) async fn new(shards: u32, guilds: u32) -> Self {
        Self::at(REDIS, shards, guilds, |_| {}).await
    }

    /// The same at another store, with other limits.
    pub(crate) async fn at(url: &str, shards: u32, guilds: u32, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits { shards, max_concurrency: shards, ..Limits::default() };
        change(&mut limits);
        let world = WorldSpec { guilds, members: 5, channels: 3, roles: 3, ..WorldSpec::default() };
        let options = Options { world, limits, ..Options::default() };
        let discord = Simulator::start(options).await.expect("the simulator starts");
        let prefix = Prefix::new(url);
        let worker = Worker::start(&prefix.name).await;
        let cluster = format!("url = \"{url}\"\n{TIMES}");
        Self { discord, worker, prefix, cluster, ws: "", shards }
    }

    /// One more replica.
    pub(crate) async fn replica(&self) -> Holdfast {
        self.replica_with("").await
    }

    /// The same with further lines for `[cluster]`.
    pub(crate) async fn replica_with(&self, cluster: &str) -> Holdfast {
        let ws = self.settings(cluster);
        Holdfast::start_with(&self.discord, &Setup { ws: &ws, cache: "", ..Setup::default() }).await
    }

    /// A process that has all shards, and shares with nobody.
    pub(crate) async fn alone(&self) -> Holdfast {
        self.alone_at(None).await
    }

    /// The same with a folder of its state.
    pub(crate) async fn alone_at(&self, state: Option<&str>) -> Holdfast {
        let setup = Setup { ws: &self.unshared(), cache: "", state, ..Setup::default() };
        Holdfast::start_with(&self.discord, &setup).await
    }

    /// The settings' lines from `[ws]` on.
    pub(crate) fn settings(&self, cluster: &str) -> String {
        let (prefix, shared) = (&self.prefix.name, &self.cluster);
        format!("{}[cluster]\nprefix = \"{prefix}\"\n{shared}\n{cluster}\n", self.unshared())
    }

    fn unshared(&self) -> String {
        let (ws, prefix) = (self.ws, &self.prefix.name);
        format!("{ws}\n[broker]\nurl = \"{RABBITMQ}\"\nprefix = \"{prefix}\"\n")
    }

    /// Waits until each shard is live at exactly one of these replicas, and all of them are ready.
    pub(crate) async fn settled(&self, replicas: &[&Holdfast]) {
        until("each shard live at one replica", async || self.is_settled(replicas).await).await;
    }

    async fn is_settled(&self, replicas: &[&Holdfast]) -> bool {
        let mut owners: BTreeMap<u32, u32> = BTreeMap::new();
        for replica in replicas {
            if replica.answer("/readyz").await.0 != 200 {
                return false;
            }
            for shard in live_shards(replica).await {
                *owners.entry(shard).or_default() += 1;
            }
        }
        owners.len() == self.shards as usize && owners.values().all(|owners| *owners == 1)
    }

    /// Ends the traffic, and waits until all of it has come: each message once and in order, no position left out, no id
    /// for two events.
    pub(crate) async fn assert_whole(&self) {
        let sent = self.discord.stop_traffic().await.sent;
        self.worker.until_last(&sent).await;
        let account = self.worker.account();
        assert!(account.ledger.count() > 0, "there was traffic");
        account.ledger.assert_each_once(&sent, &BTreeMap::new());
        assert_eq!(account.wrong, [""; 0]);
        println!(
            "{} messages, {} repetitions, {} doubled over two counts",
            account.ledger.count(),
            account.repeated,
            account.doubled
        );
    }

    /// No session was lost, since the bot's start: not by us, and not by closing with 1000 or 1001.
    pub(crate) fn assert_no_session_lost(&self) {
        assert_eq!(self.discord.records(2).len(), self.shards as usize, "IDENTIFYs");
        assert_eq!(self.worker.account().gaps, 0, "gaps");
        let violations = self.discord.violations();
        assert!(violations.is_empty(), "{violations:?}");
    }

    /// Takes away what was declared.
    pub(crate) async fn end(self) {
        self.worker.end().await;
    }
}

/// The shards that are live at a replica.
pub(crate) async fn live_shards(replica: &Holdfast) -> Vec<u32> {
    let shards: Vec<Value> = serde_json::from_str(&replica.page("/shards").await).unwrap_or_default();
    let live = shards.iter().filter(|shard| shard["phase"] == "live");
    live.filter_map(|shard| shard["shard"].as_u64()?.try_into().ok()).collect()
}

impl Setup<'_> {
    /// Runs a process that ends before it listens; how it ended and what it said.
    pub(crate) async fn refused(&self, api_url: &str) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        self.write(api_url, folder.path());
        run_to_the_end(folder.path()).await
    }
}

impl Holdfast {
    /// Its live shards.
    pub(crate) async fn shards_here(&self) -> Vec<u32> {
        live_shards(self).await
    }
}
