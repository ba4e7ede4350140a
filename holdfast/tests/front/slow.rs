// SPDX-License-Identifier: AGPL-3.0-only
//! Clients that don't read, and many that come at once: memory stays bounded, others and heartbeats in time.

use std::collections::BTreeMap;

use holdfast_simulator::{Cut, Sent, Simulator, Traffic, WorldSpec};

use crate::support::{Client, Ended, Holdfast, Wire, discord, discord_of};

/// 20,000 messages of 4 KB: 80 MB, which nobody may hold for a client.
const MESSAGES: u64 = 20_000;
const BYTES: usize = 4_000;
const STEP: u64 = 500;
/// Log in memory, a guild or two on their way, and what an allocator keeps.
const MAY_GROW_MIB: u64 = 48;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_gets_everything_later_and_harms_nobody() {
    let discord = discord(1, 4).await;
    let settings = "[ws.log]\nmemory = \"4 MiB\"\ndisk = \"512 MiB\"";
    let holdfast = Holdfast::start(&discord, settings).await;
    let (mut slow, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let sent = flow(&discord, &holdfast, &mut good).await.sent;
    // All of it has come and gone; now the slow one reads.
    slow.until_last(&sent).await;
    slow.ledger.assert_each_once(&sent, &BTreeMap::new());
    assert_eq!(holdfast.metric("holdfast_ws_client_fell_behind_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_the_log_no_longer_reaches_is_told_so() {
    let discord = discord(1, 4).await;
    let settings = "[ws.log]\nmemory = \"4 MiB\"\ndisk = \"16 MiB\"";
    let holdfast = Holdfast::start(&discord, settings).await;
    let (mut slow, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let (mut good, _) = Client::identified(&holdfast.url, [0, 1]).await;
    // Slowly enough for the disk, more than log and sockets hold.
    discord.traffic(Traffic { rate: 1_600.0, seconds: Some(7.0), bytes: BYTES, ..Traffic::default() });
    let (sent, ()) = tokio::join!(discord.finish_traffic(), good.until_messages(11_200));
    let sent = sent.sent;
    good.ledger.assert_each_once(&sent, &BTreeMap::new());
    assert_eq!(slow.until_end().await, Ended::Closed(4009));
    assert!(slow.ledger.count() < 11_200, "it can't have got all");
    assert_eq!(holdfast.metric("holdfast_ws_client_fell_behind_total").await, 1.0);
    // Nothing that it got is out of order, and what it can't get it is told.
    let got = slow.ledger.last();
    slow.ledger.assert_each_once(&got, &BTreeMap::new());
    slow.cut();
    assert_eq!(slow.resume(&holdfast.url).await["op"], 9);
    slow.cut();
    let opened = slow.identify(&holdfast.url).await;
    assert_eq!(opened.guilds.len(), 4);
    discord.traffic(Traffic::burst(20));
    let after = discord.finish_traffic().await.sent;
    slow.until_last(&after).await;
    // Catch-up begins where the log does, and says what is missing before it.
    assert_eq!(slow.seen.get("HOLDFAST_GAP"), Some(&1));
    slow.ledger.assert_tail(&after, &sent, "after the gap");
    assert!(after.values().sum::<u64>() > sent.values().sum());
}

/// All messages, read by one client while another doesn't; memory is looked at throughout.
async fn flow(discord: &Simulator, holdfast: &Holdfast, good: &mut Client) -> Sent {
    let before = holdfast.resident_mib();
    let mut most = before;
    // In steps, each awaited by the client that reads: it keeps up however slow the machine is.
    for _ in 0..MESSAGES / STEP {
        discord.traffic(Traffic { burst: STEP, bytes: BYTES, ..Traffic::default() });
        let sent = discord.finish_traffic().await.sent;
        good.until_last(&sent).await;
        most = most.max(holdfast.resident_mib());
    }
    let sent = discord.sent();
    assert_eq!(sent.sent.values().sum::<u64>(), MESSAGES);
    good.ledger.assert_each_once(&sent.sent, &BTreeMap::new());
    assert!(most < before + MAY_GROW_MIB, "from {before} MiB to {most} MiB");
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_stay_on_time_while_many_clients_identify() {
    const INTERVAL: u64 = 1_000;
    const GUILDS: usize = 250;
    let world = WorldSpec { guilds: 250, members: 200, presences: 50, ..WorldSpec::default() };
    let discord = discord_of(1, world, |_| {}).await;
    let holdfast = Holdfast::start(&discord, "threads = 1").await;
    holdfast.live().await;
    Client::identified(&holdfast.url, [0, 1]).await;
    // All guilds are here. From now on heartbeats are frequent; they alone come to 60 a minute.
    discord.change_limits(|limits| {
        limits.heartbeat_interval_ms = INTERVAL;
        limits.sends_per_minute = 10_000;
    });
    discord.cut(0, Cut::Fin);
    discord.wait_for_resume(0).await.unwrap();
    holdfast.live().await;
    let beats = discord.records(1).len();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let url = holdfast.url.clone();
        // Read, but not looked into: the machine's time is for Holdfast.
        clients.spawn(async move {
            let mut wire = Wire::identified(&url).await;
            for _ in 0..GUILDS {
                let (_, guild) = wire.frame().await.expect("a guild comes");
                assert!(guild.starts_with(br#"{"t":"GUILD_CREATE""#), "{}", String::from_utf8_lossy(&guild));
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("each client gets all guilds");
    }
    let all = discord.wait_for_records(1, beats + 3).await.unwrap();
    let times: Vec<u64> = all[beats..].iter().map(|record| record.at_ms).collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    let allowed = INTERVAL + 300;
    assert!(longest <= allowed, "{longest} ms between two heartbeats");
    let violations = discord.violations();
    assert!(violations.is_empty(), "{violations:?}");
    let (all, late) = lateness(&holdfast).await;
    assert!(all >= 3, "lateness is measured");
    assert_eq!(late, 0, "{late} of {all} heartbeats later than 256 ms");
    assert_eq!(holdfast.metric("holdfast_ws_resumes_total").await, 1.0, "only the one that the test caused");
}

/// Heartbeats, and how many of them were later than 256 ms.
async fn lateness(holdfast: &Holdfast) -> (u64, u64) {
    let text = holdfast.page("/metrics").await;
    let bucket = |le: &str| {
        let name = format!("holdfast_ws_heartbeat_lateness_seconds_bucket{{le=\"{le}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or_else(|| panic!("{le}: {text}"))
    };
    let all = bucket("+Inf");
    (all, all - bucket("0.256"))
}
