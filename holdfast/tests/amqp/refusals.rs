// SPDX-License-Identifier: AGPL-3.0-only
//! A broker that isn't there is waited for; one that refuses ends the service, with what to do.

use holdfast_broker::{Exchange, ExchangeKind, Topology};
use holdfast_simulator::Traffic;

use crate::stage::{ALL_EVENTS, Front, Proxy, RABBITMQ, Stage};
use crate::support::{discord, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_reached_is_waited_for() {
    let proxy = Proxy::closed().await;
    let discord = discord(2, 4).await;
    let mut stage = Stage::new().await;
    let holdfast = stage.holdfast(&discord, &Front { url: &proxy.url, ..Front::default() }).await;
    holdfast.live().await;
    let (status, why) = holdfast.answer("/readyz").await;
    assert!(status == 503 && why.contains("broker: connecting"), "{status} {why}");
    discord.traffic(Traffic::burst(500));
    let sent = discord.finish_traffic().await.sent;
    until("the events are seen to wait", async || {
        holdfast.metric("holdfast_ws_amqp_lag_events").await >= 1000.0
            && holdfast.metric("holdfast_ws_amqp_lag_bytes").await > 1000.0 * 1000.0
            && holdfast.metric("holdfast_ws_amqp_stalled_seconds").await >= 1.0
            && holdfast.metric("holdfast_ws_amqp_outage_seconds_total").await >= 1.0
    })
    .await;
    proxy.let_through();
    let mut inbox = stage.inbox("all");
    inbox.until_last(&sent).await;
    inbox.ledger.assert_each_once(&sent, &std::collections::BTreeMap::new());
    inbox.assert_unbroken();
    until("it is ready", async || holdfast.answer("/readyz").await.0 == 200).await;
    crate::contract::no_lag(&holdfast).await;
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_ends_it_and_is_not_shown() {
    let url = "amqp://guest:hunter2@127.0.0.1:5672/%2f";
    let said = refused(url, ALL_EVENTS, "", None).await;
    assert!(said.contains("correct broker.url") && !said.contains("hunter2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_host_that_is_not_there_ends_it() {
    let said = refused("amqp://guest:guest@127.0.0.1:5672/nowhere", ALL_EVENTS, "", None).await;
    assert!(said.contains("rabbitmqctl add_vhost") && said.contains("nowhere"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_of_another_type_ends_it() {
    let said = refused(RABBITMQ, ALL_EVENTS, "", Some(ExchangeKind::Direct)).await;
    assert!(said.contains("delete it, or set another broker.prefix"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_the_plugin_ends_it() {
    let proxy = Proxy::open().await;
    proxy.hide_plugin();
    let said = refused(&proxy.url, ALL_EVENTS, "partitions = 2", None).await;
    assert!(said.contains("rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"), "{said}");
}

/// How Holdfast ends, and what it says; with an exchange of events that somebody else has declared.
async fn refused(url: &str, queues: &str, amqp: &str, exchange: Option<ExchangeKind>) -> String {
    let discord = discord(1, 1).await;
    let mut stage = Stage::new().await;
    if let Some(kind) = exchange {
        let exchanges = vec![Exchange::new(stage.broker.names().events(), kind)];
        stage.broker.declare(&Topology { exchanges, ..Topology::default() }).await.expect("declared");
    }
    let mut holdfast = stage.holdfast(&discord, &Front { url, queues, amqp, ..Front::default() }).await;
    let status = holdfast.ended().await;
    let said = holdfast.output();
    assert!(status.code().is_some_and(|code| code != 0), "{status}: {said}");
    let _ = stage.inbox("all");
    stage.end().await;
    said
}
