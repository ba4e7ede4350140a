// SPDX-License-Identifier: AGPL-3.0-only
//! What a further client on a shard costs: CPU with k clients less CPU with one, per further delivery.
//! In: flags. Out: a row per rate and number of clients.

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
    ("p99_us", "p99 µs", 0),
    ("cpu_us_per_event", "CPU µs/event", 2),
    ("cpu_us_per_further", "µs/further delivery", 2),
    ("closed", "closed", 0),
];

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Events a second, all shards together.
    #[arg(long, value_delimiter = ',', default_value = "16000,48000")]
    rates: Vec<u32>,
    /// Clients on each shard; measured with one besides.
    #[arg(long, value_delimiter = ',', default_value = "4,16")]
    clients: Vec<u32>,
    /// Compression, upstream and to the clients alike.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// Bytes of a message's payload.
    #[arg(long, default_value_t = 1200)]
    bytes: u32,
}

/// Measures every combination, `runs` times.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    let mut results = Results::new("fanout");
    for run in 0..setup.runs {
        for &rate in &args.rates {
            let mut alone = None;
            for clients in std::iter::once(1).chain(args.clients.iter().copied().filter(|&k| k > 1)) {
                let case = format!("{rate}/s, {clients} per shard");
                eprintln!("run {} of {}: {case}", run + 1, setup.runs);
                let (path, compression) = (Path::Holdfast, args.compression);
                let load = Load { path, compression, rate, bytes: args.bytes, clients };
                let mut sample = measure(setup, load)?;
                let cpu = sample.get("cpu_us_per_event").copied();
                if clients == 1 {
                    alone = cpu;
                } else if let (Some(cpu), Some(alone)) = (cpu, alone) {
                    sample.insert("cpu_us_per_further", (cpu - alone) / f64::from(clients - 1));
                }
                results.add(&case, path.name(), sample);
                results.save(&setup.out)?;
            }
        }
    }
    results.show(COLUMNS, &setup.out)
}
