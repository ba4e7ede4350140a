// SPDX-License-Identifier: AGPL-3.0-only
//! Replies that come after Discord was told to wait: sent as an edit of the deferred message or as one that follows it,
//! through the limits that all services share. In: replies, from whoever still listens and from the queue of late ones,
//! which outlives this process. Out: requests to Discord.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use holdfast_broker::{
    Broker, ConsumerOptions, DeadLetter, DeclareError, Delivery, Exchange, ExchangeKind, Names, Overflow,
    Queue, QueueKind, Refusal, Topology,
};
use holdfast_contract::v1::{Error, ErrorCode, ReplyOutcome};
use holdfast_discord::interaction::CallbackKind;
use holdfast_rest::{Call, CallError, Caller, Forwarder, Payload, Priority};
use holdfast_service::Condition;
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::interactions::outcome;
use crate::metrics::Metrics;
use crate::reply::{Raw, Reply};
use crate::seen::{Key, Seen};
use crate::ticket::{Deferral, Ticket};
use crate::ways::amqp;

const AGENT: &str = concat!("DiscordBot (holdfast-http, ", env!("CARGO_PKG_VERSION"), ")");
/// Discord has our deferral this long after the time for it, or never.
const DEFERRED_BY: Duration = Duration::from_millis(500);
/// How often Discord is asked again whom it couldn't be reached for, or who it doesn't know yet; a second more each time.
const ATTEMPTS: u32 = 5;
/// A second reply to an interaction that was answered comes within this time, from a worker that has died and come back.
const STRAGGLERS: Duration = Duration::from_secs(15 * 60);
/// Late replies of the queue that are sent at once.
const AT_ONCE: usize = 64;

/// The queue holds a quarter of an hour's late replies of a bot with eleven a second; then the oldest go: they would have
/// been too late next.
const MAX_QUEUE: u64 = 10_000;
const MAX_QUEUE_BYTES: u64 = 256 << 20;
/// Crashes over one message before it is set aside.
const DELIVERY_LIMIT: u32 = 5;

/// See the module's documentation.
pub(crate) struct Late {
    forwarder: Forwarder,
    /// Interactions that have been answered late.
    answered: Seen,
    max_body: usize,
}

impl Late {
    pub(crate) fn new(forwarder: Forwarder, answered: Seen, max_body: usize) -> Self {
        Self { forwarder, answered, max_body }
    }

    /// The interaction is answered: what comes now counts for nothing.
    pub(crate) async fn answered(&self, ticket: &Ticket) {
        self.answered.take(key(ticket), STRAGGLERS).await;
    }

    /// Sends a reply.
    pub(crate) async fn send(&self, ticket: &Ticket, raw: Raw) -> Result<ReplyOutcome, Error> {
        let left = ticket.late_until_ms.saturating_sub(unix_ms());
        if ticket.deferral == Deferral::None || left == 0 {
            return Err(Error::new(ErrorCode::TooLate, "such an interaction can't be answered any more"));
        }
        if raw.body.len() > self.max_body {
            return Err(Error::new(ErrorCode::TooLarge, "the reply is larger than http.max_reply"));
        }
        let reply = raw.read(ticket).await?;
        let Some((method, follows)) = as_message(reply.callback, ticket.deferral)? else {
            return Ok(ReplyOutcome::NothingToDo);
        };
        let key = key(ticket);
        let within = Duration::from_millis(left);
        if !self.answered.take(key, within).await {
            return Err(Error::new(ErrorCode::AlreadyAnswered, "another reply came before"));
        }
        let sent = self.request(ticket, method, follows, reply, Instant::now() + within).await;
        if sent.is_err() {
            self.answered.give_back(&key).await;
        }
        sent.map(|()| ReplyOutcome::SentLate)
    }

