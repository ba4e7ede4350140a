// SPDX-License-Identifier: AGPL-3.0-only
//! One command under way at its shard. In: what the shard says about it, events, time. Out: replies, and how it ended.
//! Follows the command from the outbox to its last result; whatever ends it early takes it back, if that is possible.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdfast_contract::v1::{Accepted, Done, Error, ErrorCode, Outcome, command_reply::Reply};
use tokio::{
    select,
    sync::mpsc,
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    collect::{Collector, Step},
    decode,
    plan::{Plan, What},
    replies::Replies,
};
use crate::{
    log::{Position, Read},
    shard::{Hub, Said, Ticket, Voice, Wanted},
};

/// How a command ended.
#[derive(Debug)]
pub(super) enum Ending {
    Done(Done),
    Rejected(Error),
}

impl Ending {
    /// As metrics name it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Done(done) if done.outcome() == Outcome::Complete => "COMPLETE",
            Self::Done(_) => "TIMED_OUT",
            Self::Rejected(error) => error.code().name(),
        }
    }

    /// The last reply.
    pub(super) fn reply(self) -> Reply {
        match self {
            Self::Done(done) => Reply::Done(done),
            Self::Rejected(error) => Reply::Rejected(holdfast_contract::v1::Rejected { error: Some(error) }),
        }
    }
}

/// A command that the shard was given.
pub(super) struct Job {
    pub(super) plan: Plan,
    /// The whole payload.
    pub(super) payload: Vec<u8>,
    pub(super) collector: Collector,
    pub(super) follow: Follow,
    pub(super) deadline: Instant,
    /// How many commands were before it.
    pub(super) waiting: usize,
}

/// A place among those that the shard says what becomes of their commands; given up when it is dropped.
pub(super) struct Follow {
    hub: Arc<Hub>,
    ticket: Ticket,
    words: mpsc::Receiver<Said>,
}

impl Follow {
    pub(super) fn begin(hub: &Arc<Hub>, wanted: Wanted) -> Self {
        let (ticket, words) = hub.core().awaited.follow(wanted);
        Self { hub: Arc::clone(hub), ticket, words }
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.ticket.withdraw();
        self.hub.core().awaited.forget(self.ticket.number);
    }
}

impl Job {
    /// Runs the command to its end, which is still to be told.
    pub(super) async fn run(mut self, replies: &Replies, stop: &CancellationToken) -> Ending {
        replies.say(Reply::Accepted(Accepted { waiting: small(self.waiting) })).await;
        let deadline = sleep_until(self.deadline.into());
        let mut deadline = std::pin::pin!(deadline);
        let mut grace: Option<Instant> = None;
        loop {
            let step = select! { biased;
                () = stop.cancelled() => return self.stopped(),
                said = self.follow.words.recv() => match said {
                    Some(Said::Written) => self.written(),
                    Some(Said::Event(kind, position)) => match self.data(position).await {
                        Some(data) => self.collector.event(kind, data),
                        None => Step::Nothing,
                    },
                    Some(Said::Dropped) => return Ending::Rejected(full()),
                    Some(Said::Interrupted) | None => return Ending::Rejected(interrupted()),
                },
                () = at(grace) => self.with_voice(Collector::grace),
                () = &mut deadline => return self.out_of_time(),
            };
            grace = self
                .with_voice(|collector, voice| collector.has_grace(voice))
                .then(|| Instant::now() + Collector::GRACE);
            let is_last = matches!(step, Step::Last(_));
            match step {
                Step::Nothing => {}
                Step::Last(None) => return self.done(Outcome::Complete),
                Step::Failed(error) => return Ending::Rejected(error),
                Step::Result(result) | Step::Last(Some(result)) => select! { biased;
                    () = replies.say(result) => {}
                    // The broker takes nothing: this one wasn't said.
                    () = &mut deadline => {
                        self.collector.results -= 1;
                        return self.out_of_time();
                    }
                    () = stop.cancelled() => return self.stopped(),
                },
            }
            if is_last {
                return self.done(Outcome::Complete);
            }
        }
    }

    fn done(&self, outcome: Outcome) -> Ending {
        let (results, expected) = (self.collector.results, self.collector.expected);
        Ending::Done(Done { outcome: outcome.into(), results, expected })
    }

    fn out_of_time(&self) -> Ending {
        if self.follow.ticket.withdraw() {
            return Ending::Rejected(decode::expired());
        }
        self.done(Outcome::TimedOut)
    }

    fn stopped(&self) -> Ending {
        let error = if self.follow.ticket.withdraw() { leaving() } else { interrupted() };
        Ending::Rejected(error)
    }

    /// It is Discord's now. What is to be true of later sessions is remembered, as for clients.
    fn written(&mut self) -> Step {
        {
            let mut core = self.follow.hub.core();
            match &self.plan.what {
                What::Presence => core.presence = Some(std::mem::take(&mut self.payload)),
                What::Voice { guild, channel } => core.voice.want(*guild, channel.is_some(), &self.payload),
                _ => return self.collector.written(None),
            }
            core.record_changed = true;
        }
        self.with_voice(|collector, voice| collector.written(voice))
    }

    fn with_voice<T>(&mut self, look: impl FnOnce(&mut Collector, Option<&Voice>) -> T) -> T {
        match self.plan.what {
            What::Voice { guild, .. } => look(&mut self.collector, self.follow.hub.core().voice.of(guild)),
            _ => look(&mut self.collector, None),
        }
    }

    /// `d` of an event. None: the log has let go of it.
    async fn data(&self, position: Position) -> Option<Bytes> {
        let read = {
            let core = self.follow.hub.core();
            match core.log.read(position - 1) {
                Read::Memory(run) => return data(run.payload(0)),
                Read::Disk(read) => read,
                Read::End | Read::Gone { .. } => return None,
            }
        };
        let run = tokio::task::spawn_blocking(move || read.read(1)).await.ok()?.ok()?;
        let run = run.as_run();
        let index = run.metas.iter().position(|meta| meta.position == position)?;
        data(run.payload(index))
    }
}

fn data(payload: &[u8]) -> Option<Bytes> {
    let range = holdfast_discord::scan(payload).ok()?.data?;
    Some(Bytes::copy_from_slice(payload.get(range)?))
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// Replies of a command that never reached the shard; answered from what is known.
pub(super) async fn answer(replies: &Replies, results: Vec<Reply>, within: Instant) -> Ending {
    let expected = small(results.len());
    let say = async {
        replies.say(Reply::Accepted(Accepted { waiting: 0 })).await;
        for result in results {
            replies.say(result).await;
        }
    };
    // A broker that takes nothing must not hold the command for ever.
    let left = within.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let outcome = match timeout(left, say).await {
        Ok(()) => Outcome::Complete,
        Err(_) => Outcome::TimedOut,
    };
    Ending::Done(Done { outcome: outcome.into(), results: expected, expected })
}

/// Too much waits already.
pub(super) fn full() -> Error {
    Error::new(ErrorCode::QueueFull, "too many commands of this shard are waiting or under way")
}

/// The shard goes elsewhere.
pub(super) fn leaving() -> Error {
    Error::new(ErrorCode::NoOwner, "the shard is being handed over: it was not sent")
}

fn interrupted() -> Error {
    let text = "the shard lost its connection after the command was sent: it may have been done";
    Error::new(ErrorCode::Interrupted, text)
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
