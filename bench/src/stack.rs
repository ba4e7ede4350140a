// SPDX-License-Identifier: AGPL-3.0-only
//! The processes of one measurement: the simulator, what stands in the middle, and clients.
//! In: a plan. Out: running processes and their control routes. All end when the stack is dropped.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    client::{self, Compression},
    holdfast::{Config, Holdfast},
    peer::Peer,
    process::{Nursery, Process, STARTING, free_address},
    simulator::{Simulator, Spec, World},
    traces::Traces,
};

/// Shards of the bot that is measured.
pub(crate) const SHARDS: u32 = 16;
/// A process rests when it uses less than this share of a core over [`RESTING`].
const REST: f64 = 0.01;
const RESTING: Duration = Duration::from_millis(500);

/// Where programs and results are, and how often things are measured.
#[derive(Clone)]
pub(crate) struct Setup {
    /// This program: it is also the relay and the client.
    pub(crate) bench: PathBuf,
    /// The simulator's program.
    pub(crate) simulator: PathBuf,
    /// Holdfast's program.
    pub(crate) holdfast: PathBuf,
    /// Lines put at the end of Holdfast's settings.
    pub(crate) settings: String,
    /// Where stacks have their files while they live.
    pub(crate) scratch: PathBuf,
    /// Where results are written.
    pub(crate) out: PathBuf,
    /// Times everything is measured.
    pub(crate) runs: usize,
    /// Length of a measured window.
    pub(crate) seconds: f64,
    /// Knows all processes.
    pub(crate) nursery: Nursery,
    /// Knows all that is left elsewhere.
    pub(crate) traces: Traces,
}

impl Setup {
    /// An empty folder, which goes with the scratch directory.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = self.scratch.join(format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(folder)
    }
}

/// What stands between client and gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Path {
    /// Nothing.
    Direct,
    /// The bare relay.
    Relay,
    /// Holdfast.
    Holdfast,
}

impl Path {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Holdfast => "holdfast",
        }
    }
}

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// What stands in the middle.
    pub(crate) path: Path,
    /// The world behind it.
    pub(crate) world: World,
    /// Compression on both sides.
    pub(crate) compression: Compression,
    /// How many shards Discord lets identify at once.
    pub(crate) max_concurrency: u32,
}

impl Plan {
    fn spec(&self) -> Spec {
        Spec {
            world: self.world,
            shards: SHARDS,
            max_concurrency: self.max_concurrency,
            // Nothing resumes here, and what is kept for it would weigh on the next window.
            resume_seconds: 2,
        }
    }
}

/// The processes of one measurement.
pub(crate) struct Stack {
    setup: Setup,
    plan: Plan,
    /// Where clients connect to.
    gateway: SocketAddr,
    /// From the start of the middle process until it was ready.
    pub(crate) ready_after: Duration,
    middle: Option<Process>,
    discord: Simulator,
    files: PathBuf,
}

impl Stack {
    /// Starts everything but the clients, and waits until it is ready.
    pub(crate) fn start(setup: &Setup, plan: Plan) -> Result<Self> {
        let files = setup.folder("stack")?;
        let discord = Simulator::start(setup, &plan.spec(), &files)?;
        let mut stack = Self {
            setup: setup.clone(),
            plan,
            gateway: discord.gateway,
            ready_after: Duration::ZERO,
            middle: None,
            discord,
            files,
        };
        let started = Instant::now();
        match plan.path {
            Path::Direct => {}
            Path::Relay => stack.start_relay()?,
            Path::Holdfast => stack.start_holdfast()?,
        }
        stack.ready_after = started.elapsed();
        Ok(stack)
    }

    fn start_relay(&mut self) -> Result<()> {
        self.gateway = free_address()?;
        let args = [
            "relay".to_owned(),
            format!("--listen={}", self.gateway),
            format!("--upstream={}", self.discord.gateway),
        ];
        let log = self.files.join("relay.log");
        let relay = self.setup.nursery.start(&self.setup.bench, &args, log, false)?;
        relay.wait_until(|| Ok(TcpStream::connect(self.gateway).is_ok()))?;
        self.middle = Some(relay);
        Ok(())
    }

    fn start_holdfast(&mut self) -> Result<()> {
        let config = Config {
            command: "up",
            shards: SHARDS,
            compression: self.plan.compression,
            cache_everything: true,
            sections: "",
            files: &self.files,
        };
        let holdfast = Holdfast::start(&self.setup, &self.discord, &config)?;
        self.gateway = holdfast.gateway;
        self.middle = Some(holdfast.process);
        Ok(())
    }

    /// Connects clients to what stands in the middle, `clients` to each shard.
    pub(crate) fn client(&self, clients: u32, check: bool) -> Result<Peer> {
        self.client_at(self.gateway, clients, check)
    }

    /// Connects clients past what stands in the middle.
    pub(crate) fn client_past(&self, clients: u32) -> Result<Peer> {
        self.client_at(self.discord.gateway, clients, false)
    }

    fn client_at(&self, address: SocketAddr, clients: u32, check: bool) -> Result<Peer> {
        let compression = self.plan.compression;
        let args =
            client::Args { address, token: "sim-token".into(), shards: SHARDS, clients, compression, check };
        Peer::start(&self.setup, &args.words(), self.files.join("client.log"))
    }

    /// What stands in the middle, if anything does.
    pub(crate) fn middle(&self) -> Option<&Process> {
        self.middle.as_ref()
    }

    /// Holdfast, or the relay; an error on the direct path.
    pub(crate) fn service(&self) -> Result<&Process> {
        self.middle.as_ref().context("nothing stands in the middle")
    }

    /// The simulator.
    pub(crate) fn simulator(&self) -> &Simulator {
        &self.discord
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // A log of gigabytes may stand there; what is left is removed with the scratch directory.
        self.middle = None;
        let _ = fs::remove_dir_all(self.files.join("state"));
    }
}

/// Waits until `process` does nothing any more.
pub(crate) fn rest(process: &Process) -> Result<()> {
    let deadline = Instant::now() + STARTING;
    let mut before = process.cpu()?;
    loop {
        thread::sleep(RESTING);
        let now = process.cpu()?;
        if now.since(&before).as_secs_f64() < REST * RESTING.as_secs_f64() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the process does not come to rest");
        }
        before = now;
    }
}
