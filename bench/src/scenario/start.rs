// SPDX-License-Identifier: AGPL-3.0-only
//! From the start of the process until all shards are ready, against what Discord's identify rate allows.
//! In: flags. Out: a row per identify concurrency.

use anyhow::Result;
use clap::Parser;

use crate::{
    client::Compression,
    report::{Column, Results, Sample},
    simulator::World,
    stack::{Path, Plan, SHARDS, Setup, Stack},
};

const COLUMNS: &[Column] =
    &[("milliseconds", "ms", 0), ("allowed", "identify rate, ms", 0), ("above", "above it, ms", 0)];
/// Each key identifies once in five seconds (gateway rate limits, identify concurrency).
const WINDOW_MS: u32 = 5000;

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Identify concurrency that Discord grants.
    #[arg(long, value_delimiter = ',', default_value = "16,8")]
    max_concurrency: Vec<u32>,
}

/// Starts Holdfast `runs` times for each concurrency.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    let mut results = Results::new("start");
    let (path, compression) = (Path::Holdfast, Compression::None);
    for run in 0..setup.runs {
        for &max_concurrency in &args.max_concurrency {
            let case = format!("{SHARDS} shards, {max_concurrency} at once");
            eprintln!("run {} of {}: {case}", run + 1, setup.runs);
            let stack = Stack::start(
                setup,
                Plan { path, world: World::small(SHARDS), compression, max_concurrency },
            )?;
            let milliseconds = stack.ready_after.as_secs_f64() * 1e3;
            let allowed = f64::from((SHARDS.div_ceil(max_concurrency.max(1)) - 1) * WINDOW_MS);
            results.add(
                &case,
                path.name(),
                Sample::from([
                    ("milliseconds", milliseconds),
                    ("allowed", allowed),
                    ("above", milliseconds - allowed),
                ]),
            );
            results.save(&setup.out)?;
        }
    }
    results.show(COLUMNS, &setup.out)
}
