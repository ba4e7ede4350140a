// SPDX-License-Identifier: AGPL-3.0-only
//! `up --simulate`: a simulated Discord in this process, with a small world and some traffic, and the settings that
//! point Holdfast at it. Owned by the command; its folder goes with it.

use holdfast_service::settings::Value;
use tempfile::TempDir;

use crate::args::Up;
use crate::settings::Written;

/// The bot's token in the simulated world.
const TOKEN: &str = "simulated-token";

const ARGUMENT: &str = "--simulate";

/// A simulated Discord.
pub(crate) struct Simulation {
    greeting: String,
    state: TempDir,
}

impl Simulation {
    pub(crate) async fn start(options: &Up) -> anyhow::Result<Self> {
        let state = tempfile::Builder::new().prefix("holdfast-simulate-").tempdir()?;
        let greeting = format!(
            "Holdfast before a simulated Discord: {} guilds, {} messages a second. Ctrl-C ends it.\n",
            options.guilds, options.messages
        );
        Ok(Self { greeting, state })
    }

    pub(crate) fn api_url(&self) -> String {
        String::new()
    }

    /// Points the settings at the simulation. Sessions of a world that ends with the process are of no use to the
    /// next one, so they are kept in a folder of their own.
    pub(crate) fn settle(&self, written: &mut Written) {
        let state = self.state.path().display().to_string();
        for (path, value) in [
            ("discord.token", TOKEN.to_owned()),
            ("discord.api_url", self.api_url()),
            ("ws.state_dir", state),
        ] {
            written.set(path, Value::Text(value), ARGUMENT);
        }
    }

    pub(crate) fn greeting(&self) -> String {
        format!("{}  token     {TOKEN}\n  REST      {}\n", self.greeting, self.api_url())
    }

    pub(crate) async fn stop(self) {}
}
