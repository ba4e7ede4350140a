// SPDX-License-Identifier: AGPL-3.0-only
//! The processes of one measurement: the simulator, what stands in the middle, and clients.
//! In: a plan. Out: running processes and their control routes. All end when the stack is dropped.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    client::{self, ALL_INTENTS, Client, Compression},
    http::Http,
    process::{Nursery, Process},
};

/// Shards of the bot that is measured.
pub(crate) const SHARDS: u32 = 16;
/// Longest wait for a process to serve, or for a world to be built.
const STARTING: Duration = Duration::from_secs(180);
/// Bound of one control request.
const CONTROL: Duration = Duration::from_secs(10);
/// How often a starting process is looked at: what times to ready may be off by.
const LOOK: Duration = Duration::from_millis(2);
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

/// The simulated world: guilds in all, the rest per guild.
#[derive(Clone, Copy, Debug, Serialize, clap::Args)]
pub(crate) struct World {
    /// Guilds, on all shards together.
    #[arg(long, default_value_t = 4000)]
    pub(crate) guilds: u32,
    /// Channels per guild.
    #[arg(long, default_value_t = 50)]
    pub(crate) channels: u32,
    /// Roles per guild.
    #[arg(long, default_value_t = 50)]
    pub(crate) roles: u32,
    /// Members per guild.
    #[arg(long, default_value_t = 200)]
    pub(crate) members: u32,
    /// Presences per guild.
    #[arg(long, default_value_t = 0)]
    pub(crate) presences: u32,
    /// Emojis per guild; with the other defaults a GUILD_CREATE is 168 KB of JSON.
    #[arg(long, default_value_t = 40)]
    pub(crate) emojis: u32,
}

impl World {
    /// Ten small guilds per shard: enough to spread traffic, too little to weigh.
    pub(crate) const SMALL: Self =
        Self { guilds: SHARDS * 10, channels: 5, roles: 5, members: 10, presences: 0, emojis: 0 };
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
    /// The simulator's flags, for REST and gateway at these addresses.
    fn simulator(&self, http: SocketAddr, gateway: SocketAddr) -> Result<Vec<String>> {
        let limits = json!({
            "max_concurrency": self.max_concurrency,
            "shards": SHARDS,
            "identifies_total": 100_000,
            "identifies_remaining": 100_000,
            // Nothing resumes here, and what is kept for it would weigh on the next window.
            "resume_seconds": 2,
        });
        let world = serde_json::to_string(&self.world)?;
        Ok(vec![
            format!("--http-port={}", http.port()),
            format!("--gateway-port={}", gateway.port()),
            format!("--world={world}"),
            format!("--limits={limits}"),
        ])
    }
}

/// The processes of one measurement.
pub(crate) struct Stack {
    setup: Setup,
    plan: Plan,
    /// REST and control routes of the simulator.
    discord: Http,
    /// The simulator's gateway.
    upstream: SocketAddr,
    /// Where clients connect to.
    gateway: SocketAddr,
    /// From the start of the middle process until it was ready.
    pub(crate) ready_after: Duration,
    middle: Option<Process>,
    simulator: Process,
    files: PathBuf,
}

impl Stack {
    /// Starts everything but the clients, and waits until it is ready.
    pub(crate) fn start(setup: &Setup, plan: Plan) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let files = setup.scratch.join(format!("stack-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&files)?;
        let (discord, upstream) = (Http { address: free_address()? }, free_address()?);
        let args = plan.simulator(discord.address, upstream)?;
        let simulator = setup.nursery.start(&setup.simulator, &args, files.join("simulator.log"), false)?;
        let mut stack = Self {
            setup: setup.clone(),
            plan,
            discord,
            upstream,
            gateway: upstream,
            ready_after: Duration::ZERO,
            middle: None,
            simulator,
            files,
        };
        wait(&stack.simulator, || {
            Ok(matches!(stack.discord.request("GET", "/control/state", None, CONTROL), Ok((200, _))))
        })?;
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
            format!("--upstream={}", self.upstream),
        ];
        let log = self.files.join("relay.log");
        let relay = self.setup.nursery.start(&self.setup.bench, &args, log, false)?;
        wait(&relay, || Ok(TcpStream::connect(self.gateway).is_ok()))?;
        self.middle = Some(relay);
        Ok(())
    }

