// SPDX-License-Identifier: AGPL-3.0-only
//! Receives from a queue of RabbitMQ. Driven by whoever asks for the next message: there is no task and no queue here
//! but the library's, which holds at most the prefetch.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use holdfast_service::Backoff;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{AMQPValue, DeliveryTag, FieldTable, ShortString};
use tokio_util::sync::CancellationToken;

use super::convert::received;
use super::declare;
use super::link::Link;
use super::refusal::During;
use super::session::{Failure, Session};
use crate::consumer::{ConsumerOptions, Delivery, Home, Offset, Settle as AnySettle};
use crate::metrics::Metrics;

/// See [`crate::Consumer`].
pub(crate) struct Consumer {
    phase: Phase,
    home: Arc<Home>,
}

/// What the consumer is at. Opening goes on where it was when whoever waits has looked at something else meanwhile.
enum Phase {
    Opening(BoxFuture<'static, Option<(Opener, Open)>>),
    Open(Box<(Opener, Open)>),
    Ended,
}

/// What is needed to open it, again and again.
struct Opener {
    link: Link,
    options: ConsumerOptions,
    pause: Backoff,
    /// Why it did not work the last time, so that it is said once.
    complaint: Option<String>,
}

/// A consumer as the broker knows it.
struct Open {
    session: Arc<Session>,
    channel: Arc<Own>,
    deliveries: lapin::Consumer,
}

/// A channel with nobody else on it.
struct Own {
    channel: Channel,
    /// Cancelled when it has ended.
    lost: CancellationToken,
    metrics: Arc<Metrics>,
}

/// Settles one delivery on the channel that it came through.
pub(crate) struct Settle {
    channel: Arc<Own>,
    tag: DeliveryTag,
}

impl Consumer {
    pub(super) fn new(link: Link, options: ConsumerOptions, home: Arc<Home>) -> Self {
        let pause = Backoff::new(super::PAUSE_MIN, super::PAUSE_MAX);
        let opener = Opener { link, options, pause, complaint: None };
        Self { phase: Phase::Opening(opener.open().boxed()), home }
    }

    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        loop {
            match &mut self.phase {
                Phase::Opening(opening) => {
                    let opened = opening.await;
                    self.phase = opened.map_or(Phase::Ended, |open| Phase::Open(Box::new(open)));
                }
                Phase::Open(open) => {
                    let (opener, open) = &mut **open;
                    let next = tokio::select! {
                        biased;
                        () = opener.link.shutdown().cancelled() => return None,
                        () = open.session.lost.cancelled() => None,
                        next = open.deliveries.next() => next.and_then(Result::ok),
                    };
                    if let Some(delivery) = next {
                        return Some(deliver(opener, open, delivery, &self.home));
                    }
                    self.reopen();
                }
                Phase::Ended => return None,
            }
        }
    }

    /// The connection or the broker ended it.
    fn reopen(&mut self) {
        if let Phase::Open(open) = std::mem::replace(&mut self.phase, Phase::Ended) {
            let (mut opener, open) = *open;
            if !open.channel.is_live() {
                open.channel.lost.cancel();
            }
            let pause = if open.session.lost.is_cancelled() { Duration::ZERO } else { opener.pause.failed() };
            self.phase = Phase::Opening(
                async move {
                    tokio::time::sleep(pause).await;
                    opener.open().await
                }
                .boxed(),
            );
        }
    }
}

fn deliver(
    opener: &mut Opener,
    open: &Open,
    delivery: lapin::message::Delivery,
    home: &Arc<Home>,
) -> Delivery {
    opener.link.metrics().delivered.inc();
    opener.pause.succeeded();
    let (tag, redelivered) = (delivery.delivery_tag, delivery.redelivered);
    let (exchange, key, message) = received(delivery);
    if let Some(offset) = message.headers.integer("x-stream-offset") {
        opener.options.offset = Offset::At(u64::try_from(offset).unwrap_or_default() + 1);
    }
    let settle = AnySettle::Rabbit(Settle { channel: Arc::clone(&open.channel), tag });
    Delivery { exchange, key, redelivered, message, settle, home: Arc::clone(home) }
}

impl Opener {
    /// Opens it, however long that takes; `None` when the process ends.
    async fn open(mut self) -> Option<(Self, Open)> {
        loop {
            let session = self.link.session().await?;
            match self.consume(session).await {
                Ok(open) => {
                    self.complaint = None;
                    return Some((self, open));
                }
                Err(failure) => self.complain(failure),
            }
            let pause = tokio::time::sleep(self.pause.failed());
            self.link.shutdown().run_until_cancelled(pause).await?;
        }
    }

    async fn consume(&self, session: Arc<Session>) -> Result<Open, Failure> {
        let failed = |error| Failure::of(&error, During::Declare);
        let queue = declare::short(&self.options.queue)?;
        let channel = session.channel().await.map_err(failed)?;
        let own = Arc::new(Own {
            channel,
            lost: session.lost.child_token(),
            metrics: Arc::clone(self.link.metrics()),
        });
        declare::on(&own.channel, &self.link.remembered(&self.options.queue)).await?;
        let prefetch = self.options.prefetch.max(1);
        own.channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(failed)?;
        let options =
            BasicConsumeOptions { exclusive: self.options.exclusive, ..BasicConsumeOptions::default() };
        let deliveries = own.channel.basic_consume(queue, ShortString::default(), options, self.arguments());
        Ok(Open { session, deliveries: deliveries.await.map_err(failed)?, channel: own })
    }

    fn arguments(&self) -> FieldTable {
        let mut table = FieldTable::default();
        if self.options.priority != 0 {
            table.insert("x-priority".into(), AMQPValue::LongInt(self.options.priority));
        }
        let offset = match self.options.offset {
            Offset::Next => return table,
            Offset::First => AMQPValue::LongString("first".into()),
            Offset::At(number) => AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX)),
        };
        table.insert("x-stream-offset".into(), offset);
        table
    }

    fn complain(&mut self, failure: Failure) {
        let reason = match failure {
            Failure::Refused(refusal) => refusal.to_string(),
            Failure::Failed(reason) => reason,
        };
        if self.complaint.as_ref() != Some(&reason) {
            tracing::warn!(queue = self.options.queue, reason, "cannot receive from the queue");
            self.complaint = Some(reason);
        }
    }
}

impl Settle {
    pub(crate) fn is_live(&self) -> bool {
        self.channel.is_live()
    }

    pub(crate) async fn lost(&self) {
        self.channel.lost.cancelled().await;
    }

    pub(crate) fn ack(self, multiple: bool) {
        let acked = self.channel.channel.basic_ack(self.tag, BasicAckOptions { multiple });
        self.channel.count(acked.now_or_never());
    }

    pub(crate) fn requeue(self) {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        self.channel.count(self.channel.channel.basic_nack(self.tag, options).now_or_never());
    }
}

impl Drop for Own {
    /// The library keeps a channel open for as long as a consumer is known on it, and it knows one whose subscription was
    /// given up halfway.
    fn drop(&mut self) {
        let _ = self.channel.close(200, "OK".into()).now_or_never();
    }
}

impl Own {
    fn is_live(&self) -> bool {
        self.channel.status().connected()
    }

    /// The library queues a frame when its future is first polled; whether it is written yet is of no interest.
    fn count(&self, queued: Option<Result<(), lapin::Error>>) {
        if matches!(queued, Some(Err(_))) {
            self.metrics.stale_settlements.inc();
        }
    }
}

impl std::fmt::Debug for Settle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settle").field("tag", &self.tag).finish()
    }
}
