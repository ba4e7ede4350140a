// SPDX-License-Identifier: AGPL-3.0-only
//! Answers. In: a queue of requests. Out: each request with the way back to whoever asked.

use std::pin::pin;
use std::time::Instant;

use holdfast_contract::Body;
use tokio::select;
use tokio_util::sync::CancellationToken;

use super::replies::REPLY_TO;
use crate::broker::Broker;
use crate::consumer::{Consumer, Delivery};
use crate::error::PublishError;
use crate::message::{Message, Publication};

/// How often an answer is sent whose arrival isn't confirmed.
const ATTEMPTS: usize = 3;

/// Receives requests. They are to be asked for promptly: a request's deadline is counted from then.
pub struct Responder {
    consumer: Consumer,
    broker: Broker,
}

/// A request. It is to be [done](Request::done) or [rejected](Request::reject); dropped, it comes again to another
/// responder when this one is gone.
#[derive(Debug)]
pub struct Request {
    delivery: Delivery,
    deadline: Option<Instant>,
    broker: Broker,
}

impl Responder {
    pub(crate) fn new(consumer: Consumer, broker: Broker) -> Self {
        Self { consumer, broker }
    }

    /// The next request; `None` when the process ends. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Request> {
        let delivery = self.consumer.next().await?;
        let deadline = delivery.message.properties.expiration.map(|within| Instant::now() + within);
        Some(Request { delivery, deadline, broker: self.broker.clone() })
    }
}

impl Request {
    /// What is asked.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.delivery.message
    }

    /// Its routing key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.delivery.key
    }

    /// Whether somebody may have had it before.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.delivery.redelivered
    }

    /// When nobody waits for the answer any more.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// See [`Delivery::is_live`].
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.delivery.is_live()
    }

    /// Does something for the request, which is told to `stop` as soon as the request [can't be
    /// settled](Delivery::lost) any more: it comes again, so what hasn't been begun is best left to that.
    pub async fn stopped_when_lost<T>(&self, stop: &CancellationToken, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        select! { biased;
            // First, so that nothing is begun for what is lost already.
            () = self.delivery.lost() => stop.cancel(),
            done = &mut work => return done,
        }
        work.await
    }

    /// Whether anybody wants to be answered.
    #[must_use]
    pub fn wants_reply(&self) -> bool {
        self.delivery.message.properties.reply_to.is_some()
    }

    /// Sends a reply, one of several if need be; they arrive in their order. Without anybody who wants it, nothing
    /// happens.
    ///
    /// # Errors
    /// It did not get to the broker. Whether whoever asked is still there is known only of replies to a queue.
    pub async fn reply(&self, mut message: Message) -> Result<(), PublishError> {
        let asked = &self.delivery.message.properties;
        let Some(queue) = asked.reply_to.clone() else { return Ok(()) };
        message.properties.correlation_id.clone_from(&asked.correlation_id);
        // RabbitMQ returns every mandatory message to a direct reply queue, whether it is delivered or not.
        let mandatory = !queue.starts_with(REPLY_TO);
        let publication = Publication { mandatory, ..Publication::new("", queue, message) };
        self.broker.publish(publication).await
    }

    /// Sends a reply, a few times if the connection ends before the broker has confirmed it: the same reply twice
    /// is one.
    ///
    /// # Errors
    /// As [`Request::reply`].
    pub async fn answer<T: Body>(&self, body: &T) -> Result<(), PublishError> {
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            outcome = self.reply(Message::of(body)).await;
            if !matches!(outcome, Err(PublishError::Unconfirmed(_))) {
                break;
            }
        }
        outcome
    }

    /// The request is done.
    pub fn done(self) {
        self.delivery.ack();
    }

    /// The request came too late, and is not done: counted, and gone.
    pub fn expired(self) {
        self.broker.metrics().requests_expired.inc();
        self.delivery.ack();
    }

    /// The request can't be used: see [`Delivery::reject`].
    ///
    /// # Errors
    /// As there.
    pub async fn reject(self, reason: &str) -> Result<(), PublishError> {
        self.delivery.reject(reason).await
    }
}
