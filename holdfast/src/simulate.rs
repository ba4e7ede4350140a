// SPDX-License-Identifier: AGPL-3.0-only
//! `up --simulate`: a simulated Discord in this process, with a small world and some traffic, and the settings that
//! point Holdfast at it. Owned by the command; its folder goes with it.

use anyhow::Context as _;
use holdfast_discord::Intents;
use holdfast_service::settings::{Value, Written};
use holdfast_simulator::{Limits, Options, Simulator, Traffic, WorldSpec};
use tempfile::TempDir;

use crate::args::Up;

/// The bot's token in the simulated world.
const TOKEN: &str = "simulated-token";

const ARGUMENT: &str = "--simulate";

/// A simulated Discord.
pub(crate) struct Simulation {
    simulator: Simulator,
    greeting: String,
    state: TempDir,
}

impl Simulation {
    pub(crate) async fn start(options: &Up) -> anyhow::Result<Self> {
        let shards = options.shards.max(1);
        let simulator = Simulator::start(Options {
            tokens: vec![TOKEN.to_owned()],
            world: WorldSpec { guilds: options.guilds, ..WorldSpec::default() },
            // All at once: nobody who tries it out wants to wait 5 s a shard.
            limits: Limits { shards, max_concurrency: shards, ..Limits::default() },
            ..Options::default()
        })
        .await
        .context("the simulated Discord did not start")?;
        if options.messages > 0 {
            simulator.traffic(Traffic::messages(f64::from(options.messages) / f64::from(shards)));
        }
        let state = tempfile::Builder::new().prefix("holdfast-simulate-").tempdir()?;
        let greeting = format!(
            "Holdfast before a simulated Discord: {} guilds, {shards} shards, {} messages a second. Ctrl-C ends it.\n",
            options.guilds, options.messages
        );
        Ok(Self { simulator, greeting, state })
    }

    pub(crate) fn api_url(&self) -> &str {
        self.simulator.api_url()
    }

    /// Points the settings at the simulation. Sessions of a world that ends with the process are of no use to the
    /// next one, so they are kept in a folder of their own.
    pub(crate) fn settle(&self, written: &mut Written) {
        let text = |text: &str| Value::Text(text.to_owned());
        let state = self.state.path().display().to_string();
        let everything = i64::try_from(Intents::ALL.bits()).unwrap_or(i64::MAX);
        for (path, value) in [
            ("discord.token", text(TOKEN)),
            ("discord.api_url", text(self.api_url())),
            ("discord.intents", Value::Integer(everything)),
            ("ws.state_dir", text(&state)),
            ("ws.shards.total", text("auto")),
            ("ws.shards.start", Value::Integer(0)),
            ("ws.shards.end", text("total")),
        ] {
            written.set(path, value, ARGUMENT);
        }
        if written.document.get("http").is_some() {
            written.set("http.public_key", text(&self.simulator.public_key()), ARGUMENT);
        }
    }

    /// Lets the REST service stand before the simulation, too.
    pub(crate) fn want_api(&self, written: &mut Written) {
        written.set("api.gateway", Value::Flag(true), ARGUMENT);
    }

    pub(crate) fn greeting(&self) -> String {
        format!("{}  token     {TOKEN}\n  REST      {}\n", self.greeting, self.api_url())
    }

    pub(crate) async fn stop(self) {
        self.simulator.shut_down().await;
    }
}
