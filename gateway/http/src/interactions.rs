// SPDX-License-Identifier: AGPL-3.0-only
//! One interaction, from its signed body to its answer. Ways are asked one after the other until somebody answers; when
//! the time is over Discord is told to wait, and what comes then goes `late`.

use std::future::ready;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use holdfast_contract::v1::{Error, ErrorCode, ReplyOutcome};
use holdfast_discord::interaction::{CallbackKind, Interaction, InteractionKind};
use http::StatusCode;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::answer::{self, Answer};
use crate::asked::{Asked, Posted};
use crate::front::Front;
use crate::late::DEFERRED_BY;
use crate::reply::{Raw, Reply};
use crate::settings::WayKind;
use crate::ticket::{Deferral, Ticket};
use crate::ways::{Failure, Receipt, Replies, Said};

/// How a round of asking ended.
enum Ended {
    /// A worker's answer.
    Answered(Reply),
    /// A worker answers itself.
    Taken,
    /// Nobody in time: why, and whoever may still say something.
    Nobody(&'static str, Option<Replies>),
    /// A client of the WebSocket front may have it. It answers it itself, or doesn't: nothing else can follow.
    Unknown,
}

/// Answers one.
pub(crate) async fn answer(front: &Arc<Front>, posted: Posted) -> Answer {
    let body = posted.body.clone();
    let interaction = match Interaction::parse(&body) {
        Ok(interaction) => interaction,
        Err(error) => {
            debug!(%error, "Discord signed what is no interaction");
            front.metrics.refused("malformed");
            return answer::plain(StatusCode::BAD_REQUEST, "no interaction\n");
        }
    };
    let kind = interaction.kind();
    if kind == InteractionKind::Ping {
        front.metrics.interaction(kind.name(), "pong");
        return answer::pong();
    }
    let rule = front.routes.find(kind, interaction.name());
    let asked = Arc::new(Asked::new(posted, &interaction, rule, &front.config));
    match ask(front, &asked).await {
        Ended::Answered(reply) => {
            front.metrics.interaction(kind.name(), "answered");
            let (content_type, body) = reply.answer();
            answer::body(&content_type, body)
        }
        Ended::Taken => {
            front.metrics.interaction(kind.name(), "taken");
            answer::empty(StatusCode::ACCEPTED)
        }
        Ended::Nobody(cause, replies) => defer(front, &asked, cause, replies),
        Ended::Unknown => {
            front.metrics.interaction(kind.name(), "failed");
            answer::plain(StatusCode::GATEWAY_TIMEOUT, "it isn't known whether a client has it\n")
        }
    }
}

/// What Discord is told by a worker that says that more follows.
fn told(callback: CallbackKind) -> Option<Deferral> {
    match callback {
        CallbackKind::DeferredMessage => Some(Deferral::Message { ephemeral: false }),
        CallbackKind::DeferredUpdate => Some(Deferral::Update),
        _ => None,
    }
}

async fn ask(front: &Arc<Front>, asked: &Arc<Asked>) -> Ended {
    let mut cause = "no_worker";
    let (ways, mut left) = (&asked.rule.ways, asked.rule.ways.len());
    for way in ways {
        left -= 1;
        // The last one is waited for: it may open, and a late answer is better than none.
        if left > 0 && !front.ways.is_open(*way) {
            cause = "unavailable";
            continue;
        }
        let mut replies = front.ways.ask(*way, asked, left == 0);
        match timeout_at(asked.answer_by, replies.next()).await {
            Ok(Some(Ok(Said::Taken))) => return Ended::Taken,
            // The worker has told Discord itself to wait, and this is what follows.
            Ok(Some(Ok(said @ Said::Reply(Raw { deferred_with: 1.., .. }, _)))) => {
                let replies = stream::once(ready(Ok(said))).chain(replies).boxed();
                listen(front, asked.ticket.clone(), asked.answer_by, replies);
                return Ended::Taken;
            }
            Ok(Some(Ok(Said::Reply(raw, receipt)))) => {
                return match raw.read(&asked.ticket, front.config.max_reply).await {
                    Ok(reply) => {
                        tell(front, asked, receipt, Ok(ReplyOutcome::Answered));
                        match told(reply.callback) {
                            // The worker says that more follows. As long as it replies to whom it came from, we listen;
                            // later it replies to the queue, or by Discord's REST API.
                            Some(deferral) => {
                                let ticket = Ticket { deferral, ..asked.ticket.clone() };
                                listen(front, ticket, asked.answer_by, replies);
                            }
                            None => front.late.answered(&asked.ticket, &front.tasks),
                        }
                        Ended::Answered(reply)
                    }
                    Err(error) => {
                        debug!(id = asked.ticket.id, reason = error.message, "a worker's reply is no answer");
                        tell(front, asked, receipt, Err(error));
                        Ended::Nobody("invalid", Some(replies))
                    }
                };
            }
            Ok(Some(Err(Failure::Lost))) if *way == WayKind::WebSocket => return Ended::Unknown,
            // Somebody has it: asking another one would be asking twice.
            Ok(Some(Err(failure))) if failure.somebody_has_it() => {
                return Ended::Nobody(failure.name(), Some(replies));
            }
            Ok(Some(Err(failure))) => cause = failure.name(),
            Ok(None) => return Ended::Nobody("slow", None),
            Err(_) if front.ways.is_open(*way) => return Ended::Nobody("slow", Some(replies)),
            Err(_) => return Ended::Nobody("unavailable", Some(replies)),
        }
    }
    Ended::Nobody(cause, None)
}

/// Tells Discord to wait, if that can be told, and goes on listening.
fn defer(front: &Arc<Front>, asked: &Arc<Asked>, cause: &'static str, replies: Option<Replies>) -> Answer {
    front.metrics.deferred(cause);
    let kind = asked.kind.name();
    let Some(answer) = answer::deferred(asked.kind, asked.ticket.deferral) else {
        // What comes now is of no use. That is told to workers that reply to the queue of late ones.
        front.metrics.interaction(kind, "failed");
        return answer::plain(StatusCode::GATEWAY_TIMEOUT, "no worker has answered in time\n");
    };
    if let Some(replies) = replies {
        listen(front, asked.ticket.clone(), asked.late_until, replies);
    }
    front.metrics.interaction(kind, "deferred");
    answer
}

/// Listens for what comes after Discord was told to wait.
fn listen(front: &Arc<Front>, ticket: Ticket, until: Instant, mut replies: Replies) {
    let Ok(place) = Arc::clone(&front.late_places).try_acquire_owned() else {
        front.metrics.late("full");
        return;
    };
    let (front, tasks) = (Arc::clone(front), front.tasks.clone());
    tasks.spawn("listening for a late reply", async move {
        let _place = place;
        front.metrics.waiting_late.inc();
        if !follow(&front, &ticket, until, &mut replies).await {
            front.metrics.late("none");
        }
        front.metrics.waiting_late.dec();
    });
}

/// Sends what comes late, until something of it is with Discord. False: nothing came in time.
async fn follow(front: &Front, ticket: &Ticket, until: Instant, replies: &mut Replies) -> bool {
    let deferred = Instant::now() + DEFERRED_BY;
    let listening = front.late.listening(ticket);
    loop {
        // The end of the service ends the waiting, not the sending of what has come.
        let said = tokio::select! { biased;
            () = listening.ended.cancelled() => return true,
            said = timeout_at(until, replies.next()) => said,
            () = front.tasks.token().cancelled() => return false,
        };
        let Ok(Some(said)) = said else { return false };
        let Ok(Said::Reply(raw, receipt)) = said else { continue };
        let became = front.late.send(ticket, raw, deferred).await;
        front.metrics.late(outcome(&became));
        let is_sent = matches!(became, Ok(ReplyOutcome::SentLate));
        if let Some(receipt) = receipt {
            receipt.send(ticket.id, became).await;
        }
        if is_sent {
            return true;
        }
    }
}

/// As metrics name what became of a late reply.
pub(crate) fn outcome(became: &Result<ReplyOutcome, Error>) -> &'static str {
    match became {
        Ok(ReplyOutcome::NothingToDo) => "nothing_to_do",
        Ok(_) => "sent",
        Err(error) => match error.code() {
            ErrorCode::TooLate => "too_late",
            ErrorCode::InvalidArgument | ErrorCode::Malformed => "invalid",
            ErrorCode::AlreadyAnswered => "already_answered",
            _ => "failed",
        },
    }
}

/// Tells a worker what became of its reply, if it wants to know; nothing waits for that.
fn tell(front: &Front, asked: &Asked, receipt: Option<Receipt>, became: Result<ReplyOutcome, Error>) {
    if let Some(receipt) = receipt {
        front.tasks.spawn("a receipt", receipt.send(asked.ticket.id, became));
    }
}
