// SPDX-License-Identifier: AGPL-3.0-only
//! What a restart neither loses nor doubles.

use holdfast_cluster::RestStore;
use holdfast_contract::v1::{RestResponse, WebhookMessage, WebhookReply};
use holdfast_rest::{Limits, ledger_key};
use holdfast_service::Service;
use holdfast_simulator::RestFault;
use prost::Message as _;

use super::stage::{Stage, limited, outcome, say, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_key_is_done_once_and_answered_twice() {
    for stage in [Stage::memory(|_| {}).await, Stage::rabbit(|_| {}).await] {
        let webhook = stage.start().await;
        let keyed = || WebhookMessage { idempotency_key: "once".to_owned(), ..say(7, "x") };
        let first = stage.ask(keyed()).await;
        assert_eq!((outcome(&first), stage.ask(keyed()).await), ((None, Some(200)), first));
        assert_eq!(stage.said(7), ["x"]);
        assert_eq!(webhook.metric("holdfast_webhook_repeated_total"), 1.0);
        // Another webhook's is another one.
        stage.ask(WebhookMessage { webhook_id: 8, ..keyed() }).await;
        assert_eq!(stage.said(8), ["x"]);
        webhook.stop().await;
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_knows_what_was_done() {
    let stage = Stage::rabbit(|_| {}).await;
    let keyed = || WebhookMessage { idempotency_key: "once".to_owned(), ..say(7, "x") };
    let webhook = stage.start().await;
    stage.ask(keyed()).await;
    webhook.stop().await;
    let next = stage.start().await;
    until(|| next.metric("holdfast_rest_store_connected") == 1.0).await;
    stage.ask(keyed()).await;
    assert_eq!(stage.said(7), ["x"]);
    next.stop().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_replica_does_while_it_waits_is_not_done_again() {
    let stage = Stage::rabbit(|_| {}).await;
    let (webhook, other) = (stage.start().await, Service::new(Default::default()));
    let limits = Limits::of_process(&stage.config.limits, stage.config.cluster.as_ref(), &other);
    let limits = limits.await.expect("no certificates");
    until(|| limits.store().is_some_and(RestStore::is_connected)).await;
    let response = RestResponse { status: 200, ..Default::default() };
    let done = WebhookReply { webhook_id: 7, response: Some(response), ..Default::default() };
    stage.discord.rest_fault(RestFault::Shared { seconds: 1.0 });
    let (reply, ()) = tokio::join!(
        stage.ask(WebhookMessage { idempotency_key: "once".to_owned(), ..say(7, "x") }),
        async {
            until(|| webhook.metric("holdfast_rest_limited_total{scope=\"shared\"}") == 1.0).await;
            let key = ledger_key(b"webhook 7/to-ken", "once");
            limits.ledger().done(&key, done.encode_to_vec().into()).await;
        }
    );
    assert_eq!(reply, done);
    assert!(stage.said(7).is_empty());
    assert_eq!(outcome(&stage.ask(say(7, "on")).await), (None, Some(200)), "its turn was given back");
    webhook.stop().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_stays_with_the_broker_and_goes_on_in_its_place() {
    let stage = Stage::rabbit(|limits| limited(limits, 2, 1.0)).await;
    let webhook = stage.start().await;
    let texts: Vec<_> = (0..8).map(|number| number.to_string()).collect();
    for text in &texts {
        stage.tell(say(7, text)).await;
    }
    until(|| stage.said(7).len() >= 2).await;
    webhook.stop().await;
    let between = stage.said(7).len();
    assert!(between < 8, "the limit holds some of them");
    let next = stage.start().await;
    until(|| stage.said(7).len() >= 8).await;
    assert_eq!(stage.said(7), texts);
    next.stop().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_loses_nothing() {
    let stage = Stage::rabbit(|limits| {
        limited(limits, 2, 1.0);
        limits.latency_ms = [100, 100];
    })
    .await;
    // It leaves its queues: while they come one by one, messages go wherever there is one.
    stage.start().await.stop().await;
    // A runtime of its own that ends in the middle: nothing of it is told to anybody, as after `kill -9`.
    let mortal = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let config = stage.config.clone();
    mortal.spawn(async move {
        let service = holdfast_service::Service::new(tokio_util::sync::CancellationToken::new());
        let webhook = holdfast_webhook::start(config, &service, Default::default()).await.expect("starts");
        webhook.wait().await.expect("nothing refuses");
    });
    let texts: Vec<_> = (0..6).map(|number| number.to_string()).collect();
    for text in &texts {
        stage.tell(WebhookMessage { idempotency_key: text.clone(), ..say(7, text) }).await;
    }
    until(|| stage.said(7).len() >= 2).await;
    mortal.shutdown_background();
    let next = stage.start().await;
    until(|| stage.said(7).last().map(String::as_str) == Some("5")).await;
    let mut said = stage.said(7);
    // The one that Discord had and that was not yet noted may have been done twice: at least once.
    let all = said.len();
    said.dedup();
    assert_eq!(said, texts);
    assert!(all <= texts.len() + 1, "{all}");
    next.stop().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_does_not_wait_for_a_turn_that_is_far_off() {
    let stage = Stage::rabbit(|_| {}).await;
    let webhook = stage.start().await;
    stage.discord.rest_fault(RestFault::Shared { seconds: 300.0 });
    stage.tell(say(7, "held")).await;
    until(|| webhook.metric("holdfast_rest_limited_total{scope=\"shared\"}") == 1.0).await;
    let begun = std::time::Instant::now();
    webhook.stop().await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    stage.end().await;
}
