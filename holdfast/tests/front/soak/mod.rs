// SPDX-License-Identifier: AGPL-3.0-only
//! Everything at once, for long: traffic of all kinds, bots that come and go, connections, sessions and processes that
//! end, by chance. Every message is accounted for, the guilds are right in the end, memory and disk stay bounded.
//!
//! `HOLDFAST_SOAK_SECONDS` and `HOLDFAST_SOAK_SEED` choose how long and which troubles.

mod account;
mod bot;
mod trouble;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use account::Hole;
use bot::{Bot, Order};
use holdfast_simulator::{Fault, Sent, Simulator, Traffic, Trim};
use tokio::sync::watch;
use trouble::Trouble;

use crate::snapshot::assert_same;
use crate::support::{Client, Holdfast, Setup, assert_well_behaved, demand, discord_with, of_shard, until};

const SHARDS: u32 = 2;
const GUILDS: u32 = 8;
/// Two of each shard, told apart by their names.
const NAMES: [&str; 2] = ["one", "two"];
/// Events a second on each shard, half of them messages.
const RATE: f64 = 120.0;
/// What a bot has to get after a trouble before it counts as over.
const MESSAGES: usize = 40;
const LOG_MIB: u64 = 48;
const SETTINGS: &str = "catch_up_from = \"confirmed\"\ncheckpoint_age = \"2s\"\n\
                        [ws.log]\nmemory = \"4 MiB\"\ndisk = \"48 MiB\"";
/// Logs, guilds, sockets, what a debug build and an allocator add.
const MEMORY_MIB: u64 = 160;
/// Beside the log: sessions and guilds.
const RECORDS_MIB: u64 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_no_event_is_lost() {
    let seed = demand::number("HOLDFAST_SOAK_SEED").unwrap_or_else(|| demand::usually(1, fastrand::u64(..)));
    let seconds = demand::number("HOLDFAST_SOAK_SECONDS").unwrap_or_else(|| demand::usually(20, 600));
    // Shown when the test fails.
    println!("seed {seed}, {seconds} s");
    let mut soak = Soak::start(fastrand::Rng::with_seed(seed)).await;
    while soak.begun.elapsed() < Duration::from_secs(seconds) {
        let trouble = trouble::next(&mut soak.random, SHARDS, soak.bots.len());
        println!("{:>7.2} s  {trouble:?}", soak.begun.elapsed().as_secs_f64());
        soak.cause(trouble).await;
        // Sometimes troubles overlap.
        if soak.random.u8(..3) > 0 {
            soak.progress().await;
        }
        soak.assert_bounded();
    }
    soak.finish().await;
}

/// Everything that runs.
struct Soak {
    random: fastrand::Rng,
    begun: Instant,
    discord: Simulator,
    holdfast: Holdfast,
    front: watch::Sender<String>,
    bots: Vec<Bot>,
    /// Messages that went to nobody: Discord had dropped a session and not begun the next.
    holes: Vec<Hole>,
    most_mib: u64,
}

impl Soak {
    async fn start(mut random: fastrand::Rng) -> Self {
        let trim = random.choice([Trim::None, Trim::Count, Trim::Heartbeat]).expect("three");
        println!("Discord's resume buffer: {trim:?}");
        let discord = discord_with(SHARDS, GUILDS, |limits| {
            limits.resume_trim = trim;
            // Often, but with time enough for a machine that builds meanwhile: Discord ends a session whose heartbeat
            // is half an interval late.
            limits.heartbeat_interval_ms = 5_000;
        })
        .await;
        // A restart forgets presences: they are not stored.
        let setup = Setup { cache: "members = true", ws: SETTINGS, ..Setup::default() };
        let holdfast = Holdfast::start_with(&discord, &setup).await;
        holdfast.live().await;
        let (front, _) = watch::channel(holdfast.url.clone());
        let bots = (0..SHARDS)
            .flat_map(|shard| NAMES.map(|name| Bot::start(front.subscribe(), [shard, SHARDS], name)));
        let bots: Vec<Bot> = bots.collect();
        // What is sent before a bot's first snapshot isn't for it.
        until("the bots' sessions", async || {
            holdfast.metric("holdfast_ws_client_identifies_total").await >= bots.len() as f64
        })
        .await;
        let begun = Instant::now();
        let mut soak = Self { random, begun, discord, holdfast, front, bots, holes: Vec::new(), most_mib: 0 };
        soak.discord.traffic(Traffic { seed: soak.random.u64(..), ..Traffic::mixed(RATE) });
        soak.progress().await;
        soak
    }

