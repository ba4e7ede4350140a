// SPDX-License-Identifier: AGPL-3.0-only
//! Memory of a service that does nothing, and what a connection adds that does nothing.
//! In: flags. Out: a row for the service, one for connections after HELLO, one for identified ones.

use anyhow::Result;
use clap::Parser;

use super::{KIB, MIB};
use crate::{
    client::Compression,
    procfs::Memory,
    report::{Column, Results, Sample},
    simulator::World,
    stack::{Path, Plan, SHARDS, Setup, Stack, rest},
};

const COLUMNS: &[Column] = &[
    ("resident_mib", "RSS MiB", 1),
    ("anonymous_mib", "anonymous MiB", 1),
    ("kib_per_connection", "KiB/connection", 1),
    ("anonymous_kib", "anonymous KiB/connection", 1),
];
/// One guild per shard: the service is idle, not empty.
const WORLD: World = World { guilds: SHARDS, channels: 5, roles: 5, members: 10, presences: 0, emojis: 0 };

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Connections on each shard.
    #[arg(long, default_value_t = 60)]
    clients: u32,
}

/// Starts Holdfast `runs` times.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    let mut results = Results::new("idle");
    let (path, compression) = (Path::Holdfast, Compression::None);
    let connections = f64::from(args.clients * SHARDS);
    for run in 0..setup.runs {
        eprintln!("run {} of {}", run + 1, setup.runs);
        let stack = Stack::start(setup, Plan { path, world: WORLD, compression, max_concurrency: SHARDS })?;
        let holdfast = stack.service()?;
        rest(holdfast)?;
        let idle = holdfast.memory()?;
        let of_service = |memory: &Memory| {
            [("resident_mib", memory.resident as f64 / MIB), ("anonymous_mib", memory.anonymous as f64 / MIB)]
        };
        results.add("service", path.name(), Sample::from(of_service(&idle)));

        let mut add = |case: &str| -> Result<()> {
            let memory = holdfast.memory()?;
            let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / KIB / connections;
            let mut figures = Sample::from(of_service(&memory));
            figures.insert("kib_per_connection", each(memory.resident, idle.resident));
            figures.insert("anonymous_kib", each(memory.anonymous, idle.anonymous));
            results.add(&format!("{connections} {case}"), path.name(), figures);
            Ok(())
        };
        let mut client = stack.client(args.clients, false)?;
        add("connected")?;
        client.identify()?;
        rest(holdfast)?;
        add("identified")?;
        results.save(&setup.out)?;
    }
    results.show(COLUMNS, &setup.out)
}
