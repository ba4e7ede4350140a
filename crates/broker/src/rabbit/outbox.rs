// SPDX-License-Identifier: AGPL-3.0-only
//! The task behind the [outbox](crate::outbox): one channel that publishes, and receives direct replies, which RabbitMQ
//! sends to the channel that asked (rabbitmq.com: Direct Reply-to).

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use lapin::options::BasicConsumeOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Error};
use tokio::sync::{mpsc, oneshot};

use super::convert::{Frames, received};
use super::link::Link;
use super::pending::{Outcome, Pending};
use super::publisher;
use super::refusal::words;
use super::session::Session;
use crate::error::{PublishError, RequestError};
use crate::outbox::Job;
use crate::rpc::replies::{REPLY_TO, Replies};

/// Most messages that are not yet confirmed.
const IN_FLIGHT: usize = 256;

/// The task.
pub(super) struct Outbox {
    link: Link,
    jobs: mpsc::Receiver<Job>,
    replies: Replies,
    max_message_bytes: usize,
    /// Taken from the queue, and not published because the broker takes nothing for now.
    held: Option<Job>,
    flying: Vec<Flying>,
    /// Ids of messages that came back, while their confirmation is on its way.
    returned: HashSet<String>,
    published: u64,
}

/// A message that is not yet confirmed.
struct Flying {
    pending: Pending,
    /// Set on mandatory messages, to know which one came back.
    id: Option<String>,
    outcome: oneshot::Sender<Result<(), PublishError>>,
}

impl Outbox {
    pub(super) fn new(
        link: Link,
        jobs: mpsc::Receiver<Job>,
        replies: Replies,
        max_message_bytes: usize,
    ) -> Self {
        Self {
            link,
            jobs,
            replies,
            max_message_bytes,
            held: None,
            flying: Vec::new(),
            returned: HashSet::new(),
            published: 0,
        }
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
            let reason = match open(&session).await {
                Ok((channel, replies)) => match self.serve(&session, &channel, replies).await {
                    Some(reason) => reason,
                    None => return,
                },
                Err(error) => words(&error),
            };
            self.failed(&reason);
            if !session.lost.is_cancelled() {
                tokio::time::sleep(super::PAUSE_MIN).await;
            }
        }
    }

    /// Publishes until the channel or the connection ends, and says why; `None` when nobody publishes any more.
    async fn serve(
        &mut self,
        session: &Session,
        channel: &Arc<Channel>,
        mut replies: lapin::Consumer,
    ) -> Option<String> {
        loop {
            let blocked = self.link.is_blocked();
            if !blocked && let Some(job) = self.held.take() {
                self.send(channel, job);
            }
            let room = self.held.is_none() && self.flying.len() < IN_FLIGHT;
            tokio::select! {
                biased;
                () = session.lost.cancelled() => return Some("it was lost".to_owned()),
                reply = replies.next() => match reply {
                    Some(Ok(delivery)) => self.replies.deliver(received(delivery).2),
                    Some(Err(error)) => return Some(words(&error)),
                    None => return Some("the broker ended the channel".to_owned()),
                },
                () = settled(&mut self.flying), if !self.flying.is_empty() => self.resolve(),
                () = self.link.unblocked(), if blocked => {}
                job = self.jobs.recv(), if room => self.held = Some(job?),
            }
        }
    }

    fn send(&mut self, channel: &Arc<Channel>, job: Job) {
        let Job { mut publication, outcome } = job;
        // Whoever asked has given up: a request that comes too late does harm.
        if outcome.is_closed() {
            return;
        }
        let properties = &mut publication.message.properties;
        if publication.mandatory && properties.message_id.is_none() {
            self.published += 1;
            properties.message_id = Some(self.published.to_string().into());
        }
        let id = properties.message_id.as_ref().filter(|_| publication.mandatory).map(ToString::to_string);
        if let Err(why) = publication.check(self.max_message_bytes) {
            self.link.metrics().unsendable.inc();
            let _ = outcome.send(Err(why.into()));
            return;
        }
        let Some(frames) = Frames::of(publication) else { return };
        self.link.metrics().published.inc();
        self.flying.push(Flying { pending: Pending::publish(channel, frames), id, outcome });
    }

    /// Tells what became of the messages that are settled.
    fn resolve(&mut self) {
        let settled = self.flying.extract_if(.., |flying| look(&mut flying.pending)).collect::<Vec<_>>();
        // The library hands a returned message out with whichever confirmation comes next: with this message's own, or
        // with one before it. So all that have come by now are looked at before any of these is judged.
        let more = self.flying.extract_if(.., |flying| look(&mut flying.pending)).collect::<Vec<_>>();
        let outcomes = settled
            .into_iter()
            .chain(more)
            .filter_map(|flying| Some((flying.pending.into_outcome()?, flying.id, flying.outcome)));
        let outcomes: Vec<_> =
            outcomes.map(|(outcome, id, told)| (self.returned_with(outcome), id, told)).collect();
        for (outcome, id, told) in outcomes {
            let returned = id.is_some_and(|id| self.returned.remove(&id));
            // They may have stopped waiting.
            let _ = told.send(if returned { Err(PublishError::Unrouted) } else { outcome });
        }
    }

    fn returned_with(&mut self, outcome: Outcome) -> Result<(), PublishError> {
        if let Some(message) = outcome.returned {
            self.link.metrics().returned.inc();
            let id = received(message.delivery).2.properties.message_id;
            self.returned.extend(id.map(String::from));
        }
        match outcome.taken {
            Ok(true) => {
                self.link.metrics().confirmed.inc();
                Ok(())
            }
            Ok(false) => Err(PublishError::Nacked),
            Err(error) => Err(PublishError::Unconfirmed(words(&error))),
        }
    }

    /// What was under way may or may not have arrived.
    fn failed(&mut self, reason: &str) {
        for flying in self.flying.drain(..) {
            let _ = flying.outcome.send(Err(PublishError::Unconfirmed(reason.to_owned())));
        }
        self.returned.clear();
        self.replies.fail(&RequestError::Disconnected(reason.to_owned()));
    }
}

/// A channel that publishes with confirmations and receives direct replies.
async fn open(session: &Session) -> Result<(Arc<Channel>, lapin::Consumer), Error> {
    let channel = publisher::open(session).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let replies = channel
        .basic_consume(REPLY_TO.into(), ShortString::default(), options, FieldTable::default())
        .await?;
    Ok((Arc::new(channel), replies))
}

/// Waits until one of them is settled.
async fn settled(flying: &mut [Flying]) {
    poll_fn(|context: &mut Context<'_>| {
        let mut any = Poll::Pending;
        for one in flying.iter_mut() {
            if one.pending.poll_settled(context).is_ready() {
                any = Poll::Ready(());
            }
        }
        any
    })
    .await;
}

fn look(pending: &mut Pending) -> bool {
    pending.poll_settled(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
}
