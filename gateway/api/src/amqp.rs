// SPDX-License-Identifier: AGPL-3.0-only
//! The AMQP front: requests for workers that would rather not speak HTTP. In: a queue that all replicas share. Out: one
//! reply each. One task; requests are futures of it, so many at a time. A request is acknowledged when it is answered.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use holdfast_broker::{
    Binding, Broker, ConsumerOptions, DeclareError, Exchange, ExchangeKind, HEADER_TRACE, Message, Names,
    Overflow, Queue, QueueKind, Refusal, Request, Topology,
};
use holdfast_contract::SCHEMA;
use holdfast_contract::v1::rest_reply::Result as Outcome;
use holdfast_contract::v1::{self, Error, ErrorCode, RestHeader, RestReply, RestRequest, RestResponse};
use holdfast_rest::{Body, Caller, Entry, Payload, Priority, ledger_key};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use prost::Message as _;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::answer::Problem;
use crate::metrics::Metrics;
use crate::outgoing::{Asked, Outgoing};

/// The largest request: ten times what a message's text and embeds can be.
const MAX_REQUEST: usize = 256 << 10;
/// AMQP's bound on short texts; keys of our own are no longer either.
const MAX_KEY: usize = 255;
/// The longest reply that is kept for repetitions.
const MAX_KEPT: usize = 64 << 10;
/// What a reply consists of besides the answer's body.
const ENVELOPE: usize = 64 << 10;
/// Requests that wait in the queue, and their bytes: every replica must declare the same.
const MAX_WAITING: (u64, u64) = (10_000, 64 << 20);
/// Nobody waits longer for a request to be taken in.
const TTL: Duration = Duration::from_secs(60);
/// When a request whose like is under way is asked for again, about.
const AGAIN: Duration = Duration::from_secs(1);

/// Answers until the service stops.
///
/// # Errors
/// The broker refuses us.
pub(crate) async fn run(
    outgoing: Arc<Outgoing>,
    broker: Broker,
    stop: CancellationToken,
) -> Result<(), Refusal> {
    match stop.run_until_cancelled(broker.declare(&topology(broker.names()))).await {
        Some(Ok(())) => {}
        Some(Err(DeclareError::Refused(refusal))) => return Err(refusal),
        Some(Err(DeclareError::Closed)) | None => return Ok(()),
    }
    let prefetch = outgoing.config.requests_in_flight;
    let options = ConsumerOptions { prefetch, ..ConsumerOptions::new(broker.names().rest_requests()) };
    let mut queue = broker.respond(options);
    let most = outgoing.config.broker.as_ref().map_or(16 << 20, |broker| broker.max_message_bytes);
    let front = Front { outgoing, most: most.saturating_sub(ENVELOPE), stop: stop.clone() };
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! { biased;
            () = stop.cancelled() => break,
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            request = queue.next() => match request {
                Some(request) => under_way.push(front.serve(request)),
                None => break,
            },
        }
    }
    // What is sent already is answered; the queue lives until then, so that it can be acknowledged.
    while under_way.next().await.is_some() {}
    Ok(())
}

/// The exchanges that the service declares.
#[must_use]
pub fn exchanges(names: &Names) -> Vec<Exchange> {
    topology(names).exchanges
}

fn topology(names: &Names) -> Topology {
    let queue = Queue {
        max_length: Some(MAX_WAITING.0),
        max_length_bytes: Some(MAX_WAITING.1),
        overflow: Overflow::RejectPublish,
        message_ttl: Some(TTL),
        ..Queue::new(names.rest_requests(), QueueKind::Classic)
    };
    Topology {
        exchanges: vec![
            Exchange::new(names.dead(), ExchangeKind::Topic),
            Exchange::new(names.requests(), ExchangeKind::Direct),
        ],
        bindings: vec![Binding::queue(names.requests(), names.rest_requests(), Names::REST_KEY)],
        queues: vec![queue],
    }
}

struct Front {
    outgoing: Arc<Outgoing>,
    /// The longest body of an answer.
    most: usize,
    stop: CancellationToken,
}

/// How a request ended.
enum Ending {
    Answered(RestResponse),
    Failed(Error),
    /// Not sent, since the service ends or the request's connection has: it comes again.
    Left,
}

/// A request that can be sent.
struct Ready {
    asked: Asked,
    body: Bytes,
    key: Option<String>,
}

