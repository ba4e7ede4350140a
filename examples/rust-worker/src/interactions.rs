// SPDX-License-Identifier: AGPL-3.0-only
//! Answers what users do: commands, buttons, modals, as Discord posts them to Holdfast. In: a handler, and the routing keys
//! of what it answers. Out: its responses. The rules are in docs/contract.md, "Interactions by AMQP".

use std::convert::Infallible;
use std::time::Duration;

use futures_util::TryStreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Confirmation, Connection, Consumer};
use prost::Message;
use serde_json::Value;
use tokio::time::sleep;

use crate::rabbitmq::{PAUSE, connect, ended, is, properties, soon};
use crate::v1::{Interaction, InteractionReply};
use crate::{BoxError, SCHEMA, unix_ms};

/// Handled at once, all of them by one task: what computes for long belongs into `tokio::task::spawn_blocking`.
const AT_ONCE: u16 = 64;

/// What waits here at most when no worker runs: each goes by itself when nobody can answer it any more.
const MAX_LENGTH: i64 = 10_000;

/// What a broker keeps over its own restart.
const PERSISTENT: u8 = 2;

/// Responses that say that more follows ("Interaction Callback Type" in Discord's documentation).
const DEFERRALS: [u64; 2] = [5, 6];

/// An interaction that waits for its answer.
pub struct Asked {
    /// What it is: `command.ping`, `component.vote` and so on.
    pub key: String,
    /// Discord's JSON. It holds a token: don't log it.
    pub data: Value,
    interaction: Interaction,
    reply_to: ShortString,
    correlation_id: ShortString,
    /// The queue of late replies.
    late: ShortString,
    channel: Channel,
    /// The type of the response by which this worker has told Discord to wait.
    deferred_with: Option<u32>,
}

/// A reply that wasn't sent.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// Nothing can be made of it any more.
    #[error("it is too late for a reply")]
    TooLate,
    /// The queue of late replies isn't there: `http` has never run, or not with this prefix.
    #[error("no queue takes late replies")]
    NoQueue,
    /// RabbitMQ can't take it, or the connection failed.
    #[error(transparent)]
    Broker(#[from] lapin::Error),
}

impl Asked {
    fn new(delivery: &Delivery, channel: &Channel, prefix: &str) -> Result<Self, BoxError> {
        let interaction = Interaction::decode(delivery.data.as_slice())?;
        Ok(Self {
            key: delivery.routing_key.to_string(),
            data: serde_json::from_slice(&interaction.body)?,
            interaction,
            reply_to: delivery.properties.reply_to().clone().unwrap_or_default(),
            correlation_id: delivery.properties.correlation_id().clone().unwrap_or_default(),
            late: format!("{prefix}.interactions.late").into(),
            channel: channel.clone(),
            deferred_with: None,
        })
    }

    /// Replies with an interaction response, `type` and `data`, as Discord's documentation has it.
    ///
    /// One of type 5 or 6 tells Discord to wait, by your own choice and with your own flags; the next reply then becomes
    /// the message, or the update, that was promised. Without one, Holdfast tells Discord to wait when it is time to.
    ///
    /// # Errors
    /// It wasn't sent.
    pub async fn reply(&mut self, response: &Value) -> Result<(), ReplyError> {
        let now = unix_ms(Duration::ZERO);
        // In time: straight to who asked, as the answer. Later, Discord has been told to wait, and the reply goes to a
        // queue that outlives who asked.
        let is_answer = self.deferred_with.is_none() && now < self.interaction.answer_by_ms;
        if !is_answer && self.deferred_with.is_none() && now >= self.interaction.late_until_ms {
            return Err(ReplyError::TooLate);
        }
        let reply = InteractionReply {
            schema: SCHEMA,
            ticket: self.interaction.ticket.clone(),
            body: response.to_string().into_bytes(),
            deferred_with: self.deferred_with.unwrap_or_default(),
            ..InteractionReply::default()
        };
        self.publish(&reply, is_answer).await?;
        if is_answer {
            self.deferred_with = deferral(response);
        }
        Ok(())
    }

