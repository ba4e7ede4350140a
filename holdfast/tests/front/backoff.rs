// SPDX-License-Identifier: AGPL-3.0-only
//! Shards that can't connect for a while: they go on trying, seldom and not in step, and come back by themselves.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use holdfast_simulator::{Fault, FaultKind, Simulator};

use crate::support::{Client, Holdfast, assert_well_behaved, demand, discord, until};

const SHARDS: u32 = 8;

/// The first pause at its shortest and at its longest, and the longest there is.
const PAUSES: [f64; 2] = [0.25, 0.5];
const LONGEST: f64 = 30.0;

/// Milliseconds of attempts that come together by chance.
const TOGETHER: u64 = 100;

fn outage() -> Duration {
    Duration::from_secs(demand::usually(6, 60))
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_discord_hangs_up_on_try_again_seldom_and_not_in_step() {
    let discord = discord(SHARDS, 16).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    // They get as far as RESUME, each time.
    for shard in 0..SHARDS {
        discord.fault(&Fault::new(shard, FaultKind::Refuse).lasting(outage()));
    }
    let spent = without_discord(&discord, &holdfast).await;
    let attempts = attempts(&discord);
    assert_eq!(attempts.len(), SHARDS as usize, "{attempts:?}");
    let (least, most) = expected(outage());
    for (session, times) in &attempts {
        // The last of them is the one that succeeded, or not far from it.
        let in_vain = times.iter().filter(|time| **time < times[0] + millis(outage())).count();
        assert!((least..=most).contains(&in_vain), "{session}: {least} to {most} attempts, not {times:?}");
    }
    // All lost their connections in the same moment.
    let fourth: Vec<u64> = attempts.values().map(|times| times[3]).collect();
    let spread = fourth.iter().max().unwrap() - fourth.iter().min().unwrap();
    assert!(spread > TOGETHER, "the fourth attempts come within {spread} ms: {attempts:?}");
    assert!(spent < outage() / 4, "{spent:?} of {:?} computing", outage());
    assert_eq!(discord.records(2).len(), SHARDS as usize, "resumed, none identified anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_cannot_connect_at_all_try_again_seldom() {
    let discord = discord(SHARDS, 16).await;
    let holdfast = Holdfast::start(&discord, "").await;
    holdfast.live().await;
    discord.fault(&Fault::everywhere(FaultKind::Refuse).lasting(outage()));
    let spent = without_discord(&discord, &holdfast).await;
    let failures = holdfast.metric("holdfast_ws_connect_failures_total").await;
    let (least, most) = expected(outage());
    let bounds = f64::from(SHARDS) * least as f64..=f64::from(SHARDS) * most as f64;
    assert!(bounds.contains(&failures), "{bounds:?} attempts, not {failures}");
    assert!(spent < outage() / 4, "{spent:?} of {:?} computing", outage());
    assert_eq!(discord.records(2).len(), SHARDS as usize, "resumed, none identified anew");
}

/// Cuts all connections; the time that the process computes until Discord can be reached again, after which all come
/// back.
async fn without_discord(discord: &Simulator, holdfast: &Holdfast) -> Duration {
    let (begun, cpu) = (Instant::now(), holdfast.cpu());
    assert_eq!(discord.fault(&Fault::everywhere(FaultKind::FinRst)), SHARDS as usize);
    until("the outage is seen", async || holdfast.metric("holdfast_ws_shards_live").await == 0.0).await;
    // Time has to pass for what is measured here.
    tokio::time::sleep_until((begun + outage()).into()).await;
    let spent = holdfast.cpu() - cpu;
    holdfast.live().await;
    assert_well_behaved(discord);
    Client::identified(&holdfast.url, [1, SHARDS]).await;
    spent
}

/// When each session's RESUMEs came, in milliseconds.
fn attempts(discord: &Simulator) -> BTreeMap<String, Vec<u64>> {
    let mut attempts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in discord.records(6) {
        let session = record.d["session_id"].as_str().expect("a session id").to_owned();
        attempts.entry(session).or_default().push(record.at_ms);
    }
    attempts
}

/// How many attempts fit into a time, with the longest and the shortest pauses; one fewer for a machine that is slow,
/// one more for the edge.
fn expected(time: Duration) -> (usize, usize) {
    let fit = |first: f64| {
        let pauses =
            std::iter::successors(Some(first), |pause| Some((pause * 2.0).min(LONGEST * first / PAUSES[1])));
        let begun = pauses.scan(0.0, |at, pause| {
            *at += pause;
            Some(*at)
        });
        begun.take_while(|at| *at < time.as_secs_f64()).count()
    };
    (fit(PAUSES[1]) - 1, fit(PAUSES[0]) + 1)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("short")
}