impl Front {
    async fn serve(&self, request: Request) {
        let metrics = &self.outgoing.metrics;
        metrics.amqp_in_flight.inc();
        let asked = request.message().decode::<RestRequest>(MAX_REQUEST);
        let poison = asked.is_err();
        let stop = self.stop.child_token();
        let reply = match asked.and_then(|asked| self.ready(asked, &request, stop.clone())) {
            // One whose connection is lost while it waits comes again, to whoever is next; and is sent by whoever that is, if
            // it may be.
            Ok(ready) if ready.asked.method.is_idempotent() && ready.key.is_none() => {
                request.stopped_when_lost(&stop, self.reply(ready)).await
            }
            Ok(ready) => self.reply(ready).await,
            Err(error) => Some(reply(Outcome::Error(error))),
        };
        if let Some(reply) = reply {
            let outcome = outcome_of(&reply);
            metrics.ended(outcome);
            if let Err(error) = request.answer(&reply).await {
                debug!(%error, "the answer to a request can't be delivered");
            }
            settle(request, outcome, poison).await;
        }
        metrics.amqp_in_flight.dec();
    }

    /// The request as it is to be sent.
    fn ready(&self, asked: RestRequest, request: &Request, stop: CancellationToken) -> Result<Ready, Error> {
        let method: Method = asked.method.parse().map_err(|_| invalid("method"))?;
        if method == Method::CONNECT || asked.idempotency_key.len() > MAX_KEY {
            return Err(invalid(if method == Method::CONNECT { "method" } else { "idempotency_key" }));
        }
        let uri = asked.path.parse().map_err(|_| invalid("path"))?;
        let target = self.outgoing.target(&uri).map_err(|problem| error_of(&problem))?;
        let mut headers = headers(&asked.headers)?;
        let trace = request.message().headers.text(HEADER_TRACE);
        if let Some(Ok(trace)) = trace.map(HeaderValue::from_str) {
            headers.entry(HEADER_TRACE).or_insert(trace);
        }
        if !self.outgoing.access.takes(&headers) {
            return Err(error_of(&Problem::access()));
        }
        let deadline = self.deadline(asked.deadline_ms, request)?;
        let key = (!asked.idempotency_key.is_empty()).then(|| {
            let token = headers.get(AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
            ledger_key(&[b"rest ", token].concat(), &asked.idempotency_key)
        });
        if request.redelivered() && !method.is_idempotent() && key.is_none() {
            let text = "whoever had this request before was lost: it may have been sent";
            return Err(Error::new(ErrorCode::Interrupted, text));
        }
        let priority = match asked.priority() {
            v1::Priority::Unspecified => None,
            v1::Priority::High => Some(Priority::High),
            v1::Priority::Normal => Some(Priority::Normal),
            v1::Priority::Low => Some(Priority::Low),
        };
        let (caller, stop) = (caller(request.message()), Some(stop));
        Ok(Ready {
            asked: Asked { method, target, headers, priority, caller, deadline, stop },
            body: asked.body,
            key,
        })
    }

    fn deadline(&self, deadline_ms: u64, request: &Request) -> Result<Instant, Error> {
        let most = self.outgoing.config.max_wait;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wait = match deadline_ms {
            0 => most,
            at => Duration::from_millis(at).saturating_sub(unix).min(most),
        };
        let at = Instant::now() + wait;
        let at = request.deadline().map_or(at, |expires| at.min(Instant::from_std(expires)));
        if at <= Instant::now() {
            return Err(Error::new(ErrorCode::DeadlineExceeded, "the deadline passed before it was sent"));
        }
        Ok(at)
    }

    /// Sends the request, unless its like was sent before. `None`: it is left to whoever gets it again.
    async fn reply(&self, ready: Ready) -> Option<RestReply> {
        let Ready { asked, body, key } = ready;
        let Some(key) = key else {
            return said(self.send(asked, body).await);
        };
        let ledger = self.outgoing.way.forwarder.limits().ledger();
        match ledger.begin(&key).await {
            Entry::Fresh => {}
            Entry::Done(known) => {
                self.outgoing.metrics.amqp_repeated.inc();
                return Some(RestReply::decode(known).unwrap_or_default());
            }
            Entry::Undecided => {
                self.outgoing.metrics.amqp_repeated.inc();
                let text = "a request with this idempotency key was begun, and is not answered";
                return Some(reply(Outcome::Error(Error::new(ErrorCode::Undecided, text).after(AGAIN))));
            }
        }
        let ending = self.send(asked, body).await;
        match &ending {
            // Not known, and it stays so.
            Ending::Failed(error) if error.code() == ErrorCode::NoAnswer => {}
            Ending::Failed(error) if error.code() != ErrorCode::AnswerTooLarge => ledger.undone(&key).await,
            Ending::Answered(response) if response.status == 429 => ledger.undone(&key).await,
            Ending::Left => ledger.undone(&key).await,
            Ending::Answered(_) | Ending::Failed(_) => {
                let known = said(ending)?;
                let bytes = known.encode_to_vec();
                let kept = if bytes.len() > MAX_KEPT {
                    reply(Outcome::Error(too_large())).encode_to_vec()
                } else {
                    bytes
                };
                ledger.done(&key, kept.into()).await;
                return Some(known);
            }
        }
        said(ending)
    }

    async fn send(&self, asked: Asked, body: Bytes) -> Ending {
        match self.outgoing.send(asked, Payload::Whole(body)).await {
            Ok(response) => gather(response, self.most, self.outgoing.config.upstream_timeout).await,
            Err(problem) if problem.error == "stopped" => Ending::Left,
            Err(problem) => Ending::Failed(error_of(&problem)),
        }
    }
}

async fn settle(request: Request, outcome: &'static str, poison: bool) {
    if poison {
        if let Err(error) = request.reject(outcome).await {
            debug!(%error, "a request that can't be used could not be set aside");
        }
    } else if outcome == ErrorCode::DeadlineExceeded.name() {
        request.expired();
    } else {
        request.done();
    }
}

async fn gather(response: Response<Body>, most: usize, patience: Duration) -> Ending {
    let (head, body) = response.into_parts();
    let body = match timeout(patience, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Ending::Failed(too_large());
        }
        Ok(Err(_)) | Err(_) => {
            let text = "Discord's answer broke off";
            return Ending::Failed(Error::new(ErrorCode::NoAnswer, text));
        }
    };
    let header = |(name, value): (&HeaderName, &HeaderValue)| RestHeader {
        name: name.to_string(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    let headers = head.headers.iter().map(header).collect();
    Ending::Answered(RestResponse { status: head.status.as_u16().into(), headers, body })
}

fn headers(given: &[RestHeader]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(given.len());
    for header in given {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| invalid("headers"))?;
        let value = HeaderValue::from_bytes(&header.value).map_err(|_| invalid("headers"))?;
        headers.append(name, value);
    }
    // The body's length is what it is.
    headers.remove(http::header::CONTENT_LENGTH);
    Ok(headers)
}

/// Who takes turns: whoever has the same queue for replies. Callers by HTTP have numbers above and below.
fn caller(message: &Message) -> Caller {
    let mut hasher = DefaultHasher::new();
    message.properties.reply_to.hash(&mut hasher);
    Caller(1 << 62 | hasher.finish() >> 2)
}

fn reply(result: Outcome) -> RestReply {
    RestReply { schema: SCHEMA, result: Some(result) }
}

fn said(ending: Ending) -> Option<RestReply> {
    match ending {
        Ending::Answered(response) => Some(reply(Outcome::Response(response))),
        Ending::Failed(error) => Some(reply(Outcome::Error(error))),
        Ending::Left => None,
    }
}

fn outcome_of(reply: &RestReply) -> &'static str {
    match &reply.result {
        Some(Outcome::Response(response)) => Metrics::hundreds(u16::try_from(response.status).unwrap_or(0)),
        Some(Outcome::Error(error)) => error.code().name(),
        None => ErrorCode::Unspecified.name(),
    }
}

/// What the HTTP front says by a status and a word, as a code.
fn error_of(problem: &Problem) -> Error {
    let code = match problem.error {
        "late" => ErrorCode::DeadlineExceeded,
        "full" => ErrorCode::QueueFull,
        "guarded" | "banned" => ErrorCode::Guarded,
        "token-refused" => ErrorCode::TokenRefused,
        "webhook-gone" => ErrorCode::WebhookGone,
        "access" => ErrorCode::Forbidden,
        "unreachable" => ErrorCode::Unreachable,
        "lost" | "timed-out" => ErrorCode::NoAnswer,
        _ if problem.status == StatusCode::BAD_REQUEST => ErrorCode::InvalidArgument,
        _ => ErrorCode::Internal,
    };
    let error = Error::new(code, &problem.message);
    match problem.retry_after {
        Some(wait) => error.after(wait),
        None => error,
    }
}

fn too_large() -> Error {
    Error::new(ErrorCode::AnswerTooLarge, "Discord's answer is larger than a reply may be: ask by HTTP")
}

fn invalid(field: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("{field} can't be used"))
}
