// SPDX-License-Identifier: AGPL-3.0-only
//! Many events at once on every shard: how many arrive, in order, once, and at what price.
//! In: flags. Out: a row per size of the burst and path.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Parser;
use serde_json::json;

use crate::{
    client::{Compression, Counts},
    peer::Peer,
    report::{Column, Results, Sample},
    simulator::World,
    stack::{Path, Plan, SHARDS, Setup, Stack, rest},
};

const COLUMNS: &[Column] = &[
    ("lost", "lost", 0),
    ("repeated", "repeated", 0),
    ("milliseconds", "ms", 0),
    ("p99_us", "p99 µs", 0),
    ("cpu_us_per_event", "CPU µs/event", 2),
    ("cpu_x_relay", "× relay", 2),
    ("closed", "closed", 0),
];
/// Without an event for this long, what is missing is lost.
const SILENCE: Duration = Duration::from_secs(5);
/// Longest wait in all.
const LONGEST: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Events at once on each shard.
    #[arg(long, value_delimiter = ',', default_value = "130,5000")]
    events: Vec<u32>,
    /// Paths to compare.
    #[arg(long, value_delimiter = ',', default_value = "direct,relay,holdfast")]
    paths: Vec<Path>,
    /// Bytes of a message's payload.
    #[arg(long, default_value_t = 1200)]
    bytes: u32,
}

/// Measures every combination, `runs` times.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    let mut results = Results::new("burst");
    for run in 0..setup.runs {
        for &events in &args.events {
            let case = format!("{events} on each shard");
            for turn in 0..args.paths.len() {
                let path = args.paths[(turn + run) % args.paths.len()];
                eprintln!("run {} of {}: {case}, {}", run + 1, setup.runs, path.name());
                results.add(&case, path.name(), measure(setup, path, events, args.bytes)?);
            }
            results.ratio(&case, "relay", "cpu_us_per_event", "cpu_x_relay");
            results.save(&setup.out)?;
        }
    }
    results.show(COLUMNS, &setup.out)
}

fn measure(setup: &Setup, path: Path, events: u32, bytes: u32) -> Result<Sample> {
    let compression = Compression::None;
    let stack = Stack::start(
        setup,
        Plan { path, world: World::small(SHARDS), compression, max_concurrency: SHARDS },
    )?;
    let mut client = stack.client(1, true)?;
    client.identify()?;
    rest(stack.simulator().process())?;
    client.reset()?;
    let expected = u64::from(events) * u64::from(SHARDS);
    let before = stack.middle().map(|middle| middle.cpu()).transpose()?;
    stack.simulator().traffic(&json!({ "kind": "messages", "rate": 0, "burst": events, "bytes": bytes }))?;
    let counts = drain(&mut client, expected)?;
    if let Some(middle) = stack.middle() {
        // What is written behind the events belongs to their price.
        rest(middle)?;
    }
    if counts.closed > 0 {
        eprintln!("{} of the clients' connections ended: {:?}", counts.closed, counts.why);
    }
    let mut sample = Sample::from([
        ("lost", expected as f64 - counts.timed as f64),
        ("skipped", counts.skipped as f64),
        ("repeated", counts.repeated as f64),
        ("milliseconds", counts.last_received.saturating_sub(counts.first_sent) as f64 / 1e3),
        ("p50_us", counts.p50 as f64),
        ("p99_us", counts.p99 as f64),
        ("closed", counts.closed as f64),
    ]);
    if let (Some(before), Some(middle)) = (before, stack.middle()) {
        let used = middle.cpu()?.since(&before);
        sample.insert("cpu_us_per_event", used.as_secs_f64() * 1e6 / expected as f64);
    }
    Ok(sample)
}

/// Waits until all `expected` events have come, or none comes any more.
fn drain(client: &mut Peer, expected: u64) -> Result<Counts> {
    let started = Instant::now();
    let (mut seen, mut last) = (0, Instant::now());
    loop {
        thread::sleep(LOOK);
        let counts = client.counts()?;
        if counts.timed != seen {
            (seen, last) = (counts.timed, Instant::now());
        }
        if seen >= expected || last.elapsed() > SILENCE || started.elapsed() > LONGEST {
            return Ok(counts);
        }
    }
}
