// SPDX-License-Identifier: AGPL-3.0-only
//! Interactions by AMQP: from Discord's request to its answer, with a worker that answers at once, beside a server that
//! answers at once itself. In: flags. Out: a row per load and path; the paths take turns within each run.

use std::{fs, net::TcpStream, sync::Arc, thread, time::Duration};

use anyhow::Result;
use clap::{Parser, ValueEnum};

use super::MIB;
use crate::{
    interactions::{post::Signer, worker},
    peer::Peer,
    process::{Process, free_address},
    report::{Column, Results, Sample},
    rest::load::{Load, Requests, Seen, send},
    stack::Setup,
    traces::Places,
};

const COLUMNS: &[Column] = &[
    ("requests_per_second", "interactions/s", 0),
    ("cpu_us_per_request", "CPU µs each", 1),
    ("p50_us", "p50 µs", 0),
    ("p50_over_bare", "− bare", 0),
    ("p99_us", "p99 µs", 0),
    ("p99_over_bare", "− bare", 0),
    ("longest_ms", "longest ms", 1),
    ("memory_mib", "MiB", 1),
];

/// Discord posts this long before the window opens.
const WARM: f64 = 1.0;

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Who answers.
    #[arg(long, value_delimiter = ',', default_value = "bare,holdfast")]
    paths: Vec<Path>,
    /// Discord's connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Interactions a second to measure latency at.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// RabbitMQ's address.
    #[arg(long, default_value = "amqp://guest:guest@localhost:5672")]
    broker: String,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Path {
    /// A server that answers everything at once.
    Bare,
    /// `holdfast http`, asking a worker.
    Holdfast,
}

impl Path {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Holdfast => "holdfast",
        }
    }
}

/// Measures every load on every path, `runs` times.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    let mut results = Results::new("interactions");
    for run in 0..setup.runs {
        for rate in [Some(args.rate), None] {
            let case = rate.map_or("as many as go".to_owned(), |rate| format!("{rate}/s"));
            for turn in 0..args.paths.len() {
                // Another path begins each run, so that none always follows the same one.
                let path = args.paths[(turn + run) % args.paths.len()];
                eprintln!("run {} of {}: {case}, {}", run + 1, setup.runs, path.name());
                results.add(&case, path.name(), measure(setup, args, path, rate)?);
            }
            results.difference(&case, "bare", "p50_us", "p50_over_bare");
            results.difference(&case, "bare", "p99_us", "p99_over_bare");
            results.save(&setup.out)?;
        }
    }
    results.show(COLUMNS, &setup.out)
}

/// Opens one window.
fn measure(setup: &Setup, args: &Args, path: Path, rate: Option<u32>) -> Result<Sample> {
    let files = setup.folder("interactions")?;
    let prefix = setup.traces.prefix(Places { broker: args.broker.clone(), store: None });
    let (signer, address) = (Arc::new(Signer::new()?), free_address()?);
    // Declared in the order in which both need it; ended before its traces are removed.
    let (middle, worker) = match path {
        Path::Bare => {
            let words = ["rest-upstream".to_owned(), format!("--listen={address}")];
            (setup.nursery.start(&setup.bench, &words, files.join("bare.log"), false)?, None)
        }
        Path::Holdfast => {
            let exchange = format!("{}.interactions", prefix.name);
            let words = worker::Args { broker: args.broker.clone(), exchange }.words();
            let worker = Peer::start(setup, &words, files.join("worker.log"))?;
            let text = format!(
                "[http]\nlisten = \"{address}\"\npublic_key = \"{}\"\n[broker]\nurl = \"{}/%2f\"\nprefix = \"{}\"\n\
                 [admin]\nenabled = false\n[log]\nlevel = \"warn\"\n{}\n",
                signer.public_key(),
                args.broker,
                prefix.name,
                setup.settings
            );
            let file = files.join("holdfast.toml");
            fs::write(&file, text)?;
            let words = ["http".to_owned(), "--config".to_owned(), file.display().to_string()];
            let log = files.join("holdfast.log");
            (setup.nursery.start(&setup.holdfast, &words, log, false)?, Some(worker))
        }
    };
    middle.wait_until(|| Ok(TcpStream::connect(address).is_ok()))?;
    let load = |seconds, from| Load {
        address,
        connections: args.connections,
        rate,
        seconds,
        requests: Requests::Interactions(Arc::clone(&signer), from),
    };
    send(load(WARM, 0))?;
    thread::sleep(Duration::from_millis(200));
    let before = middle.cpu()?;
    // None of those before again: that would be a replay.
    let seen = send(load(setup.seconds, 1 << 32))?;
    let used = middle.cpu()?.since(&before);
    let sample = sample(&seen, used, setup.seconds, &middle)?;
    drop((middle, worker, prefix));
    fs::remove_dir_all(&files)?;
    Ok(sample)
}

fn sample(seen: &Seen, used: Duration, seconds: f64, middle: &Process) -> Result<Sample> {
    let requests = seen.requests as f64;
    Ok(Sample::from([
        ("requests_per_second", requests / seconds),
        ("cpu_us_per_request", used.as_secs_f64() * 1e6 / requests),
        ("p50_us", seen.times.value_at_quantile(0.5) as f64),
        ("p99_us", seen.times.value_at_quantile(0.99) as f64),
        ("longest_ms", seen.times.max() as f64 / 1e3),
        ("memory_mib", middle.memory()?.resident as f64 / MIB),
    ]))
}
