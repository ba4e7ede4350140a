// SPDX-License-Identifier: AGPL-3.0-only
//! Processes and connections that end while events flow: nothing is lost, and what comes twice has the same id.

use std::collections::BTreeMap;

use holdfast_simulator::{Simulator, Traffic, Trim};

use crate::stage::{Front, Inbox, Proxy, Stage};
use crate::support::{Holdfast, discord, discord_with, until};

const NONE: BTreeMap<String, u64> = BTreeMap::new();

#[tokio::test(flavor = "multi_thread")]
async fn holdfast_killed_under_traffic_loses_nothing() {
    for trim in [Trim::None, Trim::Count, Trim::Heartbeat] {
        let discord = discord_with(2, 4, |limits| {
            limits.resume_trim = trim;
            // Often enough that heartbeats acknowledge in the middle of the traffic.
            limits.heartbeat_interval_ms = 300;
        })
        .await;
        let mut stage = Stage::new().await;
        let mut holdfast = stage.holdfast(&discord, &Front::default()).await;
        holdfast.live().await;
        let mut inbox = stage.inbox("all");
        discord.traffic(Traffic::mixed(300.0));
        for _ in 0..3 {
            inbox.until_messages(inbox.ledger.count() + 300).await;
            holdfast.kill_and_restart().await;
        }
        finish(&discord, &holdfast, &mut inbox).await;
        // Of a crash what was not yet known to be confirmed comes again: 250 ms, and the window.
        assert!(inbox.repeated < 3 * 2 * 1024, "{trim:?}: {} came twice", inbox.repeated);
        assert_eq!(discord.records(2).len(), 2, "{trim:?}: it resumes");
        drop(holdfast);
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holdfast_restarted_by_sigterm_loses_and_repeats_nothing() {
    let discord = discord(2, 4).await;
    let mut stage = Stage::new().await;
    let mut holdfast = stage.holdfast(&discord, &Front::default()).await;
    holdfast.live().await;
    let mut inbox = stage.inbox("all");
    discord.traffic(Traffic::mixed(300.0));
    for _ in 0..3 {
        inbox.until_messages(inbox.ledger.count() + 300).await;
        holdfast.terminate_and_restart().await;
    }
    finish(&discord, &holdfast, &mut inbox).await;
    assert_eq!(inbox.repeated, 0);
    assert_eq!(discord.records(2).len(), 2, "it resumes");
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_within_a_message_loses_nothing() {
    let proxy = Proxy::open().await;
    let discord = discord(2, 4).await;
    let mut stage = Stage::new().await;
    let holdfast = stage.holdfast(&discord, &Front { url: &proxy.url, ..Front::default() }).await;
    holdfast.live().await;
    let mut inbox = stage.inbox("all");
    discord.traffic(Traffic::mixed(400.0));
    for round in 0..5 {
        inbox.until_messages(inbox.ledger.count() + 300).await;
        proxy.cut_after(50_000 + 377 * round);
        until("the cut", async || proxy.has_cut()).await;
    }
    finish(&discord, &holdfast, &mut inbox).await;
    assert!(holdfast.metric("holdfast_amqp_connections_lost_total").await >= 5.0);
    assert!(holdfast.metric("holdfast_ws_amqp_outage_seconds_total").await > 0.0);
    assert_eq!(discord.records(2).len(), 2, "the shards didn't notice");
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_the_broker_had_never_been_there_survives_a_kill() {
    let proxy = Proxy::closed().await;
    let discord = discord(1, 2).await;
    let mut stage = Stage::new().await;
    let mut holdfast = stage.holdfast(&discord, &Front { url: &proxy.url, ..Front::default() }).await;
    holdfast.live().await;
    discord.traffic(Traffic::burst(500));
    discord.finish_traffic().await;
    until("everything is on disk", async || {
        holdfast.metric("holdfast_ws_log_unstored_events").await == 0.0
            && holdfast.metric("holdfast_ws_events_total").await >= 502.0
    })
    .await;
    holdfast.kill_and_restart().await;
    holdfast.live().await;
    proxy.let_through();
    let mut inbox = stage.inbox("all");
    finish(&discord, &holdfast, &mut inbox).await;
    assert_eq!(inbox.events().next().expect("events").position, 2, "from the first event on");
    drop(holdfast);
    stage.end().await;
}

/// Stops the traffic; everything has come, in order, without a hole.
async fn finish(discord: &Simulator, holdfast: &Holdfast, inbox: &mut Inbox) {
    let sent = discord.stop_traffic().await.sent;
    inbox.until_last(&sent).await;
    crate::contract::no_lag(holdfast).await;
    inbox.ledger.assert_each_once(&sent, &NONE);
    inbox.assert_unbroken();
    assert_eq!(inbox.gaps().len(), 0);
    let violations = discord.violations();
    assert!(violations.is_empty(), "{violations:?}");
}
