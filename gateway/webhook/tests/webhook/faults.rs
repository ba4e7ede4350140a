// SPDX-License-Identifier: AGPL-3.0-only
//! Discord in trouble, and webhooks that are gone.

use std::time::Duration;

use holdfast_contract::v1::{ErrorCode, WebhookMessage};
use holdfast_simulator::RestFault;

use super::stage::{Stage, delete, edit, outcome, say, unix_ms, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_429_out_of_the_blue_is_waited_out() {
    let stage = Stage::memory(|_| {}).await;
    let _webhook = stage.start_as(|config| config.limits.attempts = 1).await;
    stage.discord.rest_fault(RestFault::Global { seconds: 0.4 });
    assert_eq!(outcome(&stage.ask(say(7, "x")).await), (None, Some(200)));
    let statuses: Vec<_> = stage.discord.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [429, 200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_done_is_sent_again_only_if_it_may_be_done_twice() {
    let mut stage = Stage::memory(|_| {}).await;
    let _webhook = stage.start().await;
    for fault in [RestFault::HangUp, RestFault::Status { status: 502 }] {
        stage.discord.rest_fault(fault);
        let lost = stage.ask(say(7, "x")).await;
        assert_eq!(outcome(&lost).0, Some(ErrorCode::NoAnswer), "{fault:?}");
        assert_eq!(stage.dead().await.1, "NO_ANSWER");
        assert!(stage.said(7).is_empty());
    }
    stage.ask(say(7, "x")).await;
    let id = stage.discord.webhook_messages()[0].id;
    stage.discord.rest_fault(RestFault::Status { status: 502 });
    assert_eq!(outcome(&stage.ask(edit(7, id, "y")).await), (None, Some(200)));
    stage.discord.rest_fault(RestFault::HangUp);
    assert_eq!(outcome(&stage.ask(delete(7, id)).await), (None, Some(204)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_when_it_is_deleted_once_more_was_deleted() {
    let stage = Stage::memory(|_| {}).await;
    let _webhook = stage.start().await;
    stage.ask(say(7, "x")).await;
    let id = stage.discord.webhook_messages()[0].id;
    stage.discord.rest_fault(RestFault::LoseAnswer);
    assert_eq!(outcome(&stage.ask(delete(7, id)).await), (None, Some(404)));
    assert!(stage.said(7).is_empty());
    stage.discord.rest_fault(RestFault::Status { status: 502 });
    assert_eq!(outcome(&stage.ask(delete(7, id)).await), (None, Some(404)));
    // Nobody has tried before.
    let missing = stage.ask(delete(7, id)).await;
    assert_eq!(outcome(&missing), (Some(ErrorCode::RefusedByDiscord), Some(404)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_gone_stops_and_the_sender_is_told() {
    let mut stage = Stage::memory(|_| {}).await;
    let _webhook = stage.start().await;
    stage.discord.delete_webhook(7);
    let gone = stage.ask(say(7, "x")).await;
    assert_eq!(outcome(&gone), (Some(ErrorCode::WebhookGone), Some(404)));
    for _ in 0..3 {
        assert_eq!(outcome(&stage.ask(say(7, "x")).await), (Some(ErrorCode::WebhookGone), None));
    }
    let (letter, reason) = stage.dead().await;
    let dead: WebhookMessage = letter.message.decode(usize::MAX).expect("as it was sent");
    assert_eq!((reason.as_str(), dead), ("WEBHOOK_GONE", say(7, "x")));
    assert_eq!(stage.discord.requests().len(), 1);
    assert_eq!(outcome(&stage.ask(say(8, "x")).await), (None, Some(200)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stands_still_holds_nobody_up() {
    let stage = Stage::memory(|_| {}).await;
    let _webhook = stage.start_as(|config| config.upstream_timeout = Duration::from_millis(300)).await;
    stage.discord.rest_fault(RestFault::Stall);
    let (half, next) = tokio::join!(stage.ask(say(7, "x")), stage.ask(say(7, "y")));
    assert_eq!((outcome(&half), outcome(&next)), ((None, Some(200)), (None, Some(200))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_late_behind_others_is_not_sent() {
    let mut stage = Stage::memory(|_| {}).await;
    let webhook = stage.start().await;
    stage.discord.rest_fault(RestFault::Shared { seconds: 1.0 });
    stage.tell(say(7, "held")).await;
    until(|| webhook.metric("holdfast_rest_limited_total{scope=\"shared\"}") == 1.0).await;
    let late = stage.ask(WebhookMessage { deadline_ms: unix_ms() + 200, ..say(7, "late") }).await;
    assert_eq!(outcome(&late), (Some(ErrorCode::DeadlineExceeded), None));
    assert_eq!(stage.dead().await.1, "DEADLINE_EXCEEDED");
    assert_eq!(stage.said(7), ["held"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn discord_out_of_reach_is_tried_until_the_deadline() {
    let mut stage = Stage::memory(|_| {}).await;
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/api/v10", nowhere.local_addr().expect("bound"));
    drop(nowhere);
    let webhook =
        stage.start_as(|config| (config.api_url, config.max_wait) = (url, Duration::from_secs(2))).await;
    let late = stage.ask(say(7, "x")).await;
    assert_eq!(outcome(&late), (Some(ErrorCode::DeadlineExceeded), None));
    assert!(late.error.expect("one").message.contains("reached"));
    assert!(webhook.metric("holdfast_webhook_retried_total") >= 1.0);
    assert_eq!(stage.dead().await.1, "DEADLINE_EXCEEDED");
}
