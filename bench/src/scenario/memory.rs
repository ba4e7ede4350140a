// SPDX-License-Identifier: AGPL-3.0-only
//! What a guild costs in memory, after the world is there and after an hour's worth of changes.
//! In: flags. Out: a row per moment.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Parser;
use serde_json::json;

use super::{KIB, MIB};
use crate::{
    client::Compression,
    process::Process,
    report::{Column, Results, Sample},
    simulator::World,
    stack::{Path, Plan, SHARDS, Setup, Stack, rest},
};

const COLUMNS: &[Column] = &[
    ("resident_mib", "RSS MiB", 1),
    ("peak_mib", "peak MiB", 1),
    ("kib_per_guild", "KiB/guild", 1),
    ("anonymous_kib_per_guild", "anonymous KiB/guild", 1),
];
/// `ws.log.memory_age`'s default, and a few looks at it.
const FORGOTTEN: Duration = Duration::from_secs(35);
/// Longest wait for the traffic's end beyond its planned length: each guild's first change takes the simulator a
/// millisecond or more, and what is late is sent all the same.
const LATE: Duration = Duration::from_secs(300);

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    #[command(flatten)]
    world: World,
    /// Changes to each guild that stand for an hour.
    #[arg(long, default_value_t = 25)]
    changes: u32,
    /// Events a second, all shards together.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
}

/// Loads the world anew in each of `runs` runs.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    let mut results = Results::new("memory");
    let (path, compression) = (Path::Holdfast, Compression::None);
    for run in 0..setup.runs {
        eprintln!("run {} of {}: {} guilds", run + 1, setup.runs, args.world.guilds);
        let stack =
            Stack::start(setup, Plan { path, world: args.world, compression, max_concurrency: SHARDS })?;
        let holdfast = stack.service()?;
        rest(stack.simulator().process())?;
        settle(holdfast)?;
        results.add("loaded", path.name(), sample(holdfast, args.world.guilds)?);

        let seconds = f64::from(args.changes) * f64::from(args.world.guilds) / f64::from(args.rate);
        let rate = f64::from(args.rate) / f64::from(SHARDS);
        stack.simulator().traffic(&json!({ "kind": "mixed", "rate": rate, "seconds": seconds }))?;
        finish(&stack, Duration::from_secs_f64(seconds) + LATE)?;
        settle(holdfast)?;
        let case = format!("after {} changes each", args.changes);
        results.add(&case, path.name(), sample(holdfast, args.world.guilds)?);
        results.save(&setup.out)?;
    }
    results.show(COLUMNS, &setup.out)
}

/// Waits until the log's ring has let go of what came in: it holds what came in the last half minute, which an hour's
/// worth of changes within a minute would overstate.
fn settle(process: &Process) -> Result<()> {
    rest(process)?;
    thread::sleep(FORGOTTEN);
    rest(process)
}

fn sample(process: &Process, guilds: u32) -> Result<Sample> {
    let memory = process.memory()?;
    let guilds = f64::from(guilds);
    Ok(Sample::from([
        ("resident_mib", memory.resident as f64 / MIB),
        ("peak_mib", memory.peak as f64 / MIB),
        ("kib_per_guild", memory.resident as f64 / KIB / guilds),
        ("anonymous_kib_per_guild", memory.anonymous as f64 / KIB / guilds),
    ]))
}

fn finish(stack: &Stack, longest: Duration) -> Result<()> {
    let deadline = Instant::now() + longest;
    while stack.simulator().traffic_runs()? {
        if Instant::now() > deadline {
            bail!("the traffic does not end");
        }
        thread::sleep(Duration::from_millis(250));
    }
    Ok(())
}
