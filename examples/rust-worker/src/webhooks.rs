// SPDX-License-Identifier: AGPL-3.0-only
//! Messages by webhooks, through RabbitMQ and Holdfast: each webhook's in the order in which they are sent. In: a webhook
//! and JSON. Out: that RabbitMQ has it, or what Discord made of it. The rules are in docs/contract.md, "Webhook messages".

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

use crate::asking::{AskError, Asking, Refused};
use crate::rabbitmq::properties;
use crate::v1::webhook_message::Operation;
use crate::v1::{ExecuteWebhook, WebhookMessage, WebhookReply};
use crate::{SCHEMA, unix_ms};

/// The reply may be that the deadline has passed.
const MARGIN: Duration = Duration::from_secs(2);

const PUBLISH_WITHIN: Duration = Duration::from_secs(10);

/// The header says which queue it goes to, and so in which order; the key counts for nothing.
const TO: (&str, &str) = ("webhook", "");

/// What a broker keeps over its own restart.
const PERSISTENT: u8 = 2;

/// Its id and its token. For follow-ups to an interaction: those of the application and of the interaction.
#[derive(Clone)]
pub struct Webhook {
    /// The id.
    pub id: u64,
    /// A secret.
    pub token: String,
}

/// Sends messages by webhooks.
pub struct Webhooks(Asking);

impl Webhooks {
    /// See [`Asking::open`].
    ///
    /// # Errors
    /// RabbitMQ is away, or refuses.
    pub async fn open(url: &str, prefix: &str) -> Result<Self, AskError> {
        Asking::open(url, prefix).await.map(Self)
    }

    /// Comes back when RabbitMQ has it, which outlives this process and Holdfast. `key`, the idempotency key, names the
    /// message: it is sent once, however often this is called.
    ///
    /// # Errors
    /// RabbitMQ doesn't have it; with [`AskError::TimedOut`] and [`AskError::Broker`] it may.
    pub async fn send(&self, webhook: &Webhook, body: &Value, key: &str) -> Result<(), AskError> {
        let message = execute(webhook, body, key, false);
        self.0.publish(TO, &message, in_order(webhook), PUBLISH_WITHIN).await
    }

    /// Gives the message that Discord made.
    ///
    /// # Errors
    /// Discord or Holdfast says no. [`AskError::TimedOut`]: it may be sent later.
    pub async fn sent(
        &self,
        webhook: &Webhook,
        body: &Value,
        key: &str,
        within: Duration,
    ) -> Result<Value, AskError> {
        let message = WebhookMessage { deadline_ms: unix_ms(within), ..execute(webhook, body, key, true) };
        let mut answers = self.0.ask(TO, &message, in_order(webhook), within + MARGIN).await?;
        let reply: WebhookReply = answers.next().await?;
        if let Some(error) = reply.error {
            return Err(Refused::from(error).into());
        }
        let body = reply.response.unwrap_or_default().body;
        serde_json::from_slice(&body).map_err(|error| AskError::Malformed(error.into()))
    }

    /// See [`Asking::close`].
    ///
    /// # Errors
    /// It has ended already.
    pub async fn close(self) -> Result<(), AskError> {
        self.0.close().await
    }
}

/// `wait`: Discord answers with the message.
fn execute(webhook: &Webhook, body: &Value, key: &str, wait: bool) -> WebhookMessage {
    let execute = ExecuteWebhook { body: body.to_string().into_bytes(), wait, ..ExecuteWebhook::default() };
    WebhookMessage {
        schema: SCHEMA,
        webhook_id: webhook.id,
        token: webhook.token.clone(),
        idempotency_key: key.to_owned(),
        operation: Some(Operation::Execute(execute)),
        ..WebhookMessage::default()
    }
}

fn in_order(webhook: &Webhook) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("webhook".into(), AMQPValue::LongString(webhook.id.to_string().into()));
    properties::<WebhookMessage>().with_headers(headers).with_delivery_mode(PERSISTENT)
}
