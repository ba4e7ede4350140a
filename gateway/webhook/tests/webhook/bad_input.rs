// SPDX-License-Identifier: AGPL-3.0-only
//! Messages that can't be sent: each is answered, set aside, and harms no other.

use holdfast_broker::{HEADER_WEBHOOK, Message, Publication};
use holdfast_contract::v1::{
    ErrorCode, ExecuteWebhook, WebhookFile, WebhookReply, webhook_file, webhook_message::Operation,
};

use super::stage::{SOON, Stage, of, outcome, say};

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_use_is_set_aside_and_the_queue_goes_on() {
    let mut stage = Stage::rabbit(|_| {}).await;
    let webhook = stage.start().await;
    let bodies = [
        (Message::new("holdfast.v1.WebhookMessage", vec![0xff; 9]), "MALFORMED"),
        (Message::new("something", "else"), "UNSUPPORTED"),
        (Message::of(&say(0, "x")), "INVALID_ARGUMENT"),
    ];
    for (message, reason) in bodies {
        let message = message.header(HEADER_WEBHOOK, "7");
        let publication = Publication::new(stage.broker.names().webhook(), "", message);
        let reply = stage.worker.request(publication, SOON).await.expect("a reply");
        let reply: WebhookReply = reply.decode(usize::MAX).expect("a WebhookReply");
        assert_eq!(reply.error.map(|error| error.code().name()), Some(reason));
        assert_eq!(stage.dead().await.1, reason);
    }
    assert_eq!(outcome(&stage.ask(say(7, "x")).await), (None, Some(200)));
    webhook.stop().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_discord_refuses_is_told_with_its_answer() {
    let mut stage = Stage::memory(|_| {}).await;
    let _webhook = stage.start().await;
    let empty = of(7, Operation::Execute(ExecuteWebhook::default()));
    let refused = stage.ask(empty).await;
    assert_eq!(outcome(&refused), (Some(ErrorCode::RefusedByDiscord), Some(400)));
    let body = refused.response.expect("an answer").body;
    assert!(String::from_utf8_lossy(&body).contains("50006"));
    assert_eq!(stage.dead().await.1, "REFUSED_BY_DISCORD");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_no_upload_is_not_asked() {
    let stage = Stage::memory(|_| {}).await;
    let _webhook = stage.start().await;
    let url = stage.discord.api_url().replace("/api/v10", "/control");
    let file = WebhookFile { content: Some(webhook_file::Content::Upload(url)), ..WebhookFile::default() };
    let execute = ExecuteWebhook { files: vec![file], ..ExecuteWebhook::default() };
    let refused = stage.ask(of(7, Operation::Execute(execute))).await;
    assert_eq!(outcome(&refused), (Some(ErrorCode::UnknownUpload), None));
    assert!(stage.discord.requests().is_empty());
}
