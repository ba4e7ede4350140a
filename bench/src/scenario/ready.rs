// SPDX-License-Identifier: AGPL-3.0-only
//! READY and all guilds for a client on every shard at once: how long, and how much memory on top.
//! In: flags. Out: a row for the direct path and one for Holdfast, of the same world.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Parser;

use super::MIB;
use crate::{
    client::Compression,
    peer::Peer,
    procfs::reset_peak,
    report::{Column, Results, Sample},
    simulator::World,
    stack::{Path, Plan, SHARDS, Setup, Stack, rest},
};

const COLUMNS: &[Column] = &[
    ("milliseconds", "ms", 0),
    ("milliseconds_x_direct", "× direct", 2),
    ("guilds", "guilds", 0),
    ("kib_per_guild", "KiB JSON/guild", 1),
    ("resident_mib", "RSS before, MiB", 1),
    ("peak_mib_above", "peak above, MiB", 1),
    ("cpu_ms", "CPU ms", 0),
];
/// Discord's window for identifying (gateway rate limits), and a little.
const IDENTIFY_AGAIN: Duration = Duration::from_millis(6000);

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    #[command(flatten)]
    world: World,
}

/// Measures both paths `runs` times, on one stack: the world takes long to build.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    let mut results = Results::new("ready");
    let case = format!("{} guilds", args.world.guilds);
    let (path, compression) = (Path::Holdfast, Compression::None);
    let stack = Stack::start(setup, Plan { path, world: args.world, compression, max_concurrency: SHARDS })?;
    let holdfast = stack.service()?;
    let mut identified = Instant::now();
    for run in 0..setup.runs {
        eprintln!("run {} of {}: {case}", run + 1, setup.runs);
        rest(holdfast)?;
        thread::sleep(IDENTIFY_AGAIN.saturating_sub(identified.elapsed()));
        results.add(&case, "direct", identify(&mut stack.client_past(1)?)?);
        identified = Instant::now();

        rest(holdfast)?;
        let mut client = stack.client(1, false)?;
        let (memory, cpu) = (holdfast.memory()?, holdfast.cpu()?);
        reset_peak(holdfast.pid())?;
        let mut sample = identify(&mut client)?;
        let peak = holdfast.memory()?.peak;
        sample.insert("resident_mib", memory.resident as f64 / MIB);
        sample.insert("peak_mib_above", peak.saturating_sub(memory.resident) as f64 / MIB);
        sample.insert("cpu_ms", holdfast.cpu()?.since(&cpu).as_secs_f64() * 1e3);
        results.add(&case, path.name(), sample);
        results.ratio(&case, "direct", "milliseconds", "milliseconds_x_direct");
        results.save(&setup.out)?;
    }
    results.show(COLUMNS, &setup.out)
}

fn identify(client: &mut Peer) -> Result<Sample> {
    let ready = client.identify()?;
    Ok(Sample::from([
        ("milliseconds", ready.milliseconds),
        ("guilds", ready.guilds as f64),
        ("kib_per_guild", ready.guild_bytes as f64 / 1024.0 / ready.guilds.max(1) as f64),
    ]))
}
