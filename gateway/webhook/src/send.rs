// SPDX-License-Identifier: AGPL-3.0-only
//! One message to its end: sent within the limits, again where that is safe, until its deadline. In: a job. Out:
//! Discord's answer, why there is none, or that it was left alone because the service ends.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use holdfast_broker::HEADER_TRACE;
use holdfast_contract::v1::{Error, ErrorCode, RestHeader, RestResponse};
use holdfast_rest::{
    AfterLoss, Body, BodyError, Call, CallError, Caller, Forwarder, Payload, Refusal, UpstreamError,
    webhook_is_gone,
};
use holdfast_service::Backoff;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Frame;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::job::{Content, Job};
use crate::metrics::Metrics;
use crate::multipart::{Form, Piece};
use crate::uploads::{UploadError, Uploads};

/// Discord asks every client to name itself in this form ("User Agent").
const AGENT: &str = concat!("DiscordBot (holdfast-webhook, ", env!("CARGO_PKG_VERSION"), ")");

/// A message that Discord answers with is at most some ten KiB.
const MAX_ANSWER: usize = 1 << 20;

/// The JSON error code of a message that isn't there ("JSON Error Codes").
const UNKNOWN_MESSAGE: u64 = 10_008;

/// The pause after the first failure, doubled with each further one up to the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Sends messages.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) forwarder: Forwarder,
    pub(crate) uploads: Uploads,
    /// How long the body of an answer may take.
    pub(crate) patience: Duration,
}

/// How a message ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Done(RestResponse),
    Failed(Error, Option<RestResponse>),
    /// It was told to stop, or isn't wanted any more, and nothing of it was done.
    Left,
}

/// How one attempt ended.
enum Attempt {
    Over(Ending),
    /// Another one may do.
    Later(Error, Option<Duration>),
}

impl Sender {
    /// Sends a message until it is over. `stop` ends its waiting, not what is sent already; `wanted` is asked each time
    /// that it is its turn, and leaves it when it isn't any more.
    pub(crate) async fn send<W: Future<Output = bool>>(
        &self,
        job: &Job,
        metrics: &Metrics,
        stop: &CancellationToken,
        wanted: impl Fn() -> W,
    ) -> Ending {
        if Instant::now() >= job.deadline {
            let text = "the deadline passed while those before it were sent";
            return failed(ErrorCode::DeadlineExceeded, text);
        }
        let mut backoff = Backoff::new(PAUSES[0], PAUSES[1]);
        let mut may_be_done = job.again;
        loop {
            let (why, pause) = match self.attempt(job, stop, &wanted, may_be_done).await {
                Attempt::Over(ending) => return ending,
                Attempt::Later(why, pause) => (why, pause.unwrap_or_else(|| backoff.failed())),
            };
            may_be_done |= why.code() == ErrorCode::NoAnswer;
            if Instant::now() + pause >= job.deadline {
                return failed(
                    ErrorCode::DeadlineExceeded,
                    format!("the deadline comes first; {}", why.message),
                );
            }
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return Ending::Left;
            }
            metrics.retried.inc();
        }
    }

    async fn attempt<W: Future<Output = bool>>(
        &self,
        job: &Job,
        stop: &CancellationToken,
        wanted: impl Fn() -> W,
        may_be_done: bool,
    ) -> Attempt {
        let (payload, mut headers) = match self.payload(&job.content).await {
            Ok(payload) => payload,
            Err(error @ UploadError::Unknown) => {
                return Attempt::Over(failed(ErrorCode::UnknownUpload, error.to_string()));
            }
            Err(error @ UploadError::Unreachable(_)) => {
                return Attempt::Later(Error::new(ErrorCode::UnknownUpload, error.to_string()), None);
            }
        };
        if let Some(trace) = &job.trace {
            headers.insert(HEADER_TRACE, trace.clone());
        }
        let call = Call {
            method: job.method.clone(),
            target: job.target.clone(),
            below: self.forwarder.upstream().base().len(),
            headers,
            payload,
            priority: None,
            caller: Caller(job.webhook),
            deadline: job.deadline,
            stop: Some(stop.clone()),
        };
        match self.forwarder.send_if(call, wanted).await {
            Ok(response) => {
                let lost = may_be_done || response.extensions().get::<AfterLoss>().is_some();
                answered(response, job, lost, self.patience).await
            }
            Err(CallError::Refused(refusal)) => refused(refusal),
            Err(CallError::Upstream(error)) => unanswered(&error, job.repeatable),
        }
    }

    /// The body, with the headers that describe it.
    async fn payload(&self, content: &Content) -> Result<(Payload, HeaderMap), UploadError> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let (payload, kind) = match content {
            Content::Nothing => return Ok((Payload::Whole(Bytes::new()), headers)),
            Content::Json(json) => {
                (Payload::Whole(json.clone()), HeaderValue::from_static("application/json"))
            }
            Content::Form(form) => {
                let payload = match form.whole() {
                    Some(whole) => Payload::Whole(whole),
                    None => {
                        let (body, bytes) = self.stream(form).await?;
                        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
                        Payload::Made(body)
                    }
                };
                let kind = HeaderValue::try_from(form.content_type());
                (payload, kind.expect("a boundary consists of hexadecimal digits"))
            }
        };
        headers.insert(CONTENT_TYPE, kind);
        Ok((payload, headers))
    }

    /// A body whose uploads come while it is sent, and its length.
    async fn stream(&self, form: &Form) -> Result<(UnsyncBoxBody<Bytes, BodyError>, u64), UploadError> {
        let (mut bodies, mut length) = (Vec::new(), 0);
        for piece in form.pieces() {
            bodies.push(match piece {
                Piece::Bytes(bytes) => {
                    length += bytes.len() as u64;
                    let frame = Ok(Frame::data(bytes.clone()));
                    StreamExt::boxed(stream::once(std::future::ready(frame)))
                }
                Piece::Upload(url) => {
                    let upload = self.uploads.open(url).await?;
                    length += upload.bytes;
                    let data = upload.body.into_data_stream();
                    data.map(|data| data.map(Frame::data).map_err(BodyError::from)).boxed()
                }
            });
        }
        let body = StreamBody::new(stream::iter(bodies).flatten());
        Ok((UnsyncBoxBody::new(body), length))
    }
}

