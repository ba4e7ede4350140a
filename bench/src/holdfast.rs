// SPDX-License-Identifier: AGPL-3.0-only
//! A Holdfast process of a measurement.
//! In: which service, before which Discord, with which further settings. Out: its addresses, shards and metrics.
//! Ends when it is dropped.

use std::{fmt::Write, fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    client::{ALL_INTENTS, Compression},
    http::Http,
    process::{Process, free_address},
    simulator::{CONTROL, Simulator},
    stack::Setup,
};

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

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config<'a> {
    /// Its command: `up`, or a service.
    pub(crate) command: &'a str,
    /// Shards of the bot.
    pub(crate) shards: u32,
    /// Compression towards Discord.
    pub(crate) compression: Compression,
    /// Whether everything is cached; otherwise what is by default.
    pub(crate) cache_everything: bool,
    /// Further sections of the settings.
    pub(crate) sections: &'a str,
    /// An empty folder of its own, for settings, log and state.
    pub(crate) files: &'a Path,
}

/// A process that has been ready.
pub(crate) struct Holdfast {
    /// The process.
    pub(crate) process: Process,
    /// Where clients connect to.
    pub(crate) gateway: SocketAddr,
    admin: Http,
}

impl Holdfast {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(setup: &Setup, discord: &Simulator, config: &Config<'_>) -> Result<Self> {
        let (gateway, admin) = (free_address()?, Http { address: free_address()? });
        let file = config.files.join("holdfast.toml");
        fs::write(&file, settings(config, discord.http.address, gateway, admin.address, &setup.settings))?;
        let words = [config.command.to_owned(), "--config".to_owned(), file.display().to_string()];
        let process =
            setup.nursery.start(&setup.holdfast, &words, config.files.join("holdfast.log"), false)?;
        let holdfast = Self { process, gateway, admin };
        holdfast.process.wait_until(|| Ok(holdfast.is_ready()))?;
        Ok(holdfast)
    }

    /// Whether it says that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.admin.request("GET", "/readyz", None, CONTROL), Ok((200, _)))
    }

    /// The shards that are live there; none while the page isn't there yet.
    pub(crate) fn live_shards(&self) -> Result<Vec<u64>> {
        let (status, answer) = self.admin.request("GET", "/shards", None, CONTROL)?;
        if status == 404 {
            return Ok(Vec::new());
        }
        let shards: Value = serde_json::from_slice(&answer).context("/shards is no JSON")?;
        let live = |shard: &&Value| shard["phase"] == "live";
        let number = |shard: &Value| shard["shard"].as_u64();
        Ok(shards.as_array().context("/shards is no list")?.iter().filter(live).filter_map(number).collect())
    }

    /// A counter without labels, now.
    pub(crate) fn counter(&self, name: &str) -> Result<f64> {
        let (_, text) = self.admin.request("GET", "/metrics", None, CONTROL)?;
        counter(&String::from_utf8_lossy(&text), name).with_context(|| format!("/metrics without {name}"))
    }
}

fn settings(
    config: &Config<'_>,
    discord: SocketAddr,
    gateway: SocketAddr,
    admin: SocketAddr,
    more: &str,
) -> String {
    let mut text = format!(
        "[discord]\ntoken = \"sim-token\"\napi_url = \"http://{discord}/api/v10\"\n\
         intents = {ALL_INTENTS}\ncompression = \"{compression}\"\n\n\
         [ws]\nlisten = \"{gateway}\"\npublic_url = \"ws://{gateway}\"\nstate_dir = \"{state}\"\n\
         shards = {{ total = {shards} }}\nstored_zlib = false\n",
        compression = config.compression.name(),
        state = config.files.join("state").display(),
        shards = config.shards,
    );
    // Writing into a string cannot fail.
    if config.cache_everything {
        let cache = EVERYTHING.map(|entity| format!("{entity} = true")).join(", ");
        let _ = writeln!(text, "cache = {{ {cache} }}");
    }
    let _ = writeln!(text, "\n[admin]\nlisten = \"{admin}\"\n\n[log]\nlevel = \"warn\"\n");
    let _ = writeln!(text, "{}\n{more}", config.sections);
    text
}

fn counter(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let text = "# TYPE a counter\na_total 7\na_total_more 9\nb_total{x=\"1\"} 3\n";
        assert_eq!(counter(text, "a_total"), Some(7.0));
        assert_eq!(counter(text, "a"), None);
        assert_eq!(counter(text, "b_total"), None);
    }

    #[test]
    fn further_sections_follow_those_that_are_always_there() {
        let address = "127.0.0.1:1".parse().unwrap();
        let config = Config {
            command: "ws",
            shards: 3,
            compression: Compression::None,
            cache_everything: false,
            sections: "[broker]\nurl = \"amqp://here\"",
            files: Path::new("/folder"),
        };
        let text = settings(&config, address, address, address, "[log]\nlevel = \"info\"");
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        assert!(place("total = 3") < place("[broker]") && place("[broker]") < place("level = \"info\""));
        assert!(!text.contains("cache"), "{text}");
    }
}
