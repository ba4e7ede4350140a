// SPDX-License-Identifier: AGPL-3.0-only
//! The HTTP front: what becomes of a caller's request, refused, kept as an upload, or sent to Discord. In: requests, each
//! with who sends it. Out: answers. Shared by all connections.

use std::sync::Arc;
use std::time::Duration;

use holdfast_rest::{Body, Caller, Payload, Priority, Stream};
use http::header::HeaderValue;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::answer::Problem;
use crate::metrics::Metrics;
use crate::outgoing::{Asked, Outgoing};
use crate::settings::Config;
use crate::uploads::{self, Uploads};

/// See the module.
pub(crate) struct Front {
    outgoing: Arc<Outgoing>,
    uploads: Option<Uploads>,
    /// Bytes of bodies that are kept for another try.
    kept: Arc<Semaphore>,
}

impl Front {
    pub(crate) fn new(outgoing: Arc<Outgoing>, uploads: Option<Uploads>) -> Self {
        let kept = Arc::new(Semaphore::new(outgoing.config.keep_memory));
        Self { outgoing, uploads, kept }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.outgoing.config
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.outgoing.metrics
    }

    /// Answers a request.
    pub(crate) async fn answer_to(&self, request: Request<Incoming>, caller: Caller) -> Response<Body> {
        let response = match self.forward(request, caller).await {
            Ok(response) => response,
            Err(problem) => {
                self.metrics().failed(problem.error);
                problem.response()
            }
        };
        self.metrics().answered(response.status().as_u16());
        response
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
        if let Some(uploads) = &self.uploads
            && let Some(place) = uploads::place(head.uri.path())
        {
            return uploads.answer(place, &head, body, &self.outgoing.access).await;
        }
        let target = self.outgoing.target(&head.uri)?;
        if !self.outgoing.access.admits(&head.headers) {
            return Err(Problem::access());
        }
        let (wait, priority) = wishes(&head.headers, self.config().max_wait)?;
        let (payload, kept) = self.payload(body).await?;
        let (method, headers, deadline) = (head.method, head.headers, Instant::now() + wait);
        let asked = Asked { method, target, headers, priority, caller, deadline, stop: None };
        let response = self.outgoing.send(asked, payload).await;
        drop(kept);
        response
    }

    /// A short body is read whole, so that it can be sent again; a longer one is sent on as it arrives.
    async fn payload(&self, body: Incoming) -> Result<(Payload, Option<OwnedSemaphorePermit>), Problem> {
        if body.is_end_stream() {
            return Ok((Payload::Whole(bytes::Bytes::new()), None));
        }
        let too_large =
            || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body", "the body is larger than api.max_body");
        let size = body.size_hint();
        if size.lower() > self.config().max_body {
            return Err(too_large());
        }
        let exact = size.exact().and_then(|size| usize::try_from(size).ok());
        let short =
            exact.filter(|size| *size <= self.config().keep_body).and_then(|size| u32::try_from(size).ok());
        let kept = short.and_then(|size| Arc::clone(&self.kept).try_acquire_many_owned(size).ok());
        let Some(kept) = kept else {
            return Ok((
                Payload::Stream(Stream::new(body, self.config().max_body, self.config().body_timeout)),
                None,
            ));
        };
        let whole = Limited::new(body, self.config().keep_body).collect();
        match tokio::time::timeout(self.config().body_timeout, whole).await {
            Ok(Ok(whole)) => Ok((Payload::Whole(whole.to_bytes()), Some(kept))),
            Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "body", "the body ended early")),
            Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body", "the body did not come in time")),
        }
    }
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
