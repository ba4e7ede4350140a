// SPDX-License-Identifier: AGPL-3.0-only
//! The AMQP front beside a bare publisher: CPU per event, events a second at most, latency to a consumer.
//! In: flags. Out: a row per load and path; the paths take turns within each run.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use serde_json::json;

use crate::{
    amqp::{consumer, publisher},
    client::Compression,
    holdfast::{Config, Holdfast},
    peer::Peer,
    process::Process,
    report::{Column, Results, Sample},
    simulator::{Simulator, Spec, World},
    stack::{SHARDS, Setup, rest},
    traces::{Places, Prefix},
};

const COLUMNS: &[Column] = &[
    ("events_per_second", "confirmed/s", 0),
    ("events_x_bare", "× bare", 2),
    ("cpu_us_per_event", "CPU µs/event", 2),
    ("cpu_x_bare", "× bare", 2),
    ("p50_us", "p50 µs", 0),
    ("p50_over_bare", "− bare", 0),
    ("p99_us", "p99 µs", 0),
    ("p99_over_bare", "− bare", 0),
];
/// Traffic runs this long before the window opens.
const WARM: Duration = Duration::from_secs(2);
/// And this long beyond its planned end, as the window may open late.
const SPARE: f64 = 10.0;

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// RabbitMQ's address.
    #[arg(long, default_value = "amqp://guest:guest@localhost:5672")]
    broker: String,
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_value = "cpu,saturation,latency")]
    measure: Vec<Kind>,
    /// Who publishes.
    #[arg(long, value_delimiter = ',', default_value = "bare,batched,holdfast")]
    paths: Vec<Path>,
    /// Events a second, all shards together, to measure CPU at.
    #[arg(long, value_delimiter = ',', default_value = "5000,20000")]
    rates: Vec<u32>,
    /// Events a second to ask for where as many are to be published as go: more than that.
    #[arg(long, default_value_t = 40_000)]
    saturate: u32,
    /// Events a second to measure latency at.
    #[arg(long, default_value_t = 800)]
    latency_rate: u32,
    /// Messages of a shard that may be unconfirmed.
    #[arg(long, default_value_t = 1024)]
    window: usize,
    /// Bytes of a message's payload.
    #[arg(long, default_value_t = 1200)]
    bytes: u32,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// CPU time of the publisher per confirmed event, into a bounded queue.
    Cpu,
    /// Confirmed events a second where more come, into a bounded queue.
    Saturation,
    /// From the simulator to a consumer that acknowledges nothing.
    Latency,
}

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Path {
    /// lapin alone, one message after the other.
    Bare,
    /// lapin alone, all that one read brought at once.
    Batched,
    /// `holdfast ws`.
    Holdfast,
}

impl Path {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Batched => "batched",
            Self::Holdfast => "holdfast",
        }
    }
}

/// One row's load.
#[derive(Clone, Copy, Debug)]
struct Load {
    kind: Kind,
    rate: u32,
}

impl Load {
    fn case(self) -> String {
        match self.kind {
            Kind::Cpu => format!("CPU at {}/s", self.rate),
            Kind::Saturation => format!("of {}/s", self.rate),
            Kind::Latency => format!("consumed at {}/s", self.rate),
        }
    }
}

/// Measures every load on every path, `runs` times.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    let mut results = Results::new("amqp");
    for run in 0..setup.runs {
        for load in loads(args) {
            let case = load.case();
            for turn in 0..args.paths.len() {
                // Another path begins each run, so that none always follows the same one.
                let path = args.paths[(turn + run) % args.paths.len()];
                eprintln!("run {} of {}: {case}, {}", run + 1, setup.runs, path.name());
                results.add(&case, path.name(), measure(setup, args, load, path)?);
            }
            results.ratio(&case, "bare", "events_per_second", "events_x_bare");
            results.ratio(&case, "bare", "cpu_us_per_event", "cpu_x_bare");
            results.difference(&case, "bare", "p50_us", "p50_over_bare");
            results.difference(&case, "bare", "p99_us", "p99_over_bare");
            results.save(&setup.out)?;
        }
    }
    results.show(COLUMNS, &setup.out)
}

