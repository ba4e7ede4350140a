// SPDX-License-Identifier: AGPL-3.0-only
//! Heartbeats to Discord wait for nobody: not for clients that come all at once, in whatever form.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use holdfast_simulator::{Cut, Simulator, WorldSpec};

use crate::support::{BINARY, Client, Holdfast, TEXT, Wire, demand, discord_of, etf, frame, identify};

/// How often Discord wants one here.
const INTERVAL_MS: u64 = 1_000;
const CLIENTS: usize = 16;
const GUILDS: usize = 250;
/// Heartbeats that are watched in each form.
const BEATS: usize = 4;

/// Encoding and compression; the one that costs most comes first.
const FORMS: [[&str; 2]; 6] = [
    ["etf", "zlib-stream"],
    ["json", ""],
    ["json", "zlib-stream"],
    ["json", "zstd-stream"],
    ["etf", ""],
    ["etf", "zstd-stream"],
];

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_stay_on_time_while_many_clients_identify() {
    let world = WorldSpec { guilds: 250, members: 200, presences: 50, ..WorldSpec::default() };
    let discord = discord_of(1, world, |_| {}).await;
    // One thread for everything, and real deflating: the hardest case.
    let holdfast = Holdfast::start(&discord, "threads = 1\nstored_zlib = false").await;
    holdfast.live().await;
    Client::identified(&holdfast.url, [0, 1]).await;
    // All guilds are here. From now on heartbeats are frequent; they alone come to 60 a minute.
    discord.change_limits(|limits| {
        limits.heartbeat_interval_ms = INTERVAL_MS;
        limits.sends_per_minute = 10_000;
    });
    discord.cut(0, Cut::Fin);
    discord.wait_for_resume(0).await.unwrap();
    holdfast.live().await;
    for form in demand::usually(&FORMS[..1], &FORMS) {
        all_identify(&discord, &holdfast, *form).await;
    }
    assert_eq!(holdfast.metric("holdfast_ws_resumes_total").await, 1.0, "only the one that the test caused");
}

/// Clients that identify all at once, again and again in one form; no heartbeat meanwhile is late.
async fn all_identify(discord: &Simulator, holdfast: &Holdfast, form: [&'static str; 2]) {
    let (beats, (before, late_before)) = (discord.records(1).len(), lateness(holdfast).await);
    let enough = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (url, enough) = (holdfast.url.clone(), Arc::clone(&enough));
        clients.spawn(async move {
            let mut times = 0;
            while !enough.load(Ordering::Relaxed) {
                identified(&url, form).await;
                times += 1;
            }
            times
        });
    }
    let all = discord.wait_for_records(1, beats + BEATS).await.unwrap();
    enough.store(true, Ordering::Relaxed);
    let identified: usize = clients.join_all().await.into_iter().sum();
    assert!(identified >= CLIENTS, "{form:?}: each client gets all guilds");
    let times: Vec<u64> = all[beats..].iter().map(|record| record.at_ms).collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    assert!(longest <= INTERVAL_MS + 300, "{form:?}: {longest} ms between two heartbeats");
    let violations = discord.violations();
    assert!(violations.is_empty(), "{form:?}: {violations:?}");
    let (sent, late) = lateness(holdfast).await;
    let (sent, late) = (sent - before, late - late_before);
    assert!(sent >= BEATS as u64, "{form:?}: lateness is measured");
    assert_eq!(late, 0, "{form:?}: {late} of {sent} heartbeats later than 200 ms");
    println!("{form:?}: {identified} IDENTIFYs during {sent} heartbeats, {longest} ms between two at most");
}

/// A client that gets everything. Read, but not looked into: the machine's time is for Holdfast.
async fn identified(url: &str, [encoding, compress]: [&str; 2]) {
    let compress = if compress.is_empty() { String::new() } else { format!("&compress={compress}") };
    let mut wire = Wire::upgraded(url, &format!("v=10&encoding={encoding}{compress}")).await;
    let identify = identify();
    wire.write(&match encoding {
        "etf" => frame(BINARY, &etf::encode(&identify)),
        _ => frame(TEXT, identify.to_string().as_bytes()),
    })
    .await;
    // HELLO and READY come first, each payload in a frame.
    for number in 0..GUILDS + 2 {
        let (opcode, payload) = wire.frame().await.expect("a payload comes");
        assert!([TEXT, BINARY].contains(&opcode) && !payload.is_empty(), "payload {number}");
    }
}

/// Heartbeats, and how many of them were later than 200 ms.
async fn lateness(holdfast: &Holdfast) -> (u64, u64) {
    let text = holdfast.page("/metrics").await;
    let bucket = |le: &str| {
        let name = format!("holdfast_ws_heartbeat_lateness_seconds_bucket{{le=\"{le}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or_else(|| panic!("{le}: {text}"))
    };
    let all = bucket("+Inf");
    (all, all - bucket("0.2"))
}
