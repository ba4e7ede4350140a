// SPDX-License-Identifier: AGPL-3.0-only
//! What Discord is answered. In: a status, a deferral, a worker's reply. Out: responses.

use bytes::Bytes;
use holdfast_discord::interaction::{EPHEMERAL, InteractionKind};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::ticket::Deferral;

/// An answer to Discord.
pub(crate) type Answer = Response<Full<Bytes>>;

/// One with a few words for people, who may be looking.
pub(crate) fn plain(status: StatusCode, words: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(words));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    answer
}

/// One without a body. Discord wants a type of content even so ("Acknowledging PING requests").
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A body of a kind.
pub(crate) fn body(content_type: &str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    let content_type = HeaderValue::from_str(content_type);
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, content_type.unwrap_or(json));
    answer
}

/// Somebody is there.
pub(crate) fn pong() -> Answer {
    body("application/json", Bytes::from_static(br#"{"type":1}"#))
}

/// What Discord is told when nobody has answered. None: nothing can be.
pub(crate) fn deferred(kind: InteractionKind, deferral: Deferral) -> Option<Answer> {
    let response = match deferral {
        Deferral::Message { ephemeral: true } => json!({ "type": 5, "data": { "flags": EPHEMERAL } }),
        Deferral::Message { ephemeral: false } => json!({ "type": 5 }),
        Deferral::Update => json!({ "type": 6 }),
        Deferral::None if kind == InteractionKind::Autocomplete => {
            json!({ "type": 8, "data": { "choices": [] } })
        }
        Deferral::None => return None,
    };
    Some(body("application/json", Bytes::from(response.to_string())))
}
