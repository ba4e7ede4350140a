// SPDX-License-Identifier: AGPL-3.0-only
//! A broker that is away for longer than the log holds: by the setting, Discord holds the backlog, or the oldest goes.

use std::collections::BTreeMap;

use holdfast_contract::v1::GapReason;
use holdfast_simulator::{Fault, FaultKind, Simulator, Traffic, Trim};

use crate::contract::{count, no_lag};
use crate::stage::{Front, Inbox, Proxy, Stage};
use crate::support::{Client, Holdfast, discord_with, until};

/// The least that a log may have.
const LOG: &str = "disk = \"16 MiB\"\nmemory = \"1 MiB\"";
/// At 1.2 KB each, more than it holds.
const BURST: u64 = 25_000;
const NONE: BTreeMap<String, u64> = BTreeMap::new();

#[tokio::test(flavor = "multi_thread")]
async fn discord_holds_what_the_log_cannot() {
    let (discord, proxy, mut stage) = (patient_discord().await, Proxy::closed().await, Stage::new().await);
    let holdfast = stage.holdfast(&discord, &Front { url: &proxy.url, log: LOG, ..Front::default() }).await;
    holdfast.live().await;
    let sent = burst(&discord).await;
    left(&holdfast).await;
    assert!(holdfast.metric("holdfast_ws_events_total").await < count(15_000));
    proxy.let_through();
    let mut inbox = stage.inbox("all");
    inbox.until_last(&sent).await;
    inbox.ledger.assert_each_once(&sent, &NONE);
    inbox.assert_unbroken();
    holdfast.live().await;
    no_lag(&holdfast).await;
    assert_eq!(inbox.gaps().len(), 0);
    assert_eq!(discord.records(2).len(), 1, "the session was resumed");
    assert!(discord.violations().is_empty(), "{:?}", discord.violations());
    assert_eq!(holdfast.metric("holdfast_ws_amqp_lost_events_total").await, 0.0);
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_meanwhile_leaves_it_with_discord() {
    let (discord, proxy, mut stage) = (patient_discord().await, Proxy::closed().await, Stage::new().await);
    let mut holdfast =
        stage.holdfast(&discord, &Front { url: &proxy.url, log: LOG, ..Front::default() }).await;
    holdfast.live().await;
    let sent = burst(&discord).await;
    left(&holdfast).await;
    until("everything is on disk", async || holdfast.metric("holdfast_ws_log_unstored_events").await == 0.0)
        .await;
    holdfast.kill_and_restart().await;
    until("the log is recovered", async || holdfast.metric("holdfast_ws_amqp_lag_events").await > 5_000.0)
        .await;
    // It may have come for the little that still fitted.
    until("it is away", async || phase(&holdfast).await == "connecting").await;
    assert!(holdfast.metric("holdfast_ws_events_total").await < count(3_000));
    proxy.let_through();
    let mut inbox = stage.inbox("all");
    inbox.until_last(&sent).await;
    inbox.ledger.assert_each_once(&sent, &NONE);
    inbox.assert_unbroken();
    assert_eq!(discord.records(2).len(), 1, "the session was resumed");
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_discord_has_dropped_meanwhile_is_a_gap() {
    let (discord, proxy, mut stage) = (patient_discord().await, Proxy::closed().await, Stage::new().await);
    let holdfast = stage.holdfast(&discord, &Front { url: &proxy.url, log: LOG, ..Front::default() }).await;
    holdfast.live().await;
    let sent = burst(&discord).await;
    left(&holdfast).await;
    discord.fault(&Fault::new(0, FaultKind::ExpireSession));
    proxy.let_through();
    let mut inbox = stage.inbox("all");
    let gap = inbox.until_gap().await;
    assert_eq!((gap.reason(), gap.lost, gap.to), (GapReason::NewSession, 0, gap.from + 1));
    let had = inbox.ledger.last();
    inbox.ledger.assert_each_once(&had, &NONE);
    assert!(inbox.ledger.count() < usize::try_from(BURST).unwrap());
    discord.traffic(Traffic::burst(100));
    let later = discord.finish_traffic().await.sent;
    inbox.until_last(&later).await;
    inbox.ledger.assert_tail(&later, &sent, "behind the gap");
    inbox.assert_unbroken();
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_setting_the_oldest_goes_and_is_counted() {
    let (discord, proxy, mut stage) = (patient_discord().await, Proxy::closed().await, Stage::new().await);
    let front = Front { url: &proxy.url, log: LOG, amqp: "outage = \"drop\"", ..Front::default() };
    let holdfast = stage.holdfast(&discord, &front).await;
    holdfast.live().await;
    let sent = burst(&discord).await;
    all_taken_in(&holdfast).await;
    proxy.let_through();
    let mut inbox = stage.inbox("all");
    inbox.until_last(&sent).await;
    no_lag(&holdfast).await;
    told(&holdfast, &inbox, &sent).await;
    assert_eq!(holdfast.metric("holdfast_ws_backlogs_left_total").await, 0.0);
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_websocket_front_misses_nothing_for_it() {
    let (discord, proxy, mut stage) = (patient_discord().await, Proxy::closed().await, Stage::new().await);
    let holdfast = stage.holdfast(&discord, &Front { url: &proxy.url, log: LOG, ..Front::default() }).await;
    holdfast.live().await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    let mut sent = NONE;
    for _ in 0..5 {
        // In parts, so that the client, which isn't fast, doesn't fall off the log itself.
        discord.traffic(Traffic::burst(BURST / 5));
        sent = discord.finish_traffic().await.sent;
        client.until_last(&sent).await;
    }
    client.ledger.assert_each_once(&sent, &NONE);
    proxy.let_through();
    let mut inbox = stage.inbox("all");
    inbox.until_last(&sent).await;
    no_lag(&holdfast).await;
    told(&holdfast, &inbox, &sent).await;
    assert_eq!(holdfast.metric("holdfast_ws_backlogs_left_total").await, 0.0);
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_brings_the_shard_back() {
    let (discord, proxy, stage) = (patient_discord().await, Proxy::closed().await, Stage::new().await);
    let holdfast = stage.holdfast(&discord, &Front { url: &proxy.url, log: LOG, ..Front::default() }).await;
    holdfast.live().await;
    // What is left of it fits into the log, however slow the client is.
    discord.traffic(Traffic::burst(15_000));
    let sent = discord.finish_traffic().await.sent;
    left(&holdfast).await;
    let (mut client, _) = Client::identified(&holdfast.url, [0, 1]).await;
    client.until_last(&sent).await;
    assert!(client.ledger.count() < 15_000, "what came before the client isn't its own");
    assert_eq!(discord.records(2).len(), 1, "the session was resumed");
    drop(holdfast);
    stage.end().await;
}

/// It keeps whatever a session may come back for.
async fn patient_discord() -> Simulator {
    discord_with(1, 2, |limits| limits.resume_trim = Trim::None).await
}

async fn burst(discord: &Simulator) -> BTreeMap<String, u64> {
    discord.traffic(Traffic::burst(BURST));
    discord.finish_traffic().await.sent
}

/// Waits until the shard has left Discord for the backlog's sake.
async fn left(holdfast: &Holdfast) {
    until("the shard leaves Discord", async || {
        holdfast.metric("holdfast_ws_backlogs_left_total").await >= 1.0
            && phase(holdfast).await == "connecting"
    })
    .await;
}

async fn phase(holdfast: &Holdfast) -> String {
    let shards: serde_json::Value = serde_json::from_str(&holdfast.page("/shards").await).expect("JSON");
    shards[0]["phase"].as_str().unwrap_or_default().to_owned()
}

async fn all_taken_in(holdfast: &Holdfast) {
    until("all events are taken in", async || {
        holdfast.metric("holdfast_ws_events_total").await >= count(usize::try_from(BURST).unwrap())
    })
    .await;
}

/// One gap stands where the oldest were, and says how many.
async fn told(holdfast: &Holdfast, inbox: &Inbox, sent: &BTreeMap<String, u64>) {
    let gaps = inbox.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let gap = gaps[0];
    assert_eq!((gap.reason(), gap.lost), (GapReason::LogFull, gap.to - gap.from - 1));
    assert!(gap.lost > 0);
    let guilds = 2;
    let had = inbox.arrivals.len() - 1;
    let all: u64 = sent.values().sum::<u64>() + guilds;
    assert_eq!(u64::try_from(had).unwrap() + gap.lost, all, "every event is here or counted");
    inbox.assert_unbroken();
    assert_eq!(
        holdfast.metric("holdfast_ws_amqp_lost_events_total").await,
        count(usize::try_from(gap.lost).unwrap())
    );
}