    async fn publish(&self, reply: &InteractionReply, is_answer: bool) -> Result<(), ReplyError> {
        let to = if is_answer { &self.reply_to } else { &self.late };
        let properties = properties::<InteractionReply>()
            .with_correlation_id(self.correlation_id.clone())
            .with_delivery_mode(PERSISTENT);
        // Only a queue can be: RabbitMQ returns what goes to a direct reply-to so.
        let options = BasicPublishOptions { mandatory: !is_answer, ..BasicPublishOptions::default() };
        let (exchange, body) = (ShortString::default(), reply.encode_to_vec());
        let published = self.channel.basic_publish(exchange, to.clone(), options, &body, properties).await?;
        match published.await? {
            // This one or another one of this channel: all that can come back are late replies.
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Err(ReplyError::NoQueue),
            Confirmation::Nack(None) => Err(ended().into()),
            Confirmation::Ack(None) | Confirmation::NotRequested => Ok(()),
        }
    }
}

/// The type of a response that says that more follows.
fn deferral(response: &Value) -> Option<u32> {
    let kind = response["type"].as_u64().filter(|kind| DEFERRALS.contains(kind))?;
    u32::try_from(kind).ok()
}

/// Answers what comes with these routing keys, such as `command.ping` or `component.vote`. `handle` gives the response, or
/// none if it has replied itself. Connects again whenever the connection ends: what was under way then is given up, and
/// comes again.
pub async fn serve(
    url: &str,
    queue: &str,
    prefix: &str,
    keys: &[&str],
    handle: impl AsyncFn(&mut Asked) -> Result<Option<Value>, BoxError>,
) -> ! {
    loop {
        match session(url, queue, prefix, keys, &handle).await {
            Ok(never) => match never {},
            Err(error) => eprintln!("no connection to RabbitMQ: {error}"),
        }
        sleep(PAUSE).await;
    }
}

/// One connection, from its beginning to its end, which is always an error.
async fn session(
    url: &str,
    queue: &str,
    prefix: &str,
    keys: &[&str],
    handle: &impl AsyncFn(&mut Asked) -> Result<Option<Value>, BoxError>,
) -> Result<Infallible, BoxError> {
    let (_connection, channel, deliveries) = soon(open(url, queue, prefix, keys)).await?;
    let answering = deliveries.map_err(BoxError::from).try_for_each_concurrent(None, async |delivery| {
        if is::<Interaction>(&delivery) {
            answer(Asked::new(&delivery, &channel, prefix)?, handle).await?;
        }
        // What isn't acknowledged comes again with the next connection.
        delivery.ack(BasicAckOptions::default()).await?;
        Ok(())
    });
    answering.await?;
    Err(ended().into())
}

async fn open(
    url: &str,
    queue: &str,
    prefix: &str,
    keys: &[&str],
) -> lapin::Result<(Connection, Channel, Consumer)> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_qos(AT_ONCE, BasicQosOptions::default()).await?;
    declare(&channel, queue, prefix, keys).await?;
    let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
    let deliveries = channel.basic_consume(queue.into(), tag, options, FieldTable::default()).await?;
    Ok((connection, channel, deliveries))
}

/// A queue that is durable, so that what comes while no worker runs waits.
async fn declare(channel: &Channel, queue: &str, prefix: &str, keys: &[&str]) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(MAX_LENGTH));
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
    let exchange = ShortString::from(format!("{prefix}.interactions"));
    for key in keys {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(queue.into(), exchange.clone(), (*key).into(), options, none).await?;
    }
    Ok(())
}

/// Handle it, reply; whoever called acknowledges it. What comes again after a crash is handled again.
async fn answer(
    mut asked: Asked,
    handle: &impl AsyncFn(&mut Asked) -> Result<Option<Value>, BoxError>,
) -> Result<(), ReplyError> {
    let response = match handle(&mut asked).await {
        Ok(response) => response,
        Err(error) => {
            // What the user is to be told then, the handler knows best. Coming again would do it no good.
            eprintln!("{} failed: {error}", asked.key);
            return Ok(());
        }
    };
    let Some(response) = response else { return Ok(()) };
    match asked.reply(&response).await {
        Err(ReplyError::TooLate) => {
            eprintln!("{} took too long", asked.key);
            Ok(())
        }
        replied => replied,
    }
}
