// SPDX-License-Identifier: AGPL-3.0-only
//! By the broker: an `Interaction` with direct reply-to, for whichever worker is bound for its kind and name. The reply is
//! an `InteractionReply`, as long as this process lives; later ones go to a queue, see `late`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use holdfast_broker::{Answers, Broker, HEADER_TRACE, Message, Publication, RequestError, Requester, Text};
use holdfast_contract::SCHEMA;
use holdfast_contract::v1::{
    Error, Interaction, InteractionKind as Kind, InteractionReceipt, InteractionReply, ReplyOutcome,
};
use holdfast_discord::interaction::InteractionKind;

use tokio::time::{sleep, timeout};

use super::{Failure, Replies, Said, left};
use crate::asked::Asked;
use crate::reply::Raw;
use crate::routes::key;

/// The pause before what was interrupted is asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// RabbitMQ takes nothing larger; what may be sent is judged later.
const MAX_REPLY: usize = 128 << 20;
/// A broker that is away gets no receipts.
const RECEIPT_WITHIN: Duration = Duration::from_secs(5);

/// Who wants to know what became of a reply.
#[derive(Debug)]
pub(crate) struct Receipt {
    broker: Broker,
    reply_to: Text,
    correlation_id: Option<Text>,
}

/// An interaction that was asked for, and what is still to come.
struct Asking {
    broker: Broker,
    requester: Requester,
    asked: Arc<Asked>,
    answers: Option<Answers>,
    /// The broker has had it: some worker has it, too.
    confirmed: bool,
    ended: bool,
}

/// Asks, and listens until a reply is of no use any more.
pub(super) fn ask(broker: &Broker, requester: &Requester, asked: Arc<Asked>) -> Replies {
    let (broker, requester) = (broker.clone(), requester.clone());
    let asking = Asking { broker, requester, asked, answers: None, confirmed: false, ended: false };
    stream::unfold(asking, async |mut asking| Some((asking.next().await?, asking))).boxed()
}

impl Asking {
    async fn next(&mut self) -> Option<Result<Said, Failure>> {
        while !self.ended {
            let answer = match &mut self.answers {
                Some(answers) => answers.next().await?,
                None => match begin(&self.broker, &self.requester, &self.asked).await {
                    Ok(answers) => {
                        (self.answers, self.confirmed) = (Some(answers), true);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match answer {
                Ok(message) => return Some(said(&self.broker, &message).await),
                Err(RequestError::Disconnected(_)) if self.may_ask_again() => {
                    self.answers = None;
                    sleep(AGAIN_AFTER).await;
                }
                // Nobody has said anything.
                Err(RequestError::TimedOut) if self.confirmed => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    let failure = if self.confirmed { Failure::Lost } else { Failure::from(&error) };
                    return Some(Err(failure));
                }
            }
        }
        None
    }

    /// A connection that ends takes the replies of the moment with it, without a sign to who sent them: whoever has the
    /// interaction gets it once more, under the same id. Not once Discord has been told to wait: then a reply that doesn't
    /// get through comes by the queue of late ones.
    fn may_ask_again(&self) -> bool {
        let until = if self.confirmed { self.asked.answer_by } else { self.asked.late_until };
        !left(until).is_zero()
    }
}

async fn begin(broker: &Broker, requester: &Requester, asked: &Asked) -> Result<Answers, RequestError> {
    let publication = publication(broker, asked);
    requester.request_many(publication, left(asked.late_until), |_| false).await
}

fn publication(broker: &Broker, asked: &Asked) -> Publication {
    let posted = &asked.posted;
    let interaction = Interaction {
        schema: SCHEMA,
        application: asked.ticket.application,
        id: asked.ticket.id,
        kind: number(asked.kind),
        name: asked.name.clone(),
        guild_id: asked.guild,
        received_at_us: posted.received_us,
        answer_by_ms: asked.ticket.answer_by_ms,
        late_until_ms: asked.late_until_ms(),
        trace: posted.trace.clone(),
        signature: posted.signature.clone(),
        timestamp: posted.timestamp.clone(),
        ticket: asked.ticket.bytes(),
        body: posted.body.clone(),
    };
    let mut message = Message::of(&interaction);
    if !posted.trace.is_empty() {
        message = message.header(HEADER_TRACE, posted.trace.clone());
    }
    Publication::new(broker.names().interactions(), key(asked.kind, &asked.name), message)
}

fn number(kind: InteractionKind) -> i32 {
    let known = match kind {
        InteractionKind::Ping => Kind::Ping,
        InteractionKind::Command => Kind::Command,
        InteractionKind::Component => Kind::Component,
        InteractionKind::Autocomplete => Kind::Autocomplete,
        InteractionKind::Modal => Kind::Modal,
        InteractionKind::Other(number) => return i32::try_from(number).unwrap_or(0),
    };
    known.into()
}

async fn said(broker: &Broker, message: &Message) -> Result<Said, Failure> {
    match read(broker, message) {
        (Ok(reply), receipt) => Ok(Said::Reply(raw(reply), receipt)),
        (Err(error), receipt) => {
            if let Some(receipt) = receipt {
                receipt.send(0, Err(error)).await;
            }
            Err(Failure::Nonsense)
        }
    }
}

/// A worker's message, and who wants to know what becomes of it.
pub(crate) fn read(broker: &Broker, message: &Message) -> (Result<InteractionReply, Error>, Option<Receipt>) {
    let properties = &message.properties;
    let receipt = properties.reply_to.clone().map(|reply_to| Receipt {
        broker: broker.clone(),
        reply_to,
        correlation_id: properties.correlation_id.clone(),
    });
    (message.decode(MAX_REPLY), receipt)
}

/// What the worker wants Discord to have.
pub(crate) fn raw(reply: InteractionReply) -> Raw {
    let InteractionReply { content_type, body, deferred_with, .. } = reply;
    Raw { content_type, body, deferred_with }
}

impl Receipt {
    /// Says how the reply to the interaction `id` has reached Discord, or why it hasn't. A courtesy: whoever asked for it
    /// and is gone is nobody's concern.
    pub(crate) async fn send(self, id: u64, became: Result<ReplyOutcome, Error>) {
        let Self { broker, reply_to, correlation_id } = self;
        let (outcome, error) = match became {
            Ok(outcome) => (outcome, None),
            Err(error) => (ReplyOutcome::Unspecified, Some(error)),
        };
        let receipt = InteractionReceipt { schema: SCHEMA, id, outcome: outcome.into(), error };
        let mut message = Message::of(&receipt);
        message.properties.correlation_id = correlation_id;
        let _ = timeout(RECEIPT_WITHIN, broker.publish(Publication::new("", reply_to, message))).await;
    }
}
