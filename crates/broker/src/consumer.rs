// SPDX-License-Identifier: AGPL-3.0-only
//! Receiving from a queue: what was delivered, and what may be done with it. The same for both brokers.

use std::sync::Arc;

use crate::broker::Broker;
use crate::error::PublishError;

use crate::memory;
use crate::message::{Message, Properties, Publication};
use crate::names::HEADER_REASON;
use crate::rabbit;

/// Longest reason that a dead letter carries, in bytes.
const REASON_BYTES: usize = 1024;

/// How a queue is received from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// The queue.
    pub queue: String,
    /// Most messages that are delivered and not yet settled.
    pub prefetch: u16,
    /// Whether nobody else may receive from the queue meanwhile.
    pub exclusive: bool,
    /// Higher is served first among the queue's consumers.
    pub priority: i32,
    /// Where to begin, of a stream. After a reconnection it goes on behind what was delivered.
    pub offset: Offset,
}

/// Where to begin reading a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Offset {
    /// With what comes next.
    #[default]
    Next,
    /// With the oldest message.
    First,
    /// With the message of this number.
    At(u64),
}

impl ConsumerOptions {
    /// A consumer of a queue. Acknowledging 64 at once costs the broker a half to a fifth of acknowledging each;
    /// four such rounds are under way.
    #[must_use]
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), prefetch: 256, exclusive: false, priority: 0, offset: Offset::Next }
    }
}

/// Receives from a queue. It connects, declares the queue if that was [declared](Broker::declare) by this process, and
/// goes on by itself after each failure.
pub struct Consumer {
    source: Source,
}

enum Source {
    Rabbit(Box<rabbit::Consumer>),
    Memory(memory::Consumer),
}

/// A message from a queue. It has to be settled, once; what isn't comes again when its consumer is gone.
#[derive(Debug)]
pub struct Delivery {
    /// The exchange that it came through.
    pub exchange: String,
    /// Its routing key.
    pub key: String,
    /// Whether it was delivered before, to whomever.
    pub redelivered: bool,
    /// The message.
    pub message: Message,
    pub(crate) settle: Settle,
    pub(crate) home: Arc<Home>,
}

/// Where a delivery is settled.
#[derive(Debug)]
pub(crate) enum Settle {
    Rabbit(rabbit::Settle),
    Memory(memory::Settle),
}

/// What all deliveries of a consumer share.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) broker: Broker,
    pub(crate) queue: String,
}

impl Consumer {
    pub(crate) fn rabbit(consumer: rabbit::Consumer) -> Self {
        Self { source: Source::Rabbit(Box::new(consumer)) }
    }

    pub(crate) fn memory(consumer: memory::Consumer) -> Self {
        Self { source: Source::Memory(consumer) }
    }

    /// The next message; `None` when the process ends. May be dropped while it waits: no message is lost.
    pub async fn next(&mut self) -> Option<Delivery> {
        match &mut self.source {
            Source::Rabbit(consumer) => consumer.next().await,
            Source::Memory(consumer) => consumer.next().await,
        }
    }
}

impl Delivery {
    /// Whether it can still be settled. Once its connection has ended, it comes again: what hasn't been begun with it is
    /// best left to that.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.settle.is_live()
    }

    /// Ends when it can't be settled any more. If the broker has closed nothing but the consumer's channel, that is seen
    /// when the consumer is asked for what is next.
    pub async fn lost(&self) {
        match &self.settle {
            Settle::Rabbit(settle) => settle.lost().await,
            Settle::Memory(_) => std::future::pending().await,
        }
    }

    /// The message is done. If its connection has ended meanwhile, nothing happens but that it is counted: the message
    /// comes again.
    pub fn ack(self) {
        self.settle.ack(false);
    }

    /// This message and all that its consumer got before are done: cheaper than one by one.
    pub fn ack_up_to(self) {
        self.settle.ack(true);
    }

    /// The message goes back into the queue, for whoever is next.
    pub fn requeue(self) {
        self.settle.requeue();
    }

    /// The message can't be used: it goes to the exchange `{prefix}.dead`, with the queue as its key and the reason as a
    /// header, and is then done.
    ///
    /// # Errors
    /// It did not arrive there. It stays unsettled, and comes again when this consumer is gone.
    pub async fn reject(self, reason: &str) -> Result<(), PublishError> {
        let Self { message, settle, home, .. } = self;
        let broker = &home.broker;
        let mut headers = message.headers;
        headers.set(HEADER_REASON, shortened(reason).to_owned());
        // Waiting on for what it was to be in time for makes no sense for a dead message.
        let properties = Properties { expiration: None, reply_to: None, ..message.properties };
        let dead = Message { headers, properties, body: message.body };
        broker.publish(Publication::new(broker.names().dead(), home.queue.clone(), dead)).await?;
        broker.metrics().dead_lettered.inc();
        settle.ack(false);
        Ok(())
    }
}

fn shortened(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

impl Settle {
    fn is_live(&self) -> bool {
        match self {
            Self::Rabbit(settle) => settle.is_live(),
            Self::Memory(_) => true,
        }
    }

    fn ack(self, multiple: bool) {
        match self {
            Self::Rabbit(settle) => settle.ack(multiple),
            Self::Memory(settle) => settle.ack(multiple),
        }
    }

    fn requeue(self) {
        match self {
            Self::Rabbit(settle) => settle.requeue(),
            Self::Memory(settle) => settle.requeue(),
        }
    }
}
