// SPDX-License-Identifier: AGPL-3.0-only
//! Latency and CPU per event by path, rate and compression; the paths take turns within each run.
//! In: flags. Out: a row per rate, compression and path.

use anyhow::Result;
use clap::Parser;

use super::steady::{Load, measure};
use crate::{
    client::Compression,
    report::{Column, Results},
    stack::{Path, Setup},
};

const COLUMNS: &[Column] = &[
    ("events_per_second", "events/s", 0),
    ("p50_us", "p50 µs", 0),
    ("p50_x_direct", "× direct", 2),
    ("p50_x_relay", "× relay", 2),
    ("p99_us", "p99 µs", 0),
    ("p99_x_direct", "× direct", 2),
    ("cpu_us_per_event", "CPU µs/event", 2),
    ("cpu_x_relay", "× relay", 2),
    ("wire_bytes_per_event", "bytes/event", 0),
    ("size_x_zlib_1", "× zlib 1", 2),
    ("closed", "closed", 0),
];

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Events a second, all shards together.
    #[arg(long, value_delimiter = ',', default_value = "800,16000,48000")]
    rates: Vec<u32>,
    /// Compression, upstream and to the client alike.
    #[arg(long, value_delimiter = ',', default_value = "none")]
    compression: Vec<Compression>,
    /// Paths to compare.
    #[arg(long, value_delimiter = ',', default_value = "direct,relay,holdfast")]
    paths: Vec<Path>,
    /// Bytes of a message's payload.
    #[arg(long, default_value_t = 1200)]
    bytes: u32,
}

/// Measures every combination, `runs` times.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    let mut results = Results::new("latency");
    for run in 0..setup.runs {
        for &compression in &args.compression {
            for &rate in &args.rates {
                let case = format!("{rate}/s {}", compression.name());
                for turn in 0..args.paths.len() {
                    // Another path begins each run, so that none always follows the same one.
                    let path = args.paths[(turn + run) % args.paths.len()];
                    eprintln!("run {} of {}: {case}, {}", run + 1, setup.runs, path.name());
                    let load = Load { path, compression, rate, bytes: args.bytes, clients: 1 };
                    results.add(&case, path.name(), measure(setup, load)?);
                }
                results.ratio(&case, "direct", "p50_us", "p50_x_direct");
                results.ratio(&case, "direct", "p99_us", "p99_x_direct");
                results.ratio(&case, "relay", "p50_us", "p50_x_relay");
                results.ratio(&case, "relay", "cpu_us_per_event", "cpu_x_relay");
                results.save(&setup.out)?;
            }
        }
    }
    results.show(COLUMNS, &setup.out)
}