    fn start_holdfast(&mut self) -> Result<()> {
        self.gateway = free_address()?;
        let admin = Http { address: free_address()? };
        let config = self.files.join("holdfast.toml");
        fs::write(&config, self.settings(admin.address))?;
        let args = ["up".to_owned(), "--config".to_owned(), config.display().to_string()];
        let log = self.files.join("holdfast.log");
        let holdfast = self.setup.nursery.start(&self.setup.holdfast, &args, log, false)?;
        wait(&holdfast, || Ok(matches!(admin.request("GET", "/readyz", None, CONTROL), Ok((200, _)))))?;
        self.middle = Some(holdfast);
        Ok(())
    }

    fn settings(&self, admin: SocketAddr) -> String {
        let (discord, gateway) = (self.discord.address, self.gateway);
        format!(
            "[discord]\ntoken = \"sim-token\"\napi_url = \"http://{discord}/api/v10\"\n\
             intents = {ALL_INTENTS}\ncompression = \"{compression}\"\n\n\
             [ws]\nlisten = \"{gateway}\"\npublic_url = \"ws://{gateway}\"\nstate_dir = \"{state}\"\n\
             shards = {{ total = {SHARDS} }}\nstored_zlib = false\ncache = {{ {cache} }}\n\n\
             [admin]\nlisten = \"{admin}\"\n\n[log]\nlevel = \"warn\"\n{more}\n",
            compression = self.plan.compression.name(),
            state = self.files.join("state").display(),
            cache = EVERYTHING.map(|entity| format!("{entity} = true")).join(", "),
            more = self.setup.settings,
        )
    }

    /// Connects clients to what stands in the middle, `clients` to each shard.
    pub(crate) fn client(&self, clients: u32, check: bool) -> Result<Client> {
        self.client_at(self.gateway, clients, check)
    }

    /// Connects clients past what stands in the middle.
    pub(crate) fn client_past(&self, clients: u32) -> Result<Client> {
        self.client_at(self.upstream, clients, false)
    }

    fn client_at(&self, address: SocketAddr, clients: u32, check: bool) -> Result<Client> {
        let compression = self.plan.compression;
        let args =
            client::Args { address, token: "sim-token".into(), shards: SHARDS, clients, compression, check };
        Client::start(&self.setup.nursery, &self.setup.bench, &args, self.files.join("client.log"))
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
    pub(crate) fn simulator(&self) -> &Process {
        &self.simulator
    }

    /// Starts generated events.
    pub(crate) fn traffic(&self, traffic: &Value) -> Result<()> {
        self.discord.json("POST", "/control/traffic", Some(traffic), CONTROL).map(drop)
    }

    /// Whether events are being generated.
    pub(crate) fn traffic_runs(&self) -> Result<bool> {
        let traffic = self.discord.json("GET", "/control/traffic", None, CONTROL)?;
        traffic["running"].as_bool().context("/control/traffic without `running`")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // A log of gigabytes may stand there; what is left is removed with the scratch directory.
        self.middle = None;
        let _ = fs::remove_dir_all(self.files.join("state"));
    }
}

/// The entities of `ws.cache`.
const EVERYTHING: [&str; 11] = [
    "channels",
    "roles",
    "emojis",
    "stickers",
    "members",
    "presences",
    "voice_states",
    "threads",
    "stage_instances",
    "scheduled_events",
    "soundboard_sounds",
];

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

/// Waits until `done`, as long as `process` lives.
fn wait(process: &Process, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + STARTING;
    while !done()? {
        process.alive()?;
        if Instant::now() > deadline {
            bail!("not ready after {STARTING:?}. {}", process.last_words());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// A loopback address that nobody listens on.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
