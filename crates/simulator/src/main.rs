// SPDX-License-Identifier: AGPL-3.0-only
//! `holdfast-simulator`: the simulator as a process.
//!
//! In: flags. Out: one JSON line with its URLs once it listens; then it serves until SIGINT or SIGTERM.
use std::io::Write as _;
use std::net::IpAddr;

use anyhow::Context as _;
use clap::Parser;
use holdfast_simulator::{Limits, Options, Scenario, Simulator, StepError, WorldSpec};
use tokio::signal::unix::{SignalKind, signal};

/// A simulated Discord: gateway, REST and control routes.
#[derive(Parser)]
#[command(name = "holdfast-simulator", version)]
struct Flags {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port of the gateway; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    gateway_port: u16,
    /// Port of REST and control routes; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    http_port: u16,
    /// A token that is accepted; may be given several times.
    #[arg(long = "token", default_value = "sim-token")]
    tokens: Vec<String>,
    /// Recommended number of shards.
    #[arg(long, default_value_t = 1)]
    shards: u32,
    /// IDENTIFYs per five seconds.
    #[arg(long, default_value_t = 1)]
    max_concurrency: u32,
    /// Number of guilds.
    #[arg(long, default_value_t = WorldSpec::default().guilds)]
    guilds: u32,
    /// Members per guild.
    #[arg(long, default_value_t = WorldSpec::default().members)]
    members: u32,
    /// Channels per guild.
    #[arg(long, default_value_t = WorldSpec::default().channels)]
    channels: u32,
    /// Roles per guild.
    #[arg(long, default_value_t = WorldSpec::default().roles)]
    roles: u32,
    /// The whole world as JSON, in the form of POST /control/world; wins over the counts above.
    #[arg(long)]
    world: Option<String>,
    /// A scenario: a JSON file with a world, limits and steps; wins over all of the above.
    #[arg(long)]
    scenario: Option<std::path::PathBuf>,
    /// Limits as JSON, in the form of POST /control/limits.
    #[arg(long)]
    limits: Option<String>,
}

impl Flags {
    fn scenario(&self) -> anyhow::Result<Option<Scenario>> {
        let Some(path) = &self.scenario else { return Ok(None) };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).map(Some).with_context(|| format!("{} is no scenario", path.display()))
    }

    fn options(self) -> anyhow::Result<Options> {
        let counts = WorldSpec {
            guilds: self.guilds,
            members: self.members,
            channels: self.channels,
            roles: self.roles,
            ..WorldSpec::default()
        };
        let world = self.world.map_or(Ok(counts), |json| serde_json::from_str(&json))?;
        let mut limits =
            Limits { shards: self.shards, max_concurrency: self.max_concurrency, ..Limits::default() };
        if let Some(json) = self.limits {
            limits = limits.changed(&serde_json::from_str(&json)?)?;
        }
        Ok(Options {
            host: self.host,
            gateway_port: self.gateway_port,
            http_port: self.http_port,
            tokens: self.tokens,
            world,
            limits,
        })
    }
}

/// Plays the scenario and then leaves the simulator running; ends only with the scenario's error.
async fn played(play: impl Future<Output = Result<(), StepError>>) -> anyhow::Result<()> {
    play.await?;
    std::future::pending().await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let flags = Flags::parse();
    let scenario = flags.scenario()?;
    let mut options = flags.options()?;
    if let Some(Scenario { world, limits, .. }) = &scenario {
        (options.world, options.limits) = (world.clone(), limits.clone());
    }
    let simulator = Simulator::start(options).await?;
    let urls = serde_json::json!({"gateway": simulator.gateway_url(), "resume": simulator.resume_url(),
        "api": simulator.api_url(), "control": simulator.control_url()});
    writeln!(std::io::stdout(), "{urls}")?;
    std::io::stdout().flush()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let play = async {
        match &scenario {
            Some(scenario) => scenario.play(&simulator).await,
            None => Ok(()),
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        never = played(play) => never?,
    }
    simulator.shut_down().await;
    Ok(())
}
