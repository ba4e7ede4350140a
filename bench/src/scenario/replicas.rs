// SPDX-License-Identifier: AGPL-3.0-only
//! Two replicas, of which the one that has the shards is told to end, or is killed: how long until the other has them,
//! and how long a consumer hears nothing of a shard. In: flags. Out: a row per way of ending.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::json;

use crate::{
    amqp::consumer,
    client::{Compression, Counts},
    holdfast::{Config, Holdfast},
    peer::Peer,
    report::{Column, Results, Sample},
    simulator::{Simulator, Spec, World},
    stack::Setup,
    traces::{Places, Prefix, ask},
};

const COLUMNS: &[Column] = &[
    ("moved", "shards moved", 0),
    ("milliseconds", "all live, ms", 0),
    ("over_expiry", "− expiry, ms", 0),
    ("longest_pause_ms", "longest pause, ms", 0),
    ("median_pause_ms", "median pause, ms", 0),
    ("lost", "lost", 0),
    ("repeated", "repeated", 0),
    ("identified", "new sessions", 0),
];
/// IDENTIFY.
const IDENTIFY: u32 = 2;
/// Traffic runs this long before a replica ends, and after all shards live again.
const STEADY: Duration = Duration::from_secs(3);
/// How often shards are looked for: what the times may be off by.
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for shards, beyond an expiry.
const PATIENCE: Duration = Duration::from_secs(60);

/// Flags of the scenario.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// RabbitMQ's address.
    #[arg(long, default_value = "amqp://guest:guest@localhost:5672")]
    broker: String,
    /// Redis's address.
    #[arg(long, default_value = "redis://localhost:6379")]
    store: String,
    /// Shards of the bot.
    #[arg(long, default_value_t = 100)]
    shards: u32,
    /// Events a second on each shard.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Ways to end, with the leases' expiry in seconds where it matters.
    #[arg(long, value_delimiter = ',', default_value = "sigterm,kill:15,kill:3")]
    ends: Vec<End>,
    /// Bytes of a message's payload.
    #[arg(long, default_value_t = 1200)]
    bytes: u32,
}

/// How a replica ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// SIGTERM, with the default expiry.
    Terminated,
    /// `kill -9`, with leases that last so many seconds.
    Killed(u32),
}

impl std::str::FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "sigterm" => Ok(Self::Terminated),
            Some(("kill", seconds)) => match seconds.parse() {
                Ok(seconds @ 1..=300) => Ok(Self::Killed(seconds)),
                _ => Err("expected 1 to 300 seconds".to_owned()),
            },
            _ => Err("expected \"sigterm\", or \"kill:\" and the leases' expiry in seconds".to_owned()),
        }
    }
}

impl End {
    /// Expiry of leases, in seconds.
    fn expiry(self) -> u32 {
        match self {
            Self::Terminated => 15,
            Self::Killed(seconds) => seconds,
        }
    }

    fn case(self, shards: u32) -> String {
        match self {
            Self::Terminated => format!("{shards} shards, SIGTERM"),
            Self::Killed(seconds) => format!("{shards} shards, kill -9, expiry {seconds} s"),
        }
    }
}

/// Lets a replica end in each way, `runs` times.
pub(crate) fn run(setup: &Setup, args: &Args) -> Result<()> {
    ask(&args.store, &["PING"]).with_context(|| format!("{} does not answer", args.store))?;
    let mut results = Results::new("replicas");
    for run in 0..setup.runs {
        for turn in 0..args.ends.len() {
            let end = args.ends[(turn + run) % args.ends.len()];
            let case = end.case(args.shards);
            eprintln!("run {} of {}: {case}", run + 1, setup.runs);
            results.add(&case, "holdfast", measure(setup, args, end)?);
            results.save(&setup.out)?;
        }
    }
    results.show(COLUMNS, &setup.out)
}

/// A bot's replicas, and what is around them.
struct Fleet<'a> {
    setup: &'a Setup,
    args: &'a Args,
    end: End,
    discord: Simulator,
    consumer: Peer,
    // Dropped last: its traces go when nobody writes any more.
    prefix: Prefix,
}

