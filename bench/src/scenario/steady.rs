// SPDX-License-Identifier: AGPL-3.0-only
//! One window of steady traffic through one path.
//! In: path, compression, rate, clients. Out: latency, CPU and sizes of the window.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;

use crate::{
    client::Compression,
    procfs::Cpu,
    report::Sample,
    simulator::World,
    stack::{Path, Plan, SHARDS, Setup, Stack, rest},
};

/// Traffic runs this long before the window opens.
const WARM: Duration = Duration::from_secs(1);
/// And this long beyond its planned end, as the window may open late.
const SPARE: f64 = 10.0;

/// What goes through the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// What stands in the middle.
    pub(crate) path: Path,
    /// Compression on both sides.
    pub(crate) compression: Compression,
    /// Events a second, all shards together.
    pub(crate) rate: u32,
    /// Bytes of a message's payload.
    pub(crate) bytes: u32,
    /// Clients on each shard.
    pub(crate) clients: u32,
}

/// Opens one window.
pub(crate) fn measure(setup: &Setup, load: Load) -> Result<Sample> {
    let Load { path, compression, .. } = load;
    let stack = Stack::start(
        setup,
        Plan { path, world: World::small(SHARDS), compression, max_concurrency: SHARDS },
    )?;
    let mut client = stack.client(load.clients, false)?;
    client.identify()?;
    rest(stack.simulator().process())?;
    stack.simulator().traffic(&json!({
        "kind": "messages",
        "rate": f64::from(load.rate) / f64::from(SHARDS),
        "seconds": WARM.as_secs_f64() + setup.seconds + SPARE,
        "bytes": load.bytes,
    }))?;
    thread::sleep(WARM);

    client.reset()?;
    let (opened, cpu) = (Instant::now(), middle_cpu(&stack)?);
    thread::sleep(Duration::from_secs_f64(setup.seconds));
    let counts = client.counts()?;
    let (seconds, used) = (opened.elapsed().as_secs_f64(), middle_cpu(&stack)?);

    if counts.closed > 0 {
        eprintln!("{} of the clients' connections ended: {:?}", counts.closed, counts.why);
    }
    let deliveries = counts.timed as f64;
    let events = deliveries / f64::from(load.clients);
    let mut sample = Sample::from([
        ("events_per_second", events / seconds),
        ("p50_us", counts.p50 as f64),
        ("p90_us", counts.p90 as f64),
        ("p99_us", counts.p99 as f64),
        ("max_us", counts.max as f64),
        ("closed", counts.closed as f64),
        ("wire_bytes_per_event", counts.wire_bytes as f64 / deliveries),
    ]);
    if let (Some(before), Some(after)) = (cpu, used) {
        let micros = after.since(&before).as_secs_f64() * 1e6;
        sample.insert("cpu_us_per_event", micros / events);
        sample.insert("cpu_us_per_delivery", micros / deliveries);
    }
    if let Some((wire, level_one)) = counts.sample {
        sample.insert("size_x_zlib_1", wire as f64 / level_one as f64);
    }
    Ok(sample)
}

fn middle_cpu(stack: &Stack) -> Result<Option<Cpu>> {
    stack.middle().map(|process| process.cpu()).transpose()
}
