// SPDX-License-Identifier: AGPL-3.0-only
//! What becomes of a caller's request: refused, answered here, or sent to Discord. In: requests, each with who sends
//! it. Out: answers. Shared by all connections.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use holdfast_rest::{Body, Call, Caller, Forwarder, Payload, Priority, Stream};
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::access::Access;
use crate::answer::Problem;
use crate::gateway::{gateway, gateway_bot, is_ours};
use crate::metrics::Metrics;
use crate::request::{Target, strip, strip_request, target};
use crate::settings::Config;

/// Discord asks every client to name itself in this form ("User Agent"); for callers that don't.
const AGENT: &str = concat!("DiscordBot (holdfast-api, ", env!("CARGO_PKG_VERSION"), ")");

/// See the module.
pub(crate) struct Front {
    config: Config,
    access: Access,
    /// The bot's token as a header, for requests without one.
    default: Option<HeaderValue>,
    /// The header of the bot whose gateway `ws` serves.
    own: Option<HeaderValue>,
    forwarder: Forwarder,
    metrics: Arc<Metrics>,
    /// Bytes of bodies that are kept for another try.
    kept: Arc<Semaphore>,
}

impl Front {
    pub(crate) fn new(config: Config, forwarder: Forwarder, metrics: Arc<Metrics>) -> Self {
        let own = config.token.as_ref().and_then(|token| {
            let mut value = HeaderValue::from_str(&format!("Bot {}", token.expose())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let only = if config.only_own_token { config.token.clone() } else { None };
        let access = Access { secret: config.secret.clone(), only };
        let default = own.clone().filter(|_| config.default_token);
        let kept = Arc::new(Semaphore::new(config.keep_memory));
        Self { config, access, default, own, forwarder, metrics, kept }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where Discord's API is, for people.
    pub(crate) fn upstream_base(&self) -> &str {
        &self.config.api_url
    }

    /// Answers a request.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Result<Response<Body>, Infallible> {
        let response = match self.forward(request, caller).await {
            Ok(response) => response,
            Err(problem) => {
                self.metrics.failed(problem.error);
                problem.response()
            }
        };
        self.metrics.answered(response.status().as_u16());
        Ok(response)
    }

    async fn forward(&self, request: Request<Incoming>, caller: Caller) -> Result<Response<Body>, Problem> {
        let (head, body) = request.into_parts();
        if head.method == Method::CONNECT {
            return Err(Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "this is no proxy for connections",
            ));
        }
        // In HTTP/2 every request names the host; in HTTP/1.1 only one that is meant for a proxy does in its path.
        if head.uri.authority().is_some() && head.version < Version::HTTP_2 {
            let message = "this is no proxy for other hosts: send paths that begin with a slash";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "path", message));
        }
        let Target { path, below } = target(&head.uri, self.forwarder.upstream().base()).map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "path", "this path leads somewhere else than it seems to")
        })?;
        if !self.access.admits(&head.headers) {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "access",
                "this service does not take your requests",
            ));
        }
        let fronted = self.fronted(&head.method, &path.path()[below..], &head.headers);
        if fronted == Some(Gateway::Plain) {
            return Ok(gateway(&self.config.gateway_url));
        }
        let (deadline, priority) = wishes(&head.headers, self.config.max_wait)?;
        let mut headers = head.headers;
        strip_request(&mut headers);
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        }
        if let Some(token) = &self.default
            && !headers.contains_key(AUTHORIZATION)
        {
            headers.insert(AUTHORIZATION, token.clone());
        }
        if let Some(token) = headers.get_mut(AUTHORIZATION) {
            // Neither printed nor kept in the tables of HTTP/2.
            token.set_sensitive(true);
        }
        let (payload, kept) = self.payload(body).await?;
        let (method, deadline) = (head.method, Instant::now() + deadline);
        let call = Call { method, target: path, below, headers, payload, priority, caller, deadline };
        let mut response = self.forwarder.send(call).await?;
        drop(kept);
        strip(response.headers_mut());
        if fronted == Some(Gateway::Bot) {
            return gateway_bot(response, &self.config.gateway_url, self.config.shards).await;
        }
        Ok(response)
    }

    /// Whether the request asks for the gateway that `ws` serves.
    fn fronted(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Gateway> {
        if !self.config.gateway || *method != Method::GET || !path.starts_with("/gateway") || is_ours(headers)
        {
            return None;
        }
        match path {
            "/gateway" => Some(Gateway::Plain),
            // Another bot's gateway isn't ours.
            "/gateway/bot" if headers.get(AUTHORIZATION) == self.own.as_ref() => Some(Gateway::Bot),
            _ => None,
        }
    }

    /// A short body is read whole, so that it can be sent again; a longer one is sent on as it arrives.
    async fn payload(&self, body: Incoming) -> Result<(Payload, Option<OwnedSemaphorePermit>), Problem> {
        if body.is_end_stream() {
            return Ok((Payload::Whole(bytes::Bytes::new()), None));
        }
        let too_large =
            || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body", "the body is larger than api.max_body");
        let size = body.size_hint();
        if size.lower() > self.config.max_body {
            return Err(too_large());
        }
        let exact = size.exact().and_then(|size| usize::try_from(size).ok());
        let short =
            exact.filter(|size| *size <= self.config.keep_body).and_then(|size| u32::try_from(size).ok());
        let kept = short.and_then(|size| Arc::clone(&self.kept).try_acquire_many_owned(size).ok());
        let Some(kept) = kept else {
            return Ok((
                Payload::Stream(Stream::new(body, self.config.max_body, self.config.body_timeout)),
                None,
            ));
        };
        let whole = Limited::new(body, self.config.keep_body).collect();
        match tokio::time::timeout(self.config.body_timeout, whole).await {
            Ok(Ok(whole)) => Ok((Payload::Whole(whole.to_bytes()), Some(kept))),
            Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "body", "the body ended early")),
            Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body", "the body did not come in time")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gateway {
    Plain,
    Bot,
}

/// How long the request may wait, and how urgent it is, as its headers say.
fn wishes(headers: &HeaderMap, most: Duration) -> Result<(Duration, Option<Priority>), Problem> {
    let wrong = |message: &str| Problem::new(StatusCode::BAD_REQUEST, "header", message);
    let deadline = match headers.get("holdfast-deadline-ms") {
        None => most,
        Some(value) => {
            let ms = value.to_str().ok().and_then(|value| value.trim().parse().ok());
            let ms = ms.ok_or_else(|| wrong("Holdfast-Deadline-Ms is a number of milliseconds"))?;
            Duration::from_millis(ms).min(most)
        }
    };
    let priority = match headers.get("holdfast-priority").map(HeaderValue::as_bytes) {
        None => None,
        Some(b"high") => Some(Priority::High),
        Some(b"normal") => Some(Priority::Normal),
        Some(b"low") => Some(Priority::Low),
        Some(_) => return Err(wrong("Holdfast-Priority is high, normal or low")),
    };
    Ok((deadline, priority))
}
