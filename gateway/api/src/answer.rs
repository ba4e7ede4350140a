// SPDX-License-Identifier: AGPL-3.0-only
//! Answers that Holdfast makes itself, in the form of Discord's errors. In: why. Out: a response that says so in its
//! header `Holdfast-Error`, so that nobody takes it for Discord's.

use std::time::Duration;

use bytes::Bytes;
use holdfast_rest::{Body, CallError, Refusal, UpstreamError};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, VIA};
use http::{Response, StatusCode};
use serde_json::json;

/// Why there is no answer of Discord's: a status, a short name, and what to do.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) error: &'static str,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into(), retry_after: None }
    }

    /// Not for this caller.
    pub(crate) fn access() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "access", "this service does not take your requests")
    }

    /// The answer as the caller gets it.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut body = json!({ "message": self.message, "code": 0 });
        if let Some(retry_after) = self.retry_after {
            body["retry_after"] = json!((retry_after.as_secs_f64() * 1_000.0).ceil() / 1_000.0);
            body["global"] = json!(false);
        }
        let mut response = json_response(self.status, &body);
        let headers = response.headers_mut();
        headers.insert("holdfast-error", HeaderValue::from_static(self.error));
        if let Some(retry_after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs_f64().ceil() as u64));
            headers.insert("x-ratelimit-scope", HeaderValue::from_static("user"));
        }
        response
    }
}

/// JSON that Holdfast says.
pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Libraries take a 429 without it for a ban by what stands before Discord.
    response.headers_mut().insert(VIA, HeaderValue::from_static("1.1 holdfast"));
    response
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        match error {
            CallError::Refused(refusal) => refused(&refusal, message),
            CallError::Upstream(UpstreamError::Unreachable(_)) => {
                Self::new(StatusCode::BAD_GATEWAY, "unreachable", message)
            }
            CallError::Upstream(UpstreamError::TimedOut) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "timed-out", message)
            }
            CallError::Upstream(UpstreamError::Body) => Self::new(StatusCode::BAD_REQUEST, "body", message),
            CallError::Upstream(_) => Self::new(StatusCode::BAD_GATEWAY, "lost", message),
        }
    }
}

fn refused(refusal: &Refusal, message: String) -> Problem {
    let status = match refusal {
        Refusal::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Token => StatusCode::UNAUTHORIZED,
        Refusal::Webhook => StatusCode::NOT_FOUND,
        _ => StatusCode::TOO_MANY_REQUESTS,
    };
    Problem { status, error: refusal.reason(), message, retry_after: refusal.retry_after() }
}
