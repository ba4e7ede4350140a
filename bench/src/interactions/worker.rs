// SPDX-License-Identifier: AGPL-3.0-only
//! A worker that answers every interaction at once, by the library alone. In: a queue for all of them, which goes with this
//! process. Out: replies.

use anyhow::{Context, Result};
use futures_util::StreamExt;
use holdfast_contract::Body;
use holdfast_contract::v1::{Interaction, InteractionReply};
use lapin::{
    BasicProperties, Channel, ExchangeKind,
    message::Delivery,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
};
use prost::Message;
use tokio::time::timeout;

use super::ANSWER;
use crate::amqp::{SETUP, connect};
use crate::peer::{Answer, say};

/// Where it works.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// RabbitMQ's address.
    #[arg(long)]
    pub(crate) broker: String,
    /// The exchange of interactions; declared as Holdfast does.
    #[arg(long)]
    pub(crate) exchange: String,
}

impl Args {
    /// The command line that says the same.
    pub(crate) fn words(&self) -> Vec<String> {
        let Self { broker, exchange } = self;
        vec!["interaction-worker".to_owned(), format!("--broker={broker}"), format!("--exchange={exchange}")]
    }
}

/// Answers until standard input ends or the process is killed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (_connection, channel) = connect(&args.broker).await?;
        let queue = timeout(SETUP, declare(&channel, args)).await.context("declaring took too long")??;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumed = channel.basic_consume(queue, ShortString::default(), options, FieldTable::default());
        let mut deliveries = consumed.await?;
        say(&Answer::Connected)?;
        while let Some(delivery) = deliveries.next().await {
            answer(&channel, &delivery?).await?;
        }
        Ok(())
    })
}

async fn declare(channel: &Channel, args: &Args) -> Result<ShortString> {
    let exchange = || ShortString::try_new(args.exchange.as_str()).context("too long a name");
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(exchange()?, ExchangeKind::Topic, durable, FieldTable::default()).await?;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(ShortString::default(), exclusive, FieldTable::default()).await?;
    let queue = queue.name().clone();
    let none = FieldTable::default();
    channel.queue_bind(queue.clone(), exchange()?, "#".into(), QueueBindOptions::default(), none).await?;
    Ok(queue)
}

async fn answer(channel: &Channel, delivery: &Delivery) -> Result<()> {
    let interaction = Interaction::decode(delivery.data.as_slice())?;
    let reply = InteractionReply {
        schema: 1,
        ticket: interaction.ticket,
        content_type: String::new(),
        body: ANSWER.into(),
        ..InteractionReply::default()
    };
    let queue = delivery.properties.reply_to().clone().context("nobody wants the answer")?;
    let mut properties = BasicProperties::default().with_type(InteractionReply::TYPE.into());
    if let Some(id) = delivery.properties.correlation_id().clone() {
        properties = properties.with_correlation_id(id);
    }
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), queue, options, &reply.encode_to_vec(), properties).await?;
    Ok(())
}
