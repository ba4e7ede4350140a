// SPDX-License-Identifier: AGPL-3.0-only
//! The REST proxy beside a bare forwarder: CPU per request, requests a second at most, latency, memory.
//! In: flags. Out: a row per load and path; the paths take turns within each run.

use std::{fs, net::TcpStream, thread, time::Duration};

use anyhow::Result;
use clap::{Parser, ValueEnum};

use super::MIB;
use crate::{
    process::{Process, free_address},
    report::{Column, Results, Sample},
    rest::load::{Load, Requests, send},
    stack::Setup,
};

const COLUMNS: &[Column] = &[
    ("requests_per_second", "requests/s", 0),
    ("cpu_us_per_request", "CPU µs/request", 2),
    ("cpu_x_bare", "× bare", 2),
    ("p50_us", "p50 µs", 0),
    ("p50_over_bare", "− bare", 0),
    ("p99_us", "p99 µs", 0),
    ("p99_over_bare", "− bare", 0),
    ("memory_mib", "MiB", 1),
];

/// Callers send this long before the window opens: connections are made, and every channel has been sent to.
const WARM: f64 = 2.0;

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Who forwards.
    #[arg(long, value_delimiter = ',', default_value = "bare,holdfast,stored")]
    paths: Vec<Path>,
    /// Callers' connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests a second to measure latency at.
    #[arg(long, default_value_t = 800)]
    rate: u32,
    /// Redis's address, for the account in the store.
    #[arg(long, default_value = "redis://localhost")]
    store: String,
}

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Path {
    /// hyper alone.
    Bare,
    /// `holdfast api`.
    Holdfast,
    /// `holdfast api` with the account in the store.
    Stored,
}

impl Path {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Holdfast => "holdfast",
            Self::Stored => "with the store",
        }
    }
}

/// Measures every load on every path, `runs` times.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    let mut results = Results::new("api");
    for run in 0..setup.runs {
        for rate in [Some(args.rate), None] {
            let case = rate.map_or("as many as go".to_owned(), |rate| format!("{rate}/s"));
            for turn in 0..args.paths.len() {
                // Another path begins each run, so that none always follows the same one.
                let path = args.paths[(turn + run) % args.paths.len()];
                eprintln!("run {} of {}: {case}, {}", run + 1, setup.runs, path.name());
                results.add(&case, path.name(), measure(setup, args, path, rate)?);
            }
            results.ratio(&case, "bare", "cpu_us_per_request", "cpu_x_bare");
            results.difference(&case, "bare", "p50_us", "p50_over_bare");
            results.difference(&case, "bare", "p99_us", "p99_over_bare");
            results.save(&setup.out)?;
        }
    }
    results.show(COLUMNS, &setup.out)
}

/// Opens one window.
fn measure(setup: &Setup, args: &Args, path: Path, rate: Option<u32>) -> Result<Sample> {
    let files = setup.folder("api")?;
    let (discord, address) = (free_address()?, free_address()?);
    let words = ["rest-upstream".to_owned(), format!("--listen={discord}")];
    let upstream = setup.nursery.start(&setup.bench, &words, files.join("upstream.log"), false)?;
    let middle = match path {
        Path::Bare => {
            let words =
                ["rest-forwarder".to_owned(), format!("--listen={address}"), format!("--upstream={discord}")];
            setup.nursery.start(&setup.bench, &words, files.join("forwarder.log"), false)?
        }
        Path::Holdfast | Path::Stored => {
            let mut text = format!(
                "[discord]\napi_url = \"http://{discord}/api/v10\"\n[api]\nlisten = \"{address}\"\n\
                 global_limit = 100000\n[admin]\nenabled = false\n[log]\nlevel = \"warn\"\n{}\n",
                setup.settings
            );
            if path == Path::Stored {
                // A prefix of its own: what it leaves lapses within a day.
                text += &format!(
                    "[cluster]\nurl = \"{}\"\nprefix = \"holdfast-bench-{}\"\n",
                    args.store,
                    address.port()
                );
            }
            let file = files.join("holdfast.toml");
            fs::write(&file, text)?;
            let words = ["api".to_owned(), "--config".to_owned(), file.display().to_string()];
            setup.nursery.start(&setup.holdfast, &words, files.join("holdfast.log"), false)?
        }
    };
    for (process, address) in [(&upstream, discord), (&middle, address)] {
        process.wait_until(|| Ok(TcpStream::connect(address).is_ok()))?;
    }
    let load = |seconds| Load {
        address,
        connections: args.connections,
        rate,
        seconds,
        requests: Requests::Messages,
    };
    send(load(WARM))?;
    thread::sleep(Duration::from_millis(200));

    let before = middle.cpu()?;
    let seen = send(load(setup.seconds))?;
    let used = middle.cpu()?.since(&before);
    let sample = sample(&seen, used, setup.seconds, &middle)?;
    fs::remove_dir_all(&files)?;
    Ok(sample)
}

fn sample(seen: &crate::rest::load::Seen, used: Duration, seconds: f64, middle: &Process) -> Result<Sample> {
    let requests = seen.requests as f64;
    Ok(Sample::from([
        ("requests_per_second", requests / seconds),
        ("cpu_us_per_request", used.as_secs_f64() * 1e6 / requests),
        ("p50_us", seen.times.value_at_quantile(0.5) as f64),
        ("p99_us", seen.times.value_at_quantile(0.99) as f64),
        ("memory_mib", middle.memory()?.resident as f64 / MIB),
    ]))
}