    async fn cause(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Upstream(fault) => {
                self.discord.fault(&fault);
            }
            Trouble::NewSession(shard, faults) => self.new_session(shard, &faults).await,
            Trouble::KillHoldfast => {
                self.holdfast.kill_and_restart().await;
                self.front.send_replace(self.holdfast.url.clone());
            }
            Trouble::EndHoldfast => {
                self.holdfast.terminate_and_restart().await;
                self.front.send_replace(self.holdfast.url.clone());
            }
            Trouble::CutBot(bot) => self.bots[bot].order(Order::Cut).await,
            Trouble::KillBot(bot, away) => self.bots[bot].order(Order::Kill(away)).await,
            Trouble::StallBot(bot, time) => self.bots[bot].order(Order::Stall(time)).await,
            Trouble::Burst(traffic) => {
                self.discord.traffic(traffic);
            }
        }
    }

    /// Discord drops a session: what it sends to nobody until there is a new one can't be had.
    async fn new_session(&mut self, shard: u32, faults: &[Fault]) {
        // Troubles before this one have been noticed and are over.
        self.discord.clear_faults();
        self.progress().await;
        self.holdfast.live().await;
        let ours = |sent: Sent| of_shard(&self.discord, &sent.sent, shard, SHARDS);
        // Only what comes from now on may be missing.
        let before = ours(self.discord.sent());
        until("what was sent is there", async || {
            self.bots.iter().filter(|bot| bot.shard == shard).all(|bot| bot.has(&before))
        })
        .await;
        let guilds = format!("holdfast_ws_events_total{{shard=\"{shard}\",event=\"GUILD_CREATE\"}}");
        let known = self.holdfast.metric(&guilds).await;
        for fault in faults {
            self.discord.fault(fault);
        }
        self.discord.wait_for_identify(shard).await.expect("a new session");
        // A guild's events come once the guild itself has come.
        until("all guilds of the new session", async || {
            self.holdfast.metric(&guilds).await >= known + f64::from(GUILDS / SHARDS)
        })
        .await;
        let after = ours(self.discord.sent());
        self.holes.push((before, after));
        self.holdfast.live().await;
        // A process killed before the new session's id is on disk has lost that session too: a matter of milliseconds,
        // which nobody can close. Not here.
        self.progress().await;
    }

    /// Each bot gets some more, so nobody is left behind.
    async fn progress(&self) {
        let wanted: Vec<usize> = self.bots.iter().map(|bot| bot.messages() + MESSAGES).collect();
        until("every bot gets more", async || {
            self.bots.iter().zip(&wanted).all(|(bot, wanted)| bot.messages() >= *wanted)
        })
        .await;
    }

    fn assert_bounded(&mut self) {
        self.most_mib = self.most_mib.max(self.holdfast.resident_mib());
        assert!(self.most_mib < MEMORY_MIB, "{} MiB of memory", self.most_mib);
        let disk = size(&self.holdfast.state()) >> 20;
        assert!(disk < LOG_MIB + RECORDS_MIB, "{disk} MiB on disk");
    }

    /// All traffic ends; everything that was sent is counted.
    async fn finish(mut self) {
        self.discord.clear_faults();
        self.progress().await;
        self.discord.stop_traffic().await;
        // First, since what Discord punishes has its price in messages.
        assert_well_behaved(&self.discord);
        // Messages behind everything else: when they are there, all is.
        self.discord.traffic(Traffic::burst(u64::from(GUILDS)));
        let sent = self.discord.finish_traffic().await.sent;
        let mut twice = 0;
        for (bot, name) in std::mem::take(&mut self.bots).into_iter().zip(NAMES.iter().cycle()) {
            let (shard, ours) = (bot.shard, of_shard(&self.discord, &sent, bot.shard, SHARDS));
            let runs = bot.finish(ours.clone()).await;
            twice += account::check(&format!("bot {name} of shard {shard}"), &runs, &ours, &self.holes);
        }
        for shard in 0..SHARDS {
            let (_, opened) = Client::identified(&self.holdfast.url, [shard, SHARDS]).await;
            assert_same(&self.discord, &opened.guilds, &["presences"]);
        }
        assert_eq!(self.holdfast.terminate().await.code(), Some(0));
        let said = self.holdfast.output();
        for defect in ["panic", " ERROR ", "bound on disk is too small"] {
            assert!(!said.contains(defect), "{said}");
        }
        let messages: u64 = sent.values().sum();
        println!(
            "{messages} messages, {twice} of them twice, {} of Discord's sessions dropped, {} MiB at most",
            self.holes.len(),
            self.most_mib
        );
    }
}

/// Bytes of a file, or of all files below a folder; files may come and go meanwhile.
fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let each = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    each.sum()
}