    async fn request(
        &self,
        ticket: &Ticket,
        method: Method,
        follows: bool,
        reply: Reply,
        deadline: Instant,
    ) -> Result<(), Error> {
        // Until Discord has been told to wait, there is nothing to edit.
        let early = ticket.answer_by_ms.saturating_sub(unix_ms());
        if early > 0 {
            sleep(Duration::from_millis(early) + DEFERRED_BY).await;
        }
        let (content_type, body) = reply.message();
        let mut attempt = 1;
        loop {
            let call = self.call(ticket, &method, follows, (&content_type, body.clone()), deadline)?;
            let error = match self.forwarder.send(call).await {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => {
                    // It may not have had our deferral yet.
                    let again = response.status() == StatusCode::NOT_FOUND && early > 0;
                    let text = format!("Discord answers {}", response.status());
                    let error = Error::new(ErrorCode::RefusedByDiscord, text);
                    if !again && !response.status().is_server_error() {
                        return Err(error);
                    }
                    error
                }
                // A message that follows isn't sent again where it may have arrived.
                Err(CallError::Upstream(error)) if follows && !is_unsent(&error) => {
                    return Err(Error::new(ErrorCode::Interrupted, error.to_string()));
                }
                Err(error) => Error::new(ErrorCode::DeadlineExceeded, error.to_string()),
            };
            let pause = Instant::now() + Duration::from_secs(1) * attempt;
            if attempt >= ATTEMPTS || pause >= deadline {
                return Err(error);
            }
            attempt += 1;
            sleep_until(pause).await;
        }
    }

    fn call(
        &self,
        ticket: &Ticket,
        method: &Method,
        follows: bool,
        (content_type, body): (&str, Bytes),
        deadline: Instant,
    ) -> Result<Call, Error> {
        let base = self.forwarder.upstream().base();
        let (application, token) = (ticket.application, &ticket.token);
        let original = if follows { "" } else { "/messages/@original" };
        let target = format!("{base}/webhooks/{application}/{token}{original}");
        let malformed = || Error::new(ErrorCode::Malformed, "the ticket isn't one of ours");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).map_err(|_| malformed())?);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        Ok(Call {
            method: method.clone(),
            target: target.parse().map_err(|_| malformed())?,
            below: base.len(),
            headers,
            payload: Payload::Whole(body),
            priority: Some(Priority::High),
            caller: Caller(0),
            deadline,
            stop: None,
        })
    }
}

/// What an interaction is known by.
fn key(ticket: &Ticket) -> Key {
    Sha256::digest(ticket.token.as_bytes()).into()
}

/// The request that a late response becomes, and whether it follows instead of editing; none, if Discord knows what it
/// says.
fn as_message(callback: CallbackKind, deferral: Deferral) -> Result<Option<(Method, bool)>, Error> {
    let edit = Ok(Some((Method::PATCH, false)));
    match (callback, deferral) {
        (CallbackKind::DeferredMessage | CallbackKind::DeferredUpdate, _) => Ok(None),
        (CallbackKind::Message, Deferral::Message { .. }) | (CallbackKind::Update, Deferral::Update) => edit,
        (CallbackKind::Message, Deferral::Update) => Ok(Some((Method::POST, true))),
        (CallbackKind::Update, Deferral::Message { .. }) => {
            let text =
                "Discord was told that a message follows: the component's own can't be edited so any more";
            Err(Error::new(ErrorCode::TooLate, text))
        }
        _ => Err(Error::new(ErrorCode::TooLate, "such a response has to come in time")),
    }
}

fn is_unsent(error: &holdfast_rest::UpstreamError) -> bool {
    matches!(error, holdfast_rest::UpstreamError::Unreachable(_))
}

