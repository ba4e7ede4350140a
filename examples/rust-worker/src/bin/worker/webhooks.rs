// SPDX-License-Identifier: AGPL-3.0-only
//! Sends two messages by a webhook, in order: for the first one it waits until RabbitMQ has it, for the second one until
//! Discord has.

use std::time::Duration;

use anyhow::Result;
use holdfast_rust_worker::webhooks::{Webhook, Webhooks};
use serde_json::json;

pub(crate) async fn run(url: &str, prefix: &str, id: u64, token: &str, text: &str) -> Result<()> {
    let webhooks = Webhooks::open(url, prefix).await?;
    let webhook = Webhook { id, token: token.to_owned() };
    webhooks.send(&webhook, &json!({ "content": "And now:" }), &format!("before {text}")).await?;
    let message = webhooks.sent(&webhook, &json!({ "content": text }), text, Duration::from_secs(60)).await?;
    println!("message {}", message["id"].as_str().unwrap_or_default());
    Ok(webhooks.close().await?)
}
