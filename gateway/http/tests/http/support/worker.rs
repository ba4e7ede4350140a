// SPDX-License-Identifier: AGPL-3.0-only
//! A worker at RabbitMQ: gets interactions, answers as it is told to.

use holdfast_broker::{
    Binding, Broker, Consumer, ConsumerOptions, Delivery, Exchange, ExchangeKind, Message, Publication,
    Queue, QueueKind, Requester, Topology,
};
use holdfast_contract::v1::{Interaction, InteractionReceipt, InteractionReply};
use holdfast_contract::{Body, SCHEMA};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::SOON;

/// See the module.
pub(crate) struct Worker {
    broker: Broker,
    consumer: Consumer,
    requester: Requester,
}

/// An interaction that a worker has.
pub(crate) struct Ask {
    pub(crate) interaction: Interaction,
    delivery: Delivery,
    broker: Broker,
    requester: Requester,
}

impl Worker {
    pub(super) async fn start(broker: &Broker, exchange: &str, queue: String, keys: &[&str]) -> Self {
        let topology = Topology {
            exchanges: vec![Exchange::new(exchange, ExchangeKind::Topic)],
            queues: vec![Queue { max_length: Some(10_000), ..Queue::new(&queue, QueueKind::Classic) }],
            bindings: keys.iter().map(|key| Binding::queue(exchange, &queue, *key)).collect(),
        };
        broker.declare(&topology).await.expect("declared");
        let consumer = broker.consume(ConsumerOptions::new(queue));
        Self { broker: broker.clone(), consumer, requester: broker.requester(64) }
    }

    /// The next interaction.
    pub(crate) async fn next(&mut self) -> Ask {
        let delivery =
            timeout(SOON, self.consumer.next()).await.expect("one comes soon").expect("it goes on");
        assert_eq!(delivery.message.properties.kind.as_deref(), Some(Interaction::TYPE));
        let interaction = Interaction::decode(delivery.message.body.clone()).expect("an interaction");
        Ask { interaction, delivery, broker: self.broker.clone(), requester: self.requester.clone() }
    }

    /// Answers everything with this from now on.
    pub(crate) fn answer_all(mut self, body: &'static str) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            while let Some(delivery) = self.consumer.next().await {
                let Ok(interaction) = Interaction::decode(delivery.message.body.clone()) else { continue };
                let ask = Ask {
                    interaction,
                    delivery,
                    broker: self.broker.clone(),
                    requester: self.requester.clone(),
                };
                // The service may be gone by now.
                let _ = ask.try_reply(reply(&ask.interaction, body)).await;
                ask.delivery.ack();
            }
        })
    }
}

impl Ask {
    /// Discord's JSON.
    pub(crate) fn body(&self) -> Value {
        serde_json::from_slice(&self.interaction.body).expect("JSON")
    }

    /// Its routing key.
    pub(crate) fn key(&self) -> &str {
        &self.delivery.key
    }

    /// Replies to where the interaction came from.
    pub(crate) async fn reply(&self, reply: InteractionReply) {
        self.try_reply(reply).await.expect("sent");
    }

    async fn try_reply(&self, reply: InteractionReply) -> Result<(), holdfast_broker::PublishError> {
        let mut message = message(reply);
        let asked = &self.delivery.message.properties;
        message.properties.correlation_id.clone_from(&asked.correlation_id);
        let queue = asked.reply_to.clone().expect("wants a reply");
        self.broker.publish(Publication::new("", queue, message)).await
    }

    /// Replies late, to the queue for that.
    pub(crate) async fn reply_late(&self, reply: InteractionReply) {
        let queue = self.broker.names().late_interactions();
        self.broker.publish(Publication::new("", queue, message(reply)).mandatory()).await.expect("sent");
    }

    /// Replies late, and waits to hear what becomes of it.
    pub(crate) async fn reply_late_and_hear(&self, reply: InteractionReply) -> InteractionReceipt {
        let queue = self.broker.names().late_interactions();
        let receipt = self.requester.request(Publication::new("", queue, message(reply)), SOON).await;
        InteractionReceipt::decode(receipt.expect("a receipt").body).expect("a receipt")
    }
}

/// A message that isn't to be lost.
fn message(reply: InteractionReply) -> Message {
    let mut message = Message::new(InteractionReply::TYPE, reply.encode_to_vec());
    message.properties.persistent = true;
    message
}

/// A reply of JSON.
pub(crate) fn reply(interaction: &Interaction, body: &str) -> InteractionReply {
    InteractionReply {
        schema: SCHEMA,
        ticket: interaction.ticket.clone(),
        content_type: String::new(),
        body: body.to_owned().into(),
        deferred_with: 0,
    }
}

/// A message.
pub(crate) fn hello(interaction: &Interaction, content: &str) -> InteractionReply {
    reply(interaction, &json!({ "type": 4, "data": { "content": content } }).to_string())
}

/// Takes exchanges and queues away.
pub(super) async fn delete(broker: &Broker, exchanges: &[String], queues: &[String]) {
    let topology = Topology {
        exchanges: exchanges.iter().map(|name| Exchange::new(name, ExchangeKind::Topic)).collect(),
        queues: queues.iter().map(|name| Queue::new(name, QueueKind::Classic)).collect(),
        bindings: Vec::new(),
    };
    broker.delete(&topology).await;
}
