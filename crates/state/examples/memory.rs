// SPDX-License-Identifier: AGPL-3.0-only
//! What guilds take in memory and what reading them costs. In: how many guilds, members, changes (arguments, by
//! default 4000 200 1000). Out: on standard output, bytes per guild after GUILD_CREATE and after an hour's worth of
//! changes, with compactions as the shard's task would start them, and the time of snapshot and GUILD_CREATEs.

use std::time::Duration;

use holdfast_discord::EventKind;
use holdfast_state::{Guilds, Options, View};

#[path = "memory/made.rs"]
mod made;

use made::Made;

const OWN: u64 = 1_000_000_000_000_000_001;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap_or(0));
    let guilds = arguments.next().unwrap_or(4000);
    let members = arguments.next().unwrap_or(200);
    let changes = arguments.next().unwrap_or(1000);
    let percent = arguments.next().map(|percent| percent as u32);
    let min = arguments.next().map(|min| min as u32);
    let level = arguments.next().map(|level| level as i32);
    let defaults = Options::default();
    let options = Options {
        compact_percent: percent.unwrap_or(defaults.compact_percent),
        compact_min_bytes: min.unwrap_or(defaults.compact_min_bytes),
        level: level.unwrap_or(defaults.level),
        ..defaults
    };
    let mut state = Guilds::new(options);
    state.set_user(OWN);
    let rss_before = rss();

    let mut made: Vec<Made> = (0..guilds).map(|at| Made::new(at, members)).collect();
    let rss_made = rss() - rss_before;
    let mut json_bytes = 0;
    let mut creating = Duration::ZERO;
    let mut position = 0;
    for guild in &mut made {
        let d = guild.create(OWN);
        json_bytes += d.len() as u64;
        position += 1;
        let start = cpu();
        state.apply(EventKind::GuildCreate, Some(guild.id), &d, position);
        creating += cpu() - start;
    }
    println!("{guilds} guilds, {members} members: {} bytes of JSON each", json_bytes / guilds);
    println!("GUILD_CREATE applied in {:.0} µs", creating.as_secs_f64() * 1e6 / guilds as f64);
    report("after GUILD_CREATE", &state, rss() - rss_before - rss_made);

    let (mut applying, mut compacting, mut compactions) = (Duration::ZERO, Duration::ZERO, 0u64);
    for _ in 0..changes {
        let round: Vec<_> = made.iter_mut().map(|guild| (guild.id, guild.change())).collect();
        let start = cpu();
        for (guild, (kind, d)) in round {
            position += 1;
            state.apply(kind, Some(guild), &d, position);
        }
        applying += cpu() - start;
        let start = cpu();
        while let Some(compaction) = state.compactable() {
            state.finish(compaction.run());
            compactions += 1;
        }
        compacting += cpu() - start;
    }
    println!("a change applied in {:.2} µs", applying.as_secs_f64() * 1e6 / (changes * guilds).max(1) as f64);
    println!(
        "compactions: {:.1} per guild, {:.0} µs each, {:.2} µs per change",
        compactions as f64 / guilds as f64,
        compacting.as_secs_f64() * 1e6 / compactions.max(1) as f64,
        compacting.as_secs_f64() * 1e6 / (changes * guilds).max(1) as f64
    );
    report(&format!("after {changes} changes each"), &state, rss() - rss_before - rss_made);
    read(&state, guilds);
}

fn read(state: &Guilds, guilds: u64) {
    for (name, threshold) in [("all members", u32::MAX), ("large_threshold 50", 50)] {
        let view = View { large_threshold: threshold, ..View::everything(OWN) };
        let mut out = Vec::new();
        let mut bytes = 0;
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let start = cpu();
            let snapshot = state.snapshot();
            bytes = 0;
            for guild in snapshot.guilds().iter().take(250) {
                out.clear();
                if guild.guild_create(&view, &mut out).is_err() {
                    println!("guild {} is damaged", guild.id());
                }
                bytes += out.len();
            }
            best = best.min(cpu() - start);
        }
        let count = guilds.min(250);
        println!(
            "snapshot and {count} GUILD_CREATEs, {name}: {:.1} ms ({:.0} µs and {} KiB each)",
            best.as_secs_f64() * 1e3,
            best.as_secs_f64() * 1e6 / count as f64,
            bytes / count as usize / 1024
        );
    }
}

fn report(when: &str, state: &Guilds, rss: u64) {
    let memory = state.memory();
    let each = |bytes: usize| bytes as f64 / memory.guilds as f64 / 1024.0;
    println!(
        "{when}: KiB per guild: base {:.2}, changes {:.2} ({} of them), records {:.2}, sum {:.2}; RSS {:.2}; malformed {}",
        each(memory.base_bytes),
        each(memory.change_bytes),
        memory.changes / memory.guilds,
        each(memory.overhead_bytes),
        each(memory.base_bytes + memory.change_bytes + memory.overhead_bytes),
        each(rss as usize),
        memory.malformed
    );
}

/// Resident bytes of this process; 0 where that can't be read.
fn rss() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// CPU time of this thread, so that what else the machine does has no part in the figures; 0 where it can't be read.
fn cpu() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(schedstat.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0))
}
