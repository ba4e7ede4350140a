// SPDX-License-Identifier: AGPL-3.0-only
//! Replies that come after Discord was told to wait.

use holdfast_contract::v1::{Error, ErrorCode, InteractionReply, ReplyOutcome};
use holdfast_http::settings::{Defer, Kinds, WayKind};
use holdfast_simulator::{Press, Pressed};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Ask, Stage, Worker, command, hello, press, reply, route, stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_late_message_edits_the_deferred_one() {
    let stage = stage(quick).await;
    let mut worker = stage.worker(&["#"]).await;
    let (pressed, ask) = deferred(&stage, &mut worker, command("ping")).await;
    // To where the interaction came from, as long as that is there.
    ask.reply(hello(&ask.interaction, "at last")).await;
    let followed = stage.followed(&pressed, |followed| !followed.edits.is_empty()).await;
    assert_eq!((followed.edits, followed.follow_ups), (vec![json!({ "content": "at last" })], vec![]));
    let (pressed, ask) = deferred(&stage, &mut worker, command("ping")).await;
    ask.reply_late(hello(&ask.interaction, "at last")).await;
    let followed = stage.followed(&pressed, |followed| !followed.edits.is_empty()).await;
    assert_eq!(followed.edits.len(), 1);
    stage.counted(r#"holdfast_http_late_total{outcome="sent"}"#, 2.0).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_along_late() {
    let stage = stage(quick).await;
    let mut worker = stage.worker(&["#"]).await;
    let (pressed, ask) = deferred(&stage, &mut worker, command("ping")).await;
    let body = "--x\r\nContent-Disposition: form-data; name=\"payload_json\"\r\n\r\n{\"type\":4,\"data\":{\"content\":\"see\"}}\r\n\
        --x\r\nContent-Disposition: form-data; name=\"files[0]\"; filename=\"a.txt\"\r\n\r\nhello\r\n--x--\r\n";
    let content_type = "multipart/form-data; boundary=x".to_owned();
    ask.reply_late(InteractionReply { content_type, ..reply(&ask.interaction, body) }).await;
    let followed = stage.followed(&pressed, |followed| !followed.edits.is_empty()).await;
    assert_eq!(followed.edits, [json!({ "content": "see" })]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_component_a_late_message_follows_and_an_update_edits() {
    let stage = stage(quick).await;
    let mut worker = stage.worker(&["#"]).await;
    let (pressed, ask) = deferred(&stage, &mut worker, press(3, "vote")).await;
    let receipt = ask.reply_late_and_hear(hello(&ask.interaction, "thanks")).await;
    assert_eq!((receipt.outcome(), receipt.id), (ReplyOutcome::SentLate, pressed.id));
    assert_eq!(stage.discord.followed(&pressed.token).follow_ups, [json!({ "content": "thanks" })]);
    let (pressed, ask) = deferred(&stage, &mut worker, press(3, "vote")).await;
    let update = reply(&ask.interaction, r#"{"type":7,"data":{"content":"voted"}}"#);
    assert_eq!(ask.reply_late_and_hear(update).await.outcome(), ReplyOutcome::SentLate);
    assert_eq!(stage.discord.followed(&pressed.token).edits, [json!({ "content": "voted" })]);
    stage.end().await;
}

/// What comes too late, twice, or is no answer, is told to the worker and never reaches Discord.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_hears_why_its_late_reply_is_of_no_use() {
    let stage = stage(quick).await;
    let mut worker = stage.worker(&["#"]).await;
    let (pressed, ask) = deferred(&stage, &mut worker, command("ping")).await;
    let modal = r#"{"type":9,"data":{"custom_id":"x","title":"y","components":[{}]}}"#;
    for (body, code) in [
        (modal, ErrorCode::TooLate),
        (r#"{"type":7,"data":{}}"#, ErrorCode::InvalidArgument),
        ("nonsense", ErrorCode::InvalidArgument),
    ] {
        let receipt = ask.reply_late_and_hear(reply(&ask.interaction, body)).await;
        assert_eq!(receipt.error.map(|error| error.code()), Some(code), "{body}");
    }
    let deferral = reply(&ask.interaction, r#"{"type":5}"#);
    assert_eq!(ask.reply_late_and_hear(deferral).await.outcome(), ReplyOutcome::NothingToDo);
    assert_eq!(ask.reply_late_and_hear(hello(&ask.interaction, "1")).await.outcome(), ReplyOutcome::SentLate);
    let twice = ask.reply_late_and_hear(hello(&ask.interaction, "2")).await.error;
    assert_eq!(twice.map(|error: Error| error.code()), Some(ErrorCode::AlreadyAnswered));
    let stranger = InteractionReply { ticket: "{}".into(), ..hello(&ask.interaction, "3") };
    let receipt = ask.reply_late_and_hear(stranger).await;
    assert_eq!(receipt.error.map(|error| error.code()), Some(ErrorCode::Malformed));
    assert_eq!(stage.discord.followed(&pressed.token).edits, [json!({ "content": "1" })]);
    stage.end().await;
}

/// It was answered: what a worker says then, from a second try at the same, counts for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_after_the_answer_is_refused() {
    let stage = stage(quick).await;
    let mut worker = stage.worker(&["#"]).await;
    for kind in [2, 3] {
        let answering = async {
            let ask = worker.next().await;
            ask.reply(hello(&ask.interaction, "first")).await;
            ask
        };
        let (pressed, ask) = tokio::join!(stage.press(press(kind, "ping")), answering);
        assert_eq!(pressed.answer["data"]["content"], "first");
        let receipt = ask.reply_late_and_hear(hello(&ask.interaction, "second")).await;
        assert_eq!(receipt.error.map(|error| error.code()), Some(ErrorCode::AlreadyAnswered));
        let followed = stage.discord.followed(&pressed.token);
        assert_eq!((followed.edits.len(), followed.follow_ups.len()), (0, 0));
    }
    stage.end().await;
}

/// Which way a reply comes doesn't matter: nobody waits for it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_by_the_queue_ends_the_waiting() {
    let stage = stage(quick).await;
    let mut worker = stage.worker(&["#"]).await;
    let (_, ask) = deferred(&stage, &mut worker, command("ping")).await;
    stage.counted("holdfast_http_waiting_late", 1.0).await;
    let receipt = ask.reply_late_and_hear(hello(&ask.interaction, "by the queue")).await;
    assert_eq!(receipt.outcome(), ReplyOutcome::SentLate);
    stage.counted("holdfast_http_waiting_late", 0.0).await;
    stage.counted(r#"holdfast_http_late_total{outcome="sent"}"#, 1.0).await;
    assert!(stage.http.metric(r#"holdfast_http_late_total{outcome="none"}"#).abs() < f64::EPSILON);
    stage.end().await;
}

/// A worker that says itself that more follows isn't done with that.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_workers_own_deferral_is_sent() {
    let stage = stage(quick).await;
    let mut worker = stage.worker(&["#"]).await;
    let answering = async {
        let ask = worker.next().await;
        ask.reply(reply(&ask.interaction, r#"{"type":5}"#)).await;
        ask
    };
    let (pressed, ask) = tokio::join!(stage.press(command("think")), answering);
    assert_eq!(pressed.answer, json!({ "type": 5 }));
    let receipt = ask.reply_late_and_hear(hello(&ask.interaction, "thought")).await;
    assert_eq!(receipt.outcome(), ReplyOutcome::SentLate);
    assert_eq!(stage.discord.followed(&pressed.token).edits, [json!({ "content": "thought" })]);
    stage.end().await;
}

/// The same, to where the interaction came from, before Discord would have been told to wait.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_workers_own_deferral_at_once_is_sent() {
    let stage = stage(|_| {}).await;
    let mut worker = stage.worker(&["#"]).await;
    let answering = async {
        let ask = worker.next().await;
        ask.reply(reply(&ask.interaction, r#"{"type":6}"#)).await;
        ask.reply(reply(&ask.interaction, r#"{"type":7,"data":{"content":"voted"}}"#)).await;
    };
    let (pressed, ()) = tokio::join!(stage.press(press(3, "vote")), answering);
    assert_eq!(pressed.answer, json!({ "type": 6 }));
    let followed = stage.followed(&pressed, |followed| !followed.edits.is_empty()).await;
    assert_eq!(followed.edits, [json!({ "content": "voted" })]);
    stage.end().await;
}

/// What Holdfast would have told Discord doesn't count where the worker has told something else.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_workers_own_deferral_follows_what_it_said() {
    let stage = stage(|config| {
        quick(config);
        config.routes = vec![route(Kinds::All, "*", &[WayKind::Amqp], Defer::Never)];
    })
    .await;
    let mut worker = stage.worker(&["#"]).await;
    let answering = async {
        let ask = worker.next().await;
        ask.reply(reply(&ask.interaction, r#"{"type":6}"#)).await;
        ask
    };
    let (pressed, ask) = tokio::join!(stage.press(press(3, "vote")), answering);
    assert_eq!((pressed.answer, ask.interaction.late_until_ms), (json!({ "type": 6 }), 0));
    let update = reply(&ask.interaction, r#"{"type":7,"data":{"content":"voted"}}"#);
    let forgotten = ask.reply_late_and_hear(update.clone()).await.error;
    assert_eq!(forgotten.map(|error| error.code()), Some(ErrorCode::TooLate));
    let wrong = ask.reply_late_and_hear(InteractionReply { deferred_with: 4, ..update.clone() }).await.error;
    assert_eq!(wrong.map(|error| error.code()), Some(ErrorCode::InvalidArgument));
    let told = InteractionReply { deferred_with: 6, ..update };
    assert_eq!(ask.reply_late_and_hear(told).await.outcome(), ReplyOutcome::SentLate);
    assert_eq!(stage.discord.followed(&pressed.token).edits, [json!({ "content": "voted" })]);
    stage.end().await;
}

/// Nothing is left to answer where a worker has called Discord back itself: what it replies follows that.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_workers_own_callback_is_no_answer() {
    let stage = stage(|_| {}).await;
    let mut worker = stage.worker(&["#"]).await;
    let answering = async {
        let ask = worker.next().await;
        call_back(&stage, &ask, r#"{"type":5}"#).await;
        ask.reply(InteractionReply { deferred_with: 5, ..hello(&ask.interaction, "thought") }).await;
    };
    let (pressed, ()) = tokio::join!(stage.press(command("think")), answering);
    assert_eq!((pressed.status, pressed.failure.as_deref()), (202, None));
    let followed = stage.followed(&pressed, |followed| !followed.edits.is_empty()).await;
    assert_eq!(followed.edits, [json!({ "content": "thought" })]);
    stage.end().await;
}

/// What Discord refuses hasn't answered anything: the worker hears why, and may mend it.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_reply_that_discord_refuses_another_one_counts() {
    let stage = stage(quick).await;
    let mut worker = stage.worker(&["#"]).await;
    let (pressed, ask) = deferred(&stage, &mut worker, command("ping")).await;
    let empty = reply(&ask.interaction, r#"{"type":4,"data":{"embeds":[{}]}}"#);
    let error = ask.reply_late_and_hear(empty).await.error.expect("Discord takes no empty message");
    assert_eq!(error.code(), ErrorCode::RefusedByDiscord);
    assert!(error.message.contains("400"), "{}", error.message);
    let receipt = ask.reply_late_and_hear(hello(&ask.interaction, "full")).await;
    assert_eq!(receipt.outcome(), ReplyOutcome::SentLate);
    assert_eq!(stage.discord.followed(&pressed.token).edits, [json!({ "content": "full" })]);
    stage.end().await;
}

/// Choices for a word that isn't being typed any more are of no use.
#[tokio::test(flavor = "multi_thread")]
async fn late_choices_are_told_to_be_too_late() {
    let stage = stage(quick).await;
    let mut worker = stage.worker(&["#"]).await;
    let (pressed, ask) = tokio::join!(stage.press(press(4, "ping")), worker.next());
    assert_eq!(pressed.answer, json!({ "type": 8, "data": { "choices": [] } }));
    assert_eq!(ask.interaction.late_until_ms, 0);
    let choices = reply(&ask.interaction, r#"{"type":8,"data":{"choices":[]}}"#);
    let receipt = ask.reply_late_and_hear(choices).await;
    assert_eq!(receipt.error.map(|error| error.code()), Some(ErrorCode::TooLate));
    stage.end().await;
}

/// The process that deferred is gone: another one sends what the worker says later.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_reply_survives_a_restart() {
    let mut stage = stage(quick).await;
    let mut worker = stage.worker(&["#"]).await;
    let (pressed, ask) = deferred(&stage, &mut worker, command("ping")).await;
    stage.http.end().await;
    ask.reply_late(hello(&ask.interaction, "after all")).await;
    stage.restart(quick).await;
    let followed = stage.followed(&pressed, |followed| !followed.edits.is_empty()).await;
    assert_eq!(followed.edits, [json!({ "content": "after all" })]);
    stage.end().await;
}

/// Answers by Discord's REST API.
async fn call_back(stage: &Stage, ask: &Ask, response: &str) {
    let base = stage.discord.api_url().strip_prefix("http://").expect("without TLS");
    let (host, path) = base.split_once('/').expect("a path");
    let (id, token) = (ask.interaction.id, ask.body()["token"].as_str().expect("a token").to_owned());
    let request = format!(
        "POST /{path}/interactions/{id}/{token}/callback HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{response}",
        response.len()
    );
    let mut discord = TcpStream::connect(host).await.expect("it listens");
    discord.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    discord.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

/// Discord is told to wait soon.
fn quick(config: &mut holdfast_http::Config) {
    config.answer_within = std::time::Duration::from_millis(150);
}

/// A user does this, the worker has it, and Discord is told to wait.
async fn deferred(stage: &Stage, worker: &mut Worker, press: Press) -> (Pressed, Ask) {
    let (pressed, ask) = tokio::join!(stage.press(press), worker.next());
    assert!(matches!(pressed.answer["type"].as_u64(), Some(5 | 6)), "{pressed:?}");
    assert_eq!(pressed.failure, None);
    (pressed, ask)
}
