// SPDX-License-Identifier: AGPL-3.0-only
//! The simulated Discord of a measurement, as a process.
//! In: a world, limits, wishes for traffic. Out: its addresses, and what it has seen. Ends when it is dropped.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    http::Http,
    process::{Process, free_address},
    stack::Setup,
};

/// Bound of one control request.
pub(crate) const CONTROL: Duration = Duration::from_secs(10);

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
    pub(crate) const fn small(shards: u32) -> Self {
        Self { guilds: shards * 10, channels: 5, roles: 5, members: 10, presences: 0, emojis: 0 }
    }
}

/// How Discord is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// Its guilds.
    pub(crate) world: World,
    /// Shards of the bot.
    pub(crate) shards: u32,
    /// How many of them may identify at once.
    pub(crate) max_concurrency: u32,
    /// How long a session can be resumed. What is kept for it weighs on the next window.
    pub(crate) resume_seconds: u32,
}

impl Spec {
    /// The flags, for REST and gateway at these addresses.
    fn words(&self, http: SocketAddr, gateway: SocketAddr) -> Result<Vec<String>> {
        let limits = json!({
            "max_concurrency": self.max_concurrency,
            "shards": self.shards,
            "identifies_total": 100_000,
            "identifies_remaining": 100_000,
            "resume_seconds": self.resume_seconds,
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

/// A process that has built its world.
pub(crate) struct Simulator {
    process: Process,
    /// REST and control routes.
    pub(crate) http: Http,
    /// The gateway.
    pub(crate) gateway: SocketAddr,
}

impl Simulator {
    /// Starts one and waits until it serves; its log goes to `files`.
    pub(crate) fn start(setup: &Setup, spec: &Spec, files: &Path) -> Result<Self> {
        let (http, gateway) = (Http { address: free_address()? }, free_address()?);
        let words = spec.words(http.address, gateway)?;
        let process = setup.nursery.start(&setup.simulator, &words, files.join("simulator.log"), false)?;
        process.wait_until(|| {
            Ok(matches!(http.request("GET", "/control/state", None, CONTROL), Ok((200, _))))
        })?;
        Ok(Self { process, http, gateway })
    }

    /// The process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Starts generated events.
    pub(crate) fn traffic(&self, traffic: &Value) -> Result<()> {
        self.http.json("POST", "/control/traffic", Some(traffic), CONTROL).map(drop)
    }

    /// Stops them; how many messages were sent in all. None is sent after this.
    pub(crate) fn stop_traffic(&self) -> Result<u64> {
        let traffic = self.http.json("DELETE", "/control/traffic", None, CONTROL)?;
        let sent = traffic["sent"].as_object().context("/control/traffic without `sent`")?;
        Ok(sent.values().filter_map(Value::as_u64).sum())
    }

    /// Whether events are being generated.
    pub(crate) fn traffic_runs(&self) -> Result<bool> {
        let traffic = self.http.json("GET", "/control/traffic", None, CONTROL)?;
        traffic["running"].as_bool().context("/control/traffic without `running`")
    }

    /// How many payloads with this opcode it has received.
    pub(crate) fn received(&self, opcode: u32) -> Result<usize> {
        let records = self.http.json("GET", &format!("/control/records?op={opcode}"), None, CONTROL)?;
        records.as_array().map(Vec::len).context("/control/records is no list")
    }
}
