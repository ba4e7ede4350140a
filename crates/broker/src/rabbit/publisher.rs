// SPDX-License-Identifier: AGPL-3.0-only
//! The publishing task of one ordered stream: a channel of its own, a window of unconfirmed messages, and a fresh
//! channel after each failure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_service::Backoff;
use lapin::message::BasicReturnMessage;
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Error};
use tokio::time::MissedTickBehavior;

use super::convert::{Frames, received};
use super::link::Link;
use super::pending::Pending;
use super::refusal::words;
use super::session::Session;
use super::window::{Sent, Window};
use crate::error::Cause;
use crate::publisher::{Batch, Intake, Positioned, Reason, Undelivered};

/// How late a confirmation may be seen that nobody waits for.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// One stream's task.
pub(super) struct Publisher {
    link: Link,
    intake: Intake,
    max_message_bytes: usize,
    epoch: u64,
    /// What is left of the batch being published.
    backlog: VecDeque<Positioned>,
    window: Window,
    pause: Backoff,
}

/// Why a channel is no longer used.
enum End {
    /// Something of the stream may be lost.
    Interrupted(Cause),
    /// Nothing is: the stream was at rest.
    Idle,
    /// Nobody sends any more.
    Closed,
}

impl Publisher {
    pub(super) fn new(link: Link, intake: Intake, max_message_bytes: usize) -> Self {
        let window = Window::new(intake.options);
        let pause = Backoff::new(super::PAUSE_MIN, super::PAUSE_MAX);
        Self { link, intake, max_message_bytes, epoch: 0, backlog: VecDeque::new(), window, pause }
    }

    pub(super) async fn run(mut self) {
        let shutdown = self.link.shutdown().clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.publish() => {}
        }
    }

    async fn publish(&mut self) {
        while let Some(session) = self.link.session().await {
            let end = match open(&session).await {
                Ok(channel) => self.serve(&session, &Arc::new(channel)).await,
                Err(_) => End::Idle,
            };
            match end {
                End::Closed => return,
                End::Idle => {}
                End::Interrupted(cause) => {
                    self.link.metrics().interruptions.inc();
                    // Nothing of the old epoch is sent any more: neither what is left of the batch, nor, by its
                    // number, the batch that is still in the queue.
                    self.backlog.clear();
                    self.window.clear();
                    self.epoch = self.intake.interrupt(cause);
                }
            }
            if !session.lost.is_cancelled() {
                tokio::time::sleep(self.pause.failed()).await;
            }
        }
    }

    /// Publishes on one channel until it fails.
    async fn serve(&mut self, session: &Session, channel: &Arc<Channel>) -> End {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let settled = self.window.settled_by_now();
            if let Err(cause) = self.take_in(settled) {
                if cause == Cause::Nacked {
                    self.outlast().await;
                }
                return End::Interrupted(cause);
            }
            self.fill(channel);
            // With plenty of room nobody is woken for a confirmation alone: the next batch finds it, or the next look.
            let waits_for_room = !self.backlog.is_empty() || self.window.is_filling();
            tokio::select! {
                biased;
                () = session.lost.cancelled() => return self.lost(),
                _ = self.window.settled(), if waits_for_room => {}
                batch = self.intake.batches.recv(), if self.backlog.is_empty() => match batch {
                    Some(Batch { epoch, messages }) if epoch == self.epoch => self.backlog = messages.into(),
                    Some(_) => {}
                    None => return End::Closed,
                },
                _ = look.tick(), if !self.window.is_empty() => {}
            }
        }
    }

    /// What was confirmed before the connection ended need not be sent again.
    fn lost(&mut self) -> End {
        if self.window.is_empty() && self.backlog.is_empty() {
            return End::Idle;
        }
        let settled = self.window.settled_by_now();
        // The library settles with an error what was on its way. That is not news.
        let _ = self.take_in(settled);
        End::Interrupted(Cause::Connection("it was lost".to_owned()))
    }

    /// Publishes what the window has room for.
    fn fill(&mut self, channel: &Arc<Channel>) {
        if self.backlog.is_empty() {
            return;
        }
        let at = Instant::now();
        let mut published = 0;
        while let Some(next) = self.backlog.front() {
            let bytes = next.publication.message.body.len();
            if !self.window.has_room(bytes) {
                break;
            }
            let Some(Positioned { position, publication }) = self.backlog.pop_front() else { break };
            let pending = match publication.check(self.max_message_bytes) {
                Ok(()) => Frames::of(publication).map(|frames| Pending::publish(channel, frames)),
                Err(why) => {
                    self.link.metrics().unsendable.inc();
                    self.intake.undelivered(&Undelivered::unsendable(&publication, why));
                    None
                }
            };
            published += u64::from(pending.is_some());
            self.window.push(Sent { position, bytes, at, pending });
        }
        self.link.metrics().published.inc_by(published);
    }

    /// Takes in what became of the oldest messages.
    fn take_in(&mut self, settled: usize) -> Result<(), Cause> {
        let (mut confirmed, mut outcome, mut at) = (None, Ok(()), None);
        for _ in 0..settled {
            let Some(sent) = self.window.pop() else { break };
            outcome = self.outcome(sent.pending);
            if outcome.is_err() {
                break;
            }
            confirmed = Some(sent.position);
            at = Some(sent.at);
        }
        if let (Some(position), Some(at)) = (confirmed, at) {
            self.intake.confirm(position);
            self.pause.succeeded();
            self.link.metrics().confirm_latency.observe(at.elapsed().as_secs_f64());
        }
        outcome
    }

    /// The messages behind a refused one are on their way already. Once the broker has said what became of each,
    /// nothing of this window can turn up behind what is sent next.
    async fn outlast(&mut self) {
        while !self.window.is_empty() {
            for _ in 0..self.window.settled().await {
                self.window.pop();
            }
        }
    }

    fn outcome(&self, pending: Option<Pending>) -> Result<(), Cause> {
        let Some(outcome) = pending.and_then(Pending::into_outcome) else { return Ok(()) };
        match outcome.taken {
            Ok(true) => {
                self.link.metrics().confirmed.inc();
                if let Some(returned) = outcome.returned {
                    self.returned(*returned);
                }
                Ok(())
            }
            Ok(false) => Err(Cause::Nacked),
            Err(error) => Err(cause(&error)),
        }
    }

    /// The library hands a returned message out with the next confirmation, which may be another message's: so it
    /// is told by its own key and name.
    fn returned(&self, returned: BasicReturnMessage) {
        self.link.metrics().returned.inc();
        let (exchange, key, message) = received(returned.delivery);
        let kind = message.properties.kind.map(String::from);
        self.intake.undelivered(&Undelivered { exchange, key, kind, reason: Reason::Unrouted });
    }
}

/// A channel on which the broker confirms.
pub(super) async fn open(session: &Session) -> Result<Channel, Error> {
    let channel = session.channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

fn cause(error: &Error) -> Cause {
    if error.is_amqp_soft_error() { Cause::Channel(words(error)) } else { Cause::Connection(words(error)) }
}
