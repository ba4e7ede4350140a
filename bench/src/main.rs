// SPDX-License-Identifier: AGPL-3.0-only
//! `holdfast-bench`: what Holdfast costs and how fast it is, always beside the direct path of the same run.
//! In: a scenario and its flags. Out: a table, and JSON in the results' directory.
//! Starts simulator, middle and client as processes of their own and kills them at the end, however it comes.

mod amqp;
mod client;
mod holdfast;
mod http;
mod interactions;
mod peer;
mod process;
mod procfs;
mod relay;
mod report;
mod rest;
mod scenario;
mod simulator;
mod stack;
mod traces;

use std::{fs, path::PathBuf, thread};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    amqp::{consumer, publisher},
    process::Nursery,
    scenario::{burst, fanout, idle, latency, memory, ready, replicas, start},
    stack::Setup,
    traces::Traces,
};

/// Measures Holdfast against the direct path and a bare relay.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The simulator's program; by default the one beside this program.
    #[arg(long, global = true)]
    simulator: Option<PathBuf>,
    /// Holdfast's program; by default the one beside this program.
    #[arg(long, global = true)]
    holdfast: Option<PathBuf>,
    /// A file of settings put at the end of Holdfast's.
    #[arg(long, global = true)]
    settings: Option<PathBuf>,
    /// Where results are written.
    #[arg(long, global = true, default_value = "bench/results")]
    out: PathBuf,
    /// Times everything is measured; medians are shown.
    #[arg(long, global = true, default_value_t = 5)]
    runs: usize,
    /// Length of a measured window.
    #[arg(long, global = true, default_value_t = 5.0)]
    seconds: f64,
    /// What to measure; everything if nothing is named.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Latency and CPU per event by path, rate and compression.
    Latency(latency::Args),
    /// CPU per further delivery with several clients on each shard.
    Fanout(fanout::Args),
    /// Thousands of events at once on every shard.
    Burst(burst::Args),
    /// READY and all guilds for a client on every shard.
    Ready(ready::Args),
    /// Memory per guild, loaded and after changes.
    Memory(memory::Args),
    /// From the start of the process to all shards ready.
    Start(start::Args),
    /// Memory of the idle service and of an idle connection.
    Idle(idle::Args),
    /// Events to RabbitMQ: CPU, events a second and latency of the AMQP front, against a bare publisher.
    Amqp(scenario::amqp::Args),
    /// REST requests: CPU per request, latency and memory of `api`, against a bare forwarder.
    Api(scenario::api::Args),
    /// Interactions that Discord posts: latency and as many as go through `http` and RabbitMQ to a worker and back.
    Interactions(scenario::interactions::Args),
    /// Two replicas with RabbitMQ and Redis: hand-over on SIGTERM, takeover after `kill -9`.
    Replicas(replicas::Args),
    /// All of the above with their defaults, and zlib and zstd at 32,000 events a second; what needs RabbitMQ and Redis
    /// excepted.
    All,
    /// The bare relay (started by the scenarios).
    Relay(relay::Args),
    /// The client (started by the scenarios).
    Client(client::Args),
    /// The bare publisher: from the gateway to RabbitMQ by its library alone (started by the scenarios).
    Publisher(publisher::Args),
    /// A Discord that answers REST requests at once (started by the scenarios).
    RestUpstream(rest::upstream::Args),
    /// The bare forwarder of REST requests (started by the scenarios).
    RestForwarder(rest::forwarder::Args),
    /// A worker that answers interactions at once (started by the scenarios).
    InteractionWorker(interactions::worker::Args),
    /// The consumer of a RabbitMQ exchange (started by the scenarios).
    Consumer(consumer::Args),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let command = cli.command.as_ref().unwrap_or(&Command::All);
    match command {
        Command::Relay(args) => return relay::run(args),
        Command::Client(args) => return client::run(args),
        Command::Publisher(args) => return publisher::run(args),
        Command::Consumer(args) => return consumer::run(args),
        Command::RestUpstream(args) => return rest::upstream::run(args),
        Command::RestForwarder(args) => return rest::forwarder::run(args),
        Command::InteractionWorker(args) => return interactions::worker::run(args),
        _ => {}
    }
    let scratch =
        tempfile::Builder::new().prefix("holdfast-bench-").tempdir().context("making a scratch directory")?;
    let setup = setup(&cli, scratch.path().to_owned())?;
    kill_on_signal(&setup)?;
    measure(&setup, command)
}

fn measure(setup: &Setup, command: &Command) -> Result<()> {
    match command {
        Command::Latency(args) => latency::run(setup, args),
        Command::Fanout(args) => fanout::run(setup, args),
        Command::Burst(args) => burst::run(setup, args),
        Command::Ready(args) => ready::run(setup, args),
        Command::Memory(args) => memory::run(setup, args),
        Command::Start(args) => start::run(setup, args),
        Command::Idle(args) => idle::run(setup, args),
        Command::Amqp(args) => scenario::amqp::run(setup, args),
        Command::Api(args) => scenario::api::run(setup, args),
        Command::Interactions(args) => scenario::interactions::run(setup, args),
        Command::Replicas(args) => replicas::run(setup, args),
        Command::All => all(setup),
        // Handled before any set-up.
        Command::Relay(_)
        | Command::Client(_)
        | Command::Publisher(_)
        | Command::Consumer(_)
        | Command::RestUpstream(_)
        | Command::InteractionWorker(_)
        | Command::RestForwarder(_) => Ok(()),
    }
}

fn all(setup: &Setup) -> Result<()> {
    let compressed = ["latency", "--rates=32000", "--compression=zlib-stream,zstd-stream"];
    latency::run(setup, &latency::Args::parse_from(["latency"]))?;
    latency::run(setup, &latency::Args::parse_from(compressed))?;
    fanout::run(setup, &fanout::Args::parse_from(["fanout"]))?;
    burst::run(setup, &burst::Args::parse_from(["burst"]))?;
    ready::run(setup, &ready::Args::parse_from(["ready"]))?;
    memory::run(setup, &memory::Args::parse_from(["memory"]))?;
    start::run(setup, &start::Args::parse_from(["start"]))?;
    idle::run(setup, &idle::Args::parse_from(["idle"]))
}

fn setup(cli: &Cli, scratch: PathBuf) -> Result<Setup> {
    let bench = std::env::current_exe().context("finding this program")?;
    let beside = |name: &str| bench.with_file_name(name);
    let settings = match &cli.settings {
        Some(file) => fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?,
        None => String::new(),
    };
    Ok(Setup {
        simulator: cli.simulator.clone().unwrap_or_else(|| beside("holdfast-simulator")),
        holdfast: cli.holdfast.clone().unwrap_or_else(|| beside("holdfast")),
        bench,
        settings,
        scratch,
        out: cli.out.clone(),
        runs: cli.runs.max(1),
        seconds: cli.seconds.max(0.1),
        nursery: Nursery::default(),
        traces: Traces::default(),
    })
}

/// On SIGINT and SIGTERM: kills what was started, removes its files and what it left elsewhere, ends.
fn kill_on_signal(setup: &Setup) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (nursery, traces, scratch) = (setup.nursery.clone(), setup.traces.clone(), setup.scratch.clone());
    let guard = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        nursery.kill();
        traces.remove_all();
        // What cannot be removed is in the system's directory for such files.
        let _ = fs::remove_dir_all(scratch);
        // 128 + SIGINT, as shells count.
        std::process::exit(130);
    });
    Ok(())
}
