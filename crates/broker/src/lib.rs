// SPDX-License-Identifier: AGPL-3.0-only
//! What our services say to each other: over RabbitMQ, or in memory within one process. In: messages, as bytes with
//! properties and headers. Out: the same, elsewhere. What the bytes mean is none of its business. [`Broker`] is where to
//! begin.

mod address;
mod body;
mod broker;
mod consumer;
mod error;
mod memory;
mod message;
mod metrics;
mod names;
mod outbox;
mod publisher;
mod rabbit;
mod rpc;
mod settings;
mod state;
mod topology;

pub use broker::Broker;
pub use consumer::{Consumer, ConsumerOptions, Delivery, Offset};
pub use error::{Cause, DeclareError, PublishError, Refusal, RequestError, Unsendable};
pub use message::{Header, Headers, Message, Properties, Publication, Text};
pub use names::{
    APP_ID, HEADER_GENERATION, HEADER_GUILD, HEADER_REASON, HEADER_SHARD, HEADER_TRACE, HEADER_WEBHOOK, Names,
};
pub use publisher::{
    Interrupted, Observer, OrderedPublisher, Positioned, PublisherOptions, Reason, StreamError, Undelivered,
};
pub use rpc::{Answers, Request, Requester, Responder};
pub use settings::BrokerSettings;
pub use state::State;
pub use topology::{
    Binding, DeadLetter, Destination, Exchange, ExchangeKind, Overflow, Queue, QueueKind, Topology,
};