/// Declares what the service needs of the broker, and sends what comes by the queue of late replies until it stops.
///
/// # Errors
/// The broker refuses the queue.
pub(crate) async fn run(
    broker: Broker,
    late: Arc<Late>,
    metrics: Arc<Metrics>,
    declared: Condition,
    stop: CancellationToken,
) -> Result<(), Refusal> {
    match broker.declare(&topology(broker.names())).await {
        Ok(()) => declared.ready(),
        Err(DeclareError::Refused(refusal)) => return Err(refusal),
        Err(DeclareError::Closed) => return Ok(()),
    }
    let queue = broker.names().late_interactions();
    let consumer =
        broker.consume(ConsumerOptions { prefetch: AT_ONCE as u16, ..ConsumerOptions::new(queue) });
    let deliveries = stream::unfold(consumer, async |mut consumer| Some((consumer.next().await?, consumer)));
    let (broker, late, metrics) = (&broker, &late, &metrics);
    let sending = deliveries.take_until(stop.cancelled_owned());
    sending.for_each_concurrent(AT_ONCE, |delivery| take(broker, late, metrics, delivery)).await;
    Ok(())
}

async fn take(broker: &Broker, late: &Late, metrics: &Metrics, delivery: Delivery) {
    let (reply, receipt) = amqp::read(broker, &delivery.message);
    let ticket = reply.as_ref().ok().and_then(|reply| Ticket::read(&reply.ticket));
    let became = match (reply, &ticket) {
        (Err(error), _) => Err(error),
        (Ok(_), None) => Err(Error::new(ErrorCode::Malformed, "the ticket isn't the interaction's")),
        (Ok(reply), Some(ticket)) => late.send(ticket, amqp::raw(reply)).await,
    };
    metrics.late(outcome(&became));
    let refused = became.as_ref().err().map(|error| error.code().name());
    if let Some(receipt) = receipt {
        receipt.send(ticket.map_or(0, |ticket| ticket.id), became).await;
    }
    match refused {
        None => delivery.ack(),
        Some(reason) => {
            debug!(reason, "a late reply is of no use");
            if let Err(error) = delivery.reject(reason).await {
                warn!(%error, "a late reply that is of no use could not be set aside");
            }
        }
    }
}

/// What interactions need at the broker.
pub(crate) fn topology(names: &Names) -> Topology {
    let late = Queue {
        max_length: Some(MAX_QUEUE),
        max_length_bytes: Some(MAX_QUEUE_BYTES),
        overflow: Overflow::DropHead,
        delivery_limit: Some(DELIVERY_LIMIT),
        dead_letter: Some(DeadLetter { exchange: names.dead(), key: Some(names.late_interactions()) }),
        ..Queue::new(names.late_interactions(), QueueKind::Quorum)
    };
    Topology {
        exchanges: vec![
            Exchange::new(names.dead(), ExchangeKind::Topic),
            Exchange::new(names.interactions(), ExchangeKind::Topic),
            Exchange::new(names.webhook_events(), ExchangeKind::Topic),
            // For clients of the WebSocket front: where nobody has declared it, asking would end the channel for all.
            Exchange::new(names.commands(), ExchangeKind::Direct),
        ],
        queues: vec![late],
        bindings: Vec::new(),
    }
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_response_becomes_an_edit_a_message_or_nothing() {
        let message = Deferral::Message { ephemeral: false };
        let of = |callback, deferral| as_message(callback, deferral).map_err(|error| error.code());
        let (edit, follow) = (Ok(Some((Method::PATCH, false))), Ok(Some((Method::POST, true))));
        assert_eq!(of(CallbackKind::Message, message), edit);
        assert_eq!(of(CallbackKind::Update, Deferral::Update), edit);
        assert_eq!(of(CallbackKind::Message, Deferral::Update), follow);
        assert_eq!(of(CallbackKind::DeferredMessage, message), Ok(None));
        assert_eq!(of(CallbackKind::DeferredUpdate, Deferral::Update), Ok(None));
        for (callback, deferral) in [
            (CallbackKind::Update, message),
            (CallbackKind::Modal, message),
            (CallbackKind::Modal, Deferral::Update),
            (CallbackKind::Choices, message),
        ] {
            assert_eq!(of(callback, deferral), Err(ErrorCode::TooLate), "{callback:?}");
        }
    }
}