fn measure(setup: &Setup, args: &Args, end: End) -> Result<Sample> {
    let mut fleet = Fleet::new(setup, args, end)?;
    // The first is to have all shards, or nearly.
    let first = fleet.replica(10_000)?;
    fleet.until_all_live(&[&first])?;
    let second = fleet.replica(1)?;
    fleet.until_all_live(&[&first, &second])?;
    fleet.discord.traffic(&json!({ "kind": "messages", "rate": args.rate, "bytes": args.bytes }))?;
    thread::sleep(STEADY);

    let (moved, sessions) = (first.live_shards()?.len(), fleet.discord.received(IDENTIFY)?);
    let before = fleet.consumer.reset()?;
    let began = Instant::now();
    match end {
        End::Terminated => first.process.terminate()?,
        End::Killed(_) => first.process.kill(),
    }
    fleet.until_all_live(&[&second])?;
    let took = began.elapsed();
    thread::sleep(STEADY);
    let sent = fleet.discord.stop_traffic()?;
    let known = before.timed - before.repeated;
    let after = fleet.until_heard(sent.saturating_sub(known))?;

    let milliseconds = took.as_secs_f64() * 1e3;
    let mut sample = Sample::from([
        ("moved", moved as f64),
        ("milliseconds", milliseconds),
        ("longest_pause_ms", after.longest_pause as f64 / 1e3),
        ("median_pause_ms", after.median_pause as f64 / 1e3),
        ("lost", sent as f64 - (known + after.timed - after.repeated) as f64),
        ("repeated", after.repeated as f64),
        ("identified", fleet.discord.received(IDENTIFY)?.saturating_sub(sessions) as f64),
    ]);
    if let End::Killed(expiry) = end {
        sample.insert("over_expiry", milliseconds - f64::from(expiry) * 1e3);
    }
    Ok(sample)
}

impl<'a> Fleet<'a> {
    fn new(setup: &'a Setup, args: &'a Args, end: End) -> Result<Self> {
        let files = setup.folder("fleet")?;
        let places = Places { broker: args.broker.clone(), store: Some(args.store.clone()) };
        let prefix = setup.traces.prefix(places);
        let (world, shards) = (World::small(args.shards), args.shards);
        let spec = Spec { world, shards, max_concurrency: shards, resume_seconds: 180 };
        let discord = Simulator::start(setup, &spec, &files)?;
        let consumer = consumer::Args {
            broker: args.broker.clone(),
            exchange: format!("{}.events", prefix.name),
            sink: false,
        };
        let consumer = Peer::start(setup, &consumer.words(), files.join("consumer.log"))?;
        Ok(Self { setup, args, end, discord, consumer, prefix })
    }

    /// Starts a replica and waits until it is ready.
    fn replica(&self, weight: u32) -> Result<Holdfast> {
        let files = self.setup.folder("replica")?;
        let sections = self.sections(weight);
        let config = Config {
            command: "ws",
            shards: self.args.shards,
            compression: Compression::None,
            cache_everything: false,
            sections: &sections,
            files: &files,
        };
        Holdfast::start(self.setup, &self.discord, &config)
    }

    fn sections(&self, weight: u32) -> String {
        let (prefix, expiry) = (&self.prefix.name, self.end.expiry());
        format!(
            "[broker]\nurl = \"{}\"\nprefix = \"{prefix}\"\n\n\
             [cluster]\nurl = \"{}\"\nprefix = \"{prefix}\"\nweight = {weight}\n\
             expiry = \"{expiry}s\"\nrenew_interval = \"{}ms\"",
            self.args.broker,
            self.args.store,
            expiry * 1000 / 3,
        )
    }

    /// Waits until each shard is live at exactly one of these replicas.
    fn until_all_live(&self, replicas: &[&Holdfast]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE + Duration::from_secs(u64::from(self.end.expiry()));
        loop {
            let mut live = Vec::new();
            for replica in replicas {
                replica.process.alive()?;
                live.extend(replica.live_shards()?);
            }
            live.sort_unstable();
            if live.len() == self.args.shards as usize && live.windows(2).all(|two| two[0] != two[1]) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("only {} of {} shards are live", live.len(), self.args.shards);
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits until so many new messages have come, or for as long as what is still missing may take.
    fn until_heard(&mut self, messages: u64) -> Result<Counts> {
        let deadline = Instant::now() + STEADY;
        loop {
            let counts = self.consumer.counts()?;
            if counts.timed - counts.repeated >= messages || Instant::now() > deadline {
                return Ok(counts);
            }
            thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_end_are_read_with_their_expiry() {
        assert_eq!("sigterm".parse(), Ok(End::Terminated));
        assert_eq!("kill:3".parse(), Ok(End::Killed(3)));
        for text in ["", "kill", "kill:", "kill:0", "sigterm:3", "term"] {
            assert!(text.parse::<End>().is_err(), "{text}");
        }
    }
}
