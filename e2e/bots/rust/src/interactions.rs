// SPDX-License-Identifier: AGPL-3.0-only
//! Answers what Discord posts with handlers that are slow, say nonsense or say it twice, and takes webhook events. In: both.
//! Out: reports of what arrives.

use std::future::pending;
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use holdfast_rust_worker::BoxError;
use holdfast_rust_worker::interactions::{Asked, serve};
use holdfast_rust_worker::rabbitmq::connect;
use holdfast_rust_worker::v1::WebhookEvent;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::{report, text, watch_input};

const KEYS: &[&str] = &[
    "command.ping",
    "command.form",
    "component.vote",
    "autocomplete.find",
    "modal.form",
    "command.after-1",
    "command.after-2.5",
    "command.after-10",
    "component.after-2.5",
    "autocomplete.after-2.5",
    "command.never",
    "command.told",
    "command.twice",
    "command.twice-late",
    "command.again",
    "component.again",
    "command.nonsense",
    "command.deferring",
    "component.deferring",
];

pub(crate) async fn run(settings: &Value) -> Result<()> {
    let (url, prefix) = (text(settings, "url"), text(settings, "prefix"));
    let (teller, told) = watch::channel(false);
    watch_input(teller);
    let queue = format!("{prefix}.interactions.worker");
    let answering = serve(url, &queue, prefix, KEYS, async |asked: &mut Asked| {
        report("asked", json!({ "key": asked.key, "id": asked.data["id"] }));
        answer(asked, told.clone()).await
    });
    tokio::select! { biased;
        taken = take_events(url, prefix) => taken,
        never = answering => never,
    }
}

async fn answer(asked: &mut Asked, mut told: watch::Receiver<bool>) -> Result<Option<Value>, BoxError> {
    let response = match asked.key.as_str() {
        "command.ping" => message("pong"),
        "command.form" => form(),
        "component.vote" => json!({ "type": 7, "data": { "content": "voted" } }),
        "autocomplete.find" => find(&asked.data),
        "modal.form" => message("read"),
        "command.after-1" => after(1_000, message("after 1 s")).await,
        "command.after-2.5" => after(2_500, message("after 2.5 s")).await,
        "command.after-10" => after(10_000, message("after 10 s")).await,
        "component.after-2.5" => {
            after(2_500, json!({ "type": 7, "data": { "content": "voted late" } })).await
        }
        "autocomplete.after-2.5" => after(2_500, json!({ "type": 8, "data": { "choices": [] } })).await,
        "command.never" => pending().await,
        "command.told" => {
            told.wait_for(|told| *told).await?;
            message("as told")
        }
        "command.twice" => reply_first(asked, message("once"), 0, message("twice")).await?,
        "command.twice-late" => {
            sleep(Duration::from_millis(2_500)).await;
            // Which of two goes first that are there before Discord has the deferral isn't said.
            reply_first(asked, message("once"), 1_000, message("twice")).await?
        }
        "command.again" | "component.again" => {
            reply_first(asked, message("once"), 2_500, message("again")).await?
        }
        // An update answers no command.
        "command.nonsense" => reply_first(asked, json!({ "type": 7 }), 2_500, message("sense")).await?,
        "command.deferring" | "component.deferring" => {
            let waiting = json!({ "type": 5, "data": { "flags": 64 } });
            reply_first(asked, waiting, 100, message("deferred")).await?
        }
        other => return Err(format!("{other} isn't among the keys").into()),
    };
    Ok(Some(response))
}

fn message(content: &str) -> Value {
    json!({ "type": 4, "data": { "content": content } })
}

fn form() -> Value {
    let word = json!({ "type": 4, "custom_id": "word", "label": "A word", "style": 1 });
    let row = json!({ "type": 1, "components": [word] });
    json!({ "type": 9, "data": { "custom_id": "form", "title": "A form", "components": [row] } })
}

fn find(data: &Value) -> Value {
    let typed = data["data"]["options"][0]["value"].as_str().unwrap_or_default();
    let word = format!("{typed}llo");
    json!({ "type": 8, "data": { "choices": [{ "name": word, "value": word }] } })
}

async fn after(ms: u64, response: Value) -> Value {
    sleep(Duration::from_millis(ms)).await;
    response
}

/// Says something before what it gives.
async fn reply_first(asked: &mut Asked, first: Value, ms: u64, then: Value) -> Result<Value, BoxError> {
    asked.reply(&first).await?;
    Ok(after(ms, then).await)
}

/// Webhook events, each acknowledged when it has been handled.
async fn take_events(url: &str, prefix: &str) -> Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let queue = ShortString::from(format!("{prefix}.webhook-events.worker"));
    let none = FieldTable::default;
    channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), none()).await?;
    let exchange = ShortString::from(format!("{prefix}.webhook-events"));
    channel.queue_bind(queue.clone(), exchange, "#".into(), QueueBindOptions::default(), none()).await?;
    let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
    let mut deliveries = channel.basic_consume(queue, tag, options, none()).await?;
    report("bound", json!({}));
    while let Some(Ok(delivery)) = deliveries.next().await {
        let event = WebhookEvent::decode(delivery.data.as_slice())?;
        let data: Value = serde_json::from_slice(&event.body)?;
        let known = delivery.properties.message_id().as_ref().is_some_and(|id| id.as_str() == event.hash);
        let kind = delivery.properties.kind().as_ref().map(ShortString::as_str);
        let data = &data["event"]["data"];
        report("event", json!({ "type": kind, "name": event.name, "data": data, "known": known }));
        delivery.ack(BasicAckOptions::default()).await?;
    }
    // The scenario cuts it off: what it wanted to know of events comes before that.
    pending().await
}
