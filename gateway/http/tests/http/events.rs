// SPDX-License-Identifier: AGPL-3.0-only
//! Webhook events: with the broker before Discord hears that they were taken, and once.

use holdfast_broker::{Binding, ConsumerOptions, Exchange, ExchangeKind, Queue, QueueKind, Topology};
use holdfast_contract::Body;
use holdfast_contract::v1::WebhookEvent;
use holdfast_simulator::{Posted, Signing};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{SOON, Stage, stage};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_to_the_broker_once_however_often_discord_sends_it() {
    let stage = stage(|_| {}).await;
    let mut consumer = consumer(&stage).await;
    let data = json!({ "user": { "id": "7" }, "scopes": ["bot"] });
    let first = post(&stage, "APPLICATION_AUTHORIZED", &data).await;
    assert_eq!((first.status, first.body.len()), (204, 0));
    let delivery = timeout(SOON, consumer.next()).await.expect("one comes").expect("it goes on");
    assert_eq!(delivery.key, "APPLICATION_AUTHORIZED");
    let properties = &delivery.message.properties;
    assert_eq!(properties.kind.as_deref(), Some(WebhookEvent::TYPE));
    let event = WebhookEvent::decode(delivery.message.body.clone()).expect("an event");
    assert_eq!(
        (event.name.as_str(), event.application),
        ("APPLICATION_AUTHORIZED", stage.discord.bot_user())
    );
    assert_eq!(properties.message_id.as_deref(), Some(&*event.hash));
    let body: Value = serde_json::from_slice(&event.body).expect("as it was posted");
    assert_eq!(body["event"]["data"], data);
    delivery.ack();
    for _ in 0..3 {
        assert_eq!(post(&stage, "APPLICATION_AUTHORIZED", &data).await.status, 204);
    }
    // Another one comes next.
    assert_eq!(post(&stage, "ENTITLEMENT_CREATE", &json!({ "id": "1" })).await.status, 204);
    let delivery = timeout(SOON, consumer.next()).await.expect("one comes").expect("it goes on");
    assert_eq!(delivery.key, "ENTITLEMENT_CREATE");
    stage.counted(r#"holdfast_http_events_total{outcome="duplicate"}"#, 3.0).await;
    stage.counted(r#"holdfast_http_events_total{outcome="published"}"#, 2.0).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_204_and_what_nobody_wants_is_counted() {
    let stage = stage(|_| {}).await;
    let ping = json!({ "version": 1, "application_id": "7", "type": 0 }).to_string();
    let posted = stage.discord.post(&stage.url("/events"), ping.into(), &Signing::Right).await;
    assert_eq!(
        (posted.status, posted.content_type.as_str(), posted.body.len()),
        (204, "application/json", 0)
    );
    assert_eq!(post(&stage, "ENTITLEMENT_CREATE", &json!({})).await.status, 204);
    stage.counted(r#"holdfast_http_events_total{outcome="unrouted"}"#, 1.0).await;
    stage.counted(r#"holdfast_http_events_total{outcome="ping"}"#, 1.0).await;
    stage.end().await;
}

async fn post(stage: &Stage, name: &str, data: &Value) -> Posted {
    stage.discord.post_event(&stage.url("/events"), name, data, &Signing::Right).await
}

async fn consumer(stage: &Stage) -> holdfast_broker::Consumer {
    let (exchange, queue) = (stage.broker.names().webhook_events(), stage.queue());
    let topology = Topology {
        exchanges: vec![Exchange::new(&exchange, ExchangeKind::Topic)],
        queues: vec![Queue::new(&queue, QueueKind::Classic)],
        bindings: vec![Binding::queue(&exchange, &queue, "#")],
    };
    stage.broker.declare(&topology).await.expect("declared");
    stage.broker.consume(ConsumerOptions::new(queue))
}