/// What an answer means; `may_be_done` if the job was tried before, and nobody knows what became of that.
async fn answered(response: Response<Body>, job: &Job, may_be_done: bool, patience: Duration) -> Attempt {
    let (head, body) = response.into_parts();
    // What of an answer is lost, or doesn't come, doesn't undo what was done.
    let body = timeout(patience, Limited::new(body, MAX_ANSWER).collect()).await.ok().and_then(Result::ok);
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let kind = head.headers.get(CONTENT_TYPE).map(|value| RestHeader {
        name: CONTENT_TYPE.to_string(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    });
    let status = head.status;
    let response = RestResponse { status: status.as_u16().into(), headers: kind.into_iter().collect(), body };
    let code = match status {
        status if status.is_success() => return Attempt::Over(Ending::Done(response)),
        StatusCode::TOO_MANY_REQUESTS => {
            // What it is about is held by now: the next attempt waits its turn.
            return Attempt::Later(Error::new(ErrorCode::RateLimited, "Discord answered with 429"), None);
        }
        // What was to be deleted is gone.
        StatusCode::NOT_FOUND if may_be_done && job.method == Method::DELETE && is_gone(&response.body) => {
            return Attempt::Over(Ending::Done(response));
        }
        status if status.is_server_error() && job.repeatable => {
            return Attempt::Later(
                Error::new(ErrorCode::NoAnswer, format!("Discord answered with {status}")),
                None,
            );
        }
        status if status.is_server_error() => ErrorCode::NoAnswer,
        _ if webhook_is_gone(&response.body) => ErrorCode::WebhookGone,
        _ => ErrorCode::RefusedByDiscord,
    };
    let error = Error::new(code, format!("Discord answered with {status}"));
    Attempt::Over(Ending::Failed(error, Some(response)))
}

/// Whether the body of an error says that there is no such message.
fn is_gone(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|said| said["code"] == UNKNOWN_MESSAGE)
}

fn refused(refusal: Refusal) -> Attempt {
    let text = refusal.to_string();
    let code = match refusal {
        Refusal::Stopped => return Attempt::Over(Ending::Left),
        Refusal::Full { retry_after } => {
            return Attempt::Later(Error::new(ErrorCode::QueueFull, text), Some(retry_after));
        }
        Refusal::Guarded { retry_after } | Refusal::Banned { retry_after } => {
            return Attempt::Later(Error::new(ErrorCode::Guarded, text), Some(retry_after));
        }
        Refusal::Late { .. } => ErrorCode::DeadlineExceeded,
        Refusal::Webhook => ErrorCode::WebhookGone,
        Refusal::Token => ErrorCode::TokenRefused,
    };
    Attempt::Over(failed(code, text))
}

fn unanswered(error: &UpstreamError, repeatable: bool) -> Attempt {
    let text = error.to_string();
    match error {
        UpstreamError::Unreachable(_) => Attempt::Later(Error::new(ErrorCode::Unreachable, text), None),
        // An upload broke off: Discord has nothing whole of it.
        UpstreamError::Body => Attempt::Later(Error::new(ErrorCode::UnknownUpload, text), None),
        _ if repeatable => Attempt::Later(Error::new(ErrorCode::NoAnswer, text), None),
        _ => Attempt::Over(failed(ErrorCode::NoAnswer, text)),
    }
}

fn failed(code: ErrorCode, text: impl Into<String>) -> Ending {
    Ending::Failed(Error::new(code, text), None)
}
