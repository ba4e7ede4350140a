// SPDX-License-Identifier: AGPL-3.0-only
//! Interactions that are answered in time, or about which Discord is told to wait.

use holdfast_contract::v1::InteractionReply;
use holdfast_http::settings::{Defer, Kinds, WayKind};
use holdfast_simulator::Press;
use serde_json::json;

use crate::support::{command, hello, press, reply, route, stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_reply_is_the_answer_byte_for_byte() {
    let stage = stage(|_| {}).await;
    let mut worker = stage.worker(&["command.ping"]).await;
    let guild = stage.discord.guilds(0, 1)[0];
    let pressing = stage.press(Press { guild: Some(guild), ..command("ping") });
    let answering = async {
        let ask = worker.next().await;
        assert_eq!(ask.key(), "command.ping");
        let interaction = &ask.interaction;
        assert_eq!((interaction.kind, &*interaction.name, interaction.guild_id), (2, "ping", guild));
        assert_eq!(ask.body()["member"]["user"]["username"], "presser");
        assert!(interaction.answer_by_ms < interaction.late_until_ms);
        assert!(!format!("{interaction:?}").contains("interaction-token"), "a token is shown");
        ask.reply(reply(interaction, r#"{"type" : 4, "data":{"content":"pong","new_field":[1]}}"#)).await;
        ask.interaction
    };
    let (pressed, interaction) = tokio::join!(pressing, answering);
    assert_eq!((pressed.status, pressed.failure, pressed.id), (200, None, interaction.id));
    assert_eq!(pressed.answer, json!({ "type": 4, "data": { "content": "pong", "new_field": [1] } }));
    let line = r#"holdfast_http_interactions_total{kind="command",outcome="answered"}"#;
    stage.counted(line, 1.0).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_through() {
    let stage = stage(|_| {}).await;
    let mut worker = stage.worker(&["#"]).await;
    let answering = async {
        let ask = worker.next().await;
        let body = "--x\r\nContent-Disposition: form-data; name=\"payload_json\"\r\n\r\n{\"type\":4,\"data\":{}}\r\n\
            --x\r\nContent-Disposition: form-data; name=\"files[0]\"; filename=\"a.txt\"\r\n\r\nhello\r\n--x--\r\n";
        let content_type = "multipart/form-data; boundary=x".to_owned();
        ask.reply(InteractionReply { content_type, ..reply(&ask.interaction, body) }).await;
    };
    let (pressed, ()) = tokio::join!(stage.press(command("ping")), answering);
    assert_eq!((pressed.status, pressed.failure), (200, None));
    assert_eq!(pressed.content_type, "multipart/form-data; boundary=x");
    stage.end().await;
}

/// By kind: what Discord is told when there is no worker.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_discord_is_told_what_fits() {
    let stage = stage(|config| {
        config.routes.insert(0, route(Kinds::All, "secret", &[WayKind::Amqp], Defer::Ephemeral));
        config.routes.insert(0, route(Kinds::All, "now", &[WayKind::Amqp], Defer::Never));
    })
    .await;
    let alone = json!({ "type": 5, "data": { "flags": 64 } });
    for (pressed, expected) in [
        (press(2, "ping"), json!({ "type": 5 })),
        (press(3, "vote:7"), json!({ "type": 6 })),
        (press(4, "ping"), json!({ "type": 8, "data": { "choices": [] } })),
        (press(5, "form"), json!({ "type": 5 })),
        (Press { message: true, ..press(5, "form") }, json!({ "type": 6 })),
        (press(2, "secret"), alone.clone()),
        (press(3, "secret:7"), alone),
    ] {
        let (kind, pressed) = (pressed.kind, stage.press(pressed).await);
        assert_eq!(
            (pressed.status, &pressed.answer, &pressed.failure),
            (200, &expected, &None),
            "kind {kind}"
        );
    }
    assert_eq!(stage.press(command("now")).await.status, 504);
    let line = r#"holdfast_http_deferred_total{cause="no_worker"}"#;
    stage.counted(line, 8.0).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_worker_is_waited_for_and_discord_is_not_kept_waiting() {
    let stage = stage(|_| {}).await;
    let mut worker = stage.worker(&["#"]).await;
    // It has the interaction, and says nothing.
    let (pressed, ask) = tokio::join!(stage.press(command("ping")), worker.next());
    assert_eq!((pressed.answer, pressed.failure), (json!({ "type": 5 }), None));
    assert!((2_000..2_900).contains(&pressed.took_ms), "{} ms", pressed.took_ms);
    drop(ask);
    let line = r#"holdfast_http_deferred_total{cause="slow"}"#;
    stage.counted(line, 1.0).await;
    stage.end().await;
}

/// The worker that binds for one kind and name gets only that.
#[tokio::test(flavor = "multi_thread")]
async fn workers_bind_by_kind_and_name() {
    let stage = stage(|_| {}).await;
    let mut votes = stage.worker(&["component.vote"]).await;
    let mut commands = stage.worker(&["command.*"]).await;
    let voting = async {
        let ask = votes.next().await;
        assert_eq!((ask.key(), &*ask.interaction.name), ("component.vote", "vote:7:yes"));
        ask.reply(reply(&ask.interaction, r#"{"type":7,"data":{"content":"voted"}}"#)).await;
    };
    let (pressed, ()) = tokio::join!(stage.press(press(3, "vote:7:yes")), voting);
    assert_eq!((pressed.answer["type"].as_u64(), pressed.failure), (Some(7), None));
    let commanding = async {
        let ask = commands.next().await;
        ask.reply(hello(&ask.interaction, "done")).await;
    };
    let (pressed, ()) = tokio::join!(stage.press(command("ping")), commanding);
    assert_eq!(pressed.answer["data"]["content"], "done");
    stage.end().await;
}

/// Discord gets something that fits; the worker learns why, and may still say something better.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_no_answer_becomes_a_deferral() {
    let stage = stage(|_| {}).await;
    let mut worker = stage.worker(&["#"]).await;
    for nonsense in [r#"{"type":6}"#, r#"{"type":8,"data":{"choices":[]}}"#, "hello", "", r#"{"type":4}"#] {
        let answering = async {
            let ask = worker.next().await;
            ask.reply(reply(&ask.interaction, nonsense)).await;
            ask
        };
        let (pressed, ask) = tokio::join!(stage.press(command("ping")), answering);
        assert_eq!(
            (pressed.answer.clone(), pressed.failure.clone()),
            (json!({ "type": 5 }), None),
            "{nonsense}"
        );
        assert!(pressed.took_ms < 1_500, "{nonsense}: at once");
        ask.reply(hello(&ask.interaction, "better")).await;
        let followed = stage.followed(&pressed, |followed| !followed.edits.is_empty()).await;
        assert_eq!(followed.edits, [json!({ "content": "better" })]);
    }
    let line = r#"holdfast_http_deferred_total{cause="invalid"}"#;
    stage.counted(line, 5.0).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_at_once_are_all_answered_in_time() {
    let stage = stage(|_| {}).await;
    let workers = [stage.worker(&["#"]).await, stage.worker(&["nothing"]).await];
    let tasks = workers.map(|worker| worker.answer_all(r#"{"type":4,"data":{"content":"pong"}}"#));
    let all = (0..1_000).map(|_| stage.press(command("ping")));
    for pressed in futures_util::future::join_all(all).await {
        assert_eq!((pressed.status, pressed.failure), (200, None));
        assert_eq!(pressed.answer["data"]["content"], "pong");
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let line = r#"holdfast_http_interactions_total{kind="command",outcome="answered"}"#;
    stage.counted(line, 1_000.0).await;
    stage.end().await;
}