fn loads(args: &Args) -> Vec<Load> {
    let of = |kind| match kind {
        Kind::Cpu => args.rates.clone(),
        Kind::Saturation => vec![args.saturate],
        Kind::Latency => vec![args.latency_rate],
    };
    let kinds = args.measure.iter().copied();
    kinds.flat_map(|kind| of(kind).into_iter().map(move |rate| Load { kind, rate })).collect()
}

/// Opens one window.
fn measure(setup: &Setup, args: &Args, load: Load, path: Path) -> Result<Sample> {
    let files = setup.folder("amqp")?;
    // Dropped last: its traces go when nobody writes any more.
    let prefix = setup.traces.prefix(Places { broker: args.broker.clone(), store: None });
    let world = World::small(SHARDS);
    let spec = Spec { world, shards: SHARDS, max_concurrency: SHARDS, resume_seconds: 2 };
    let discord = Simulator::start(setup, &spec, &files)?;
    let consumer = consumer::Args {
        broker: args.broker.clone(),
        exchange: format!("{}.events", prefix.name),
        sink: load.kind != Kind::Latency,
    };
    let mut consumer = Peer::start(setup, &consumer.words(), files.join("consumer.log"))?;
    let mut publisher = Publisher::start(setup, args, path, &discord, &prefix, &files)?;
    rest(discord.process())?;
    rest(publisher.process())?;
    discord.traffic(&json!({
        "kind": "messages",
        "rate": f64::from(load.rate) / f64::from(SHARDS),
        "seconds": WARM.as_secs_f64() + setup.seconds + SPARE,
        "bytes": args.bytes,
    }))?;
    thread::sleep(WARM);

    consumer.reset()?;
    let (opened, before, cpu) = (Instant::now(), publisher.confirmed()?, publisher.process().cpu()?);
    thread::sleep(Duration::from_secs_f64(setup.seconds));
    let (seconds, after) = (opened.elapsed().as_secs_f64(), publisher.confirmed()?);
    let used = publisher.process().cpu()?.since(&cpu);
    let counts = consumer.counts()?;

    if counts.closed > 0 {
        eprintln!("the consumer's connection ended: {:?}", counts.why);
    }
    let events = after - before;
    let mut sample = Sample::from([
        ("events_per_second", events / seconds),
        ("cpu_us_per_event", used.as_secs_f64() * 1e6 / events),
    ]);
    if load.kind == Kind::Latency {
        let (p50, p99) = (counts.p50 as f64, counts.p99 as f64);
        sample.extend([("p50_us", p50), ("p99_us", p99), ("max_us", counts.max as f64)]);
    }
    drop(publisher);
    // A log of gigabytes may stand there.
    std::fs::remove_dir_all(&files)?;
    Ok(sample)
}

/// A process that publishes.
enum Publisher {
    Bare(Peer),
    Holdfast(Holdfast),
}

impl Publisher {
    fn start(
        setup: &Setup,
        args: &Args,
        path: Path,
        discord: &Simulator,
        prefix: &Prefix,
        files: &std::path::Path,
    ) -> Result<Self> {
        if path == Path::Holdfast {
            let sections = format!(
                "[broker]\nurl = \"{}\"\nprefix = \"{}\"\n\n[ws.amqp]\nconfirm_window = {}",
                args.broker, prefix.name, args.window
            );
            let (compression, command) = (Compression::None, "ws");
            let cache_everything = false;
            let config =
                Config { command, shards: SHARDS, compression, cache_everything, sections: &sections, files };
            return Holdfast::start(setup, discord, &config).map(Self::Holdfast);
        }
        let words = publisher::Args {
            address: discord.gateway,
            token: "sim-token".into(),
            shards: SHARDS,
            broker: args.broker.clone(),
            exchange: format!("{}.events", prefix.name),
            window: args.window,
            batched: path == Path::Batched,
        }
        .words();
        let mut peer = Peer::start(setup, &words, files.join("publisher.log"))?;
        peer.identify()?;
        Ok(Self::Bare(peer))
    }

    fn process(&self) -> &Process {
        match self {
            Self::Bare(peer) => peer.process(),
            Self::Holdfast(holdfast) => &holdfast.process,
        }
    }

    /// Messages confirmed so far.
    fn confirmed(&mut self) -> Result<f64> {
        match self {
            Self::Bare(peer) => Ok(peer.counts()?.events as f64),
            Self::Holdfast(holdfast) => holdfast.counter("holdfast_amqp_confirmed_total"),
        }
    }
}
