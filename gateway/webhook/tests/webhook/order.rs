// SPDX-License-Identifier: AGPL-3.0-only
//! What is done, in which order, and what the worker hears of it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use holdfast_contract::v1::{
    ErrorCode, ExecuteWebhook, WebhookFile, webhook_file, webhook_message::Operation,
};
use holdfast_simulator::RestFault;

use super::stage::{Stage, TRACE, delete, edit, limited, of, outcome, say, until};

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_each_webhook_go_in_order_over_rabbitmq() {
    in_order(Stage::rabbit(|limits| limited(limits, 5, 0.5)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_each_webhook_go_in_order_in_memory() {
    in_order(Stage::memory(|limits| limited(limits, 5, 0.5)).await).await;
}

async fn in_order(stage: Stage) {
    let webhook = stage.start().await;
    let texts: Vec<_> = (0..12).map(|number| number.to_string()).collect();
    // One after the other into the broker, so that there is an order.
    for text in &texts {
        for id in [7, 8, 9] {
            stage.tell(say(id, text)).await;
        }
    }
    let last = join_all([7, 8, 9].map(|id| stage.ask(say(id, "last")))).await;
    for (reply, id) in last.iter().zip([7, 8, 9]) {
        assert_eq!((outcome(reply), reply.webhook_id), ((None, Some(200)), id));
        let body = &reply.response.as_ref().expect("an answer").body;
        let message: serde_json::Value = serde_json::from_slice(body).expect("the message");
        assert_eq!(message["content"], "last");
        assert_eq!(stage.said(id)[..12], texts);
    }
    let refused = stage.discord.requests().iter().filter(|request| request.status == 429).count();
    assert_eq!(refused, 0);
    // Counted behind the reply.
    let done = r#"holdfast_webhook_messages_total{operation="execute",outcome="DONE"}"#;
    until(|| webhook.metric(done) == 39.0).await;
    webhook.stop().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_edited_and_deleted() {
    let stage = Stage::memory(|_| {}).await;
    let _webhook = stage.start().await;
    stage.ask(say(7, "first")).await;
    let id = stage.discord.webhook_messages()[0].id;
    assert_eq!(outcome(&stage.ask(edit(7, id, "second")).await), (None, Some(200)));
    assert_eq!(stage.said(7), ["second"]);
    assert_eq!(outcome(&stage.ask(delete(7, id)).await), (None, Some(204)));
    let traces: Vec<_> = stage.discord.requests().into_iter().map(|request| request.trace).collect();
    assert_eq!(traces, [TRACE; 3]);
    assert!(stage.said(7).is_empty());
    // One missing message is no dead webhook.
    let missing = stage.ask(edit(7, id, "third")).await;
    assert_eq!(outcome(&missing), (Some(ErrorCode::RefusedByDiscord), Some(404)));
    assert_eq!(outcome(&stage.ask(say(7, "on")).await), (None, Some(200)));
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_and_files_go_with_it() {
    let stage = Stage::memory(|_| {}).await;
    let _webhook = stage.start().await;
    let content = Some(webhook_file::Content::Data(vec![7; 1_000].into()));
    let file = WebhookFile { name: "a.bin".to_owned(), content_type: String::new(), content };
    let execute =
        ExecuteWebhook { body: r#"{"content":"x"}"#.into(), files: vec![file], ..Default::default() };
    let mut message = of(7, Operation::Execute(execute));
    message.thread_id = 99;
    // Nobody waits for the message.
    assert_eq!(outcome(&stage.ask(message).await), (None, Some(204)));
    let sent = stage.discord.webhook_messages().remove(0);
    assert_eq!((sent.thread, &sent.body["content"]), (Some(99), &"x".into()));
    assert_eq!(sent.files, [("a.bin".to_owned(), vec![7; 1_000].into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_limited_holds_up_no_other_and_waits_within_bounds() {
    let mut stage = Stage::rabbit(|_| {}).await;
    let webhook = stage.start_as(|config| (config.partitions, config.parked) = (1, 2)).await;
    stage.discord.rest_fault(RestFault::Shared { seconds: 2.0 });
    stage.tell(say(7, "held")).await;
    until(|| webhook.metric("holdfast_rest_limited_total{scope=\"shared\"}") == 1.0).await;
    for number in 0..2 {
        stage.tell(say(7, &number.to_string())).await;
    }
    until(|| webhook.metric("holdfast_webhook_parked") == 2.0).await;
    let (begun, before) = (Instant::now(), stage.discord.requests().len());
    let full = stage.ask(say(7, "too many")).await;
    assert_eq!(outcome(&full), (Some(ErrorCode::QueueFull), None));
    assert_eq!(stage.dead().await.1, "QUEUE_FULL");
    assert_eq!(outcome(&stage.ask(say(8, "free")).await), (None, Some(200)));
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    assert_eq!(stage.discord.requests().len(), before + 1);
    assert_eq!(outcome(&stage.ask(say(8, "free")).await), (None, Some(200)));
    until(|| stage.said(7) == ["held", "0", "1"]).await;
    until(|| webhook.metric("holdfast_webhook_parked") == 0.0).await;
    assert_eq!(webhook.metric("holdfast_webhook_parked_bytes"), 0.0);
    webhook.stop().await;
    stage.end().await;
}
