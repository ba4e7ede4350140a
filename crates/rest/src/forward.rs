// SPDX-License-Identifier: AGPL-3.0-only
//! One request to Discord, within the limits: route → permit → request, and once more after a 429. In: a call. Out:
//! Discord's answer with its body as it comes, or why there is none. Owned by the service that sends.

mod answer;
mod payload;
mod upstream;

use std::time::Duration;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use answer::webhook_is_gone;
use answer::{Verdict, judge};
pub use payload::{Body, BodyError, Payload, Stream};
pub use upstream::{Connector, Upstream, UpstreamError, connector};

use crate::limits::{Ask, Caller, Limits, Permit, Priority, Refusal};

/// A request as it is to reach Discord.
#[derive(Debug)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// Path and query at Discord, such as `/api/v10/users/@me`.
    pub target: PathAndQuery,
    /// Where in the path the API's version ends.
    pub below: usize,
    /// Headers, without those of one connection.
    pub headers: HeaderMap,
    /// Body. Only a whole one can be sent again.
    pub payload: Payload,
    /// How urgent it is; by default as its route says.
    pub priority: Option<Priority>,
    /// Who sends it.
    pub caller: Caller,
    /// How long it may wait.
    pub deadline: Instant,
    /// Ends its waiting early; what is sent already goes on.
    pub stop: Option<CancellationToken>,
}

/// Marks an answer's extensions where the call was sent before, and that answer was lost: it may have been done then.
#[derive(Clone, Copy, Debug)]
pub struct AfterLoss;

/// Why there is no answer of Discord's.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It wasn't sent.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Discord didn't answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// Sends calls. Clones share connections and limits.
#[derive(Clone, Debug)]
pub struct Forwarder {
    upstream: Upstream,
    limits: Limits,
}

impl Forwarder {
    /// Sends by `upstream` within `limits`.
    #[must_use]
    pub fn new(upstream: Upstream, limits: Limits) -> Self {
        Self { upstream, limits }
    }

    /// The limits that calls are sent within.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The place at Discord that calls go to.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Sends the call when it is its turn.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn send(&self, call: Call) -> Result<Response<Body>, CallError> {
        self.send_if(call, || std::future::ready(true)).await
    }

    /// As [`send`](Self::send), but asks each time that it is the call's turn whether it is still `wanted`. One that isn't
    /// ends as if it had been stopped.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn send_if<W: Future<Output = bool>>(
        &self,
        call: Call,
        wanted: impl Fn() -> W,
    ) -> Result<Response<Body>, CallError> {
        let Call { method, target, below, mut headers, payload, priority, caller, deadline, stop } = call;
        let authorization = headers.get(AUTHORIZATION).cloned();
        // What a webhook is answered with is looked into: it mustn't be compressed.
        if target.path().get(below..).is_some_and(|path| path.starts_with("/webhooks/")) {
            headers.remove(ACCEPT_ENCODING);
        }
        let name_topic = payload.changes_name_or_topic(&method);
        let again = payload.whole();
        let ask = Ask {
            authorization: authorization.as_ref().map_or(&[], |value| value.as_bytes()),
            method: method.as_str(),
            path: target.path().get(below..).unwrap_or_default(),
            name_topic,
            priority,
            caller,
            deadline,
        };
        let turn = async || {
            let acquired = match &stop {
                Some(stop) => stop.run_until_cancelled(self.limits.acquire(&ask)).await,
                None => Some(self.limits.acquire(&ask).await),
            };
            let permit = acquired.unwrap_or(Err(Refusal::Stopped))?;
            if wanted().await { Ok(permit) } else { Err(Refusal::Stopped) }
        };
        let mut permit = turn().await?;
        let request = |payload: Payload, headers: HeaderMap| {
            let mut request = Request::new(payload);
            *request.method_mut() = method.clone();
            *request.uri_mut() = self.upstream.uri(target.clone());
            *request.headers_mut() = headers;
            request
        };
        let Some(body) = again else {
            let (limited, mut response) = self.attempt(permit, request(payload, headers)).await?;
            if limited {
                response.headers_mut().insert(UNREPEATABLE.0, HeaderValue::from_static(UNREPEATABLE.1));
            }
            return Ok(response);
        };
        let mut lost = 0;
        for attempt in 1.. {
            let outcome = self.attempt(permit, request(Payload::Whole(body.clone()), headers.clone())).await;
            let (limited, mut response) = match outcome {
                Ok(answer) => answer,
                // It may have been done: only what may be done twice is sent again.
                Err(error @ UpstreamError::Lost { .. }) if method.is_idempotent() && lost == 0 => {
                    lost += 1;
                    self.limits.metrics().retried.inc();
                    // What isn't sent again may have been done all the same.
                    permit = turn().await.map_err(|_| error)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if lost > 0 {
                response.extensions_mut().insert(AfterLoss);
            }
            if !limited || attempt >= self.limits.attempts() {
                return Ok(response);
            }
            // What can't be in time is answered with what Discord said.
            permit = match turn().await {
                Ok(permit) => permit,
                Err(Refusal::Stopped) => return Err(Refusal::Stopped.into()),
                Err(_) => return Ok(response),
            };
            self.limits.metrics().retried.inc();
        }
        unreachable!("the loop has no end of its own")
    }

    /// One attempt; true with a 429 that is worth another one.
    async fn attempt(
        &self,
        mut permit: Permit,
        request: Request<Payload>,
    ) -> Result<(bool, Response<Body>), UpstreamError> {
        // Without a token there is none that Discord could not know.
        let has_token = request.headers().contains_key(AUTHORIZATION);
        permit.sending();
        let response = self.upstream.request(request).await.inspect_err(|_| {
            self.limits.metrics().unreachable.inc();
        })?;
        let (verdict, response) = judge(response, permit.route()).await?;
        let status = response.status().as_u16();
        match verdict {
            Verdict::Limited(limited) => {
                permit.limited(&limited).await;
                // A ban isn't over by asking again.
                return Ok((limited.scope.is_some(), response));
            }
            Verdict::TokenRefused if has_token => permit.token_refused(),
            Verdict::WebhookGone => permit.webhook_gone(),
            Verdict::TokenRefused | Verdict::Fine => {}
        }
        let (told, bucket) = answer::told(response.headers());
        permit.answered(status, told, bucket);
        Ok((false, response))
    }
}

/// On a 429 that would have been waited out if the request's body had been kept.
const UNREPEATABLE: (HeaderName, &str) = (HeaderName::from_static("holdfast-unrepeatable"), "body");

/// How long a 429 holds that doesn't say.
const UNSAID: Duration = Duration::from_secs(1);

/// Bodies of 429s and of answers that are looked into: Discord's are below 1 KiB.
const SMALL: usize = 64 << 10;
