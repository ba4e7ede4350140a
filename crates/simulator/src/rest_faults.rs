// SPDX-License-Identifier: AGPL-3.0-only
//! What goes wrong with the next REST request because a test asked for it.
//!
//! In: wishes, in order. Out: the answer that stands in for Discord's. Each hits one request, whatever it is about.
use std::collections::VecDeque;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use serde_json::json;

use crate::rest::{ban_page, too_many};

/// One request's bad luck.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RestFault {
    /// An answer with this status: below 500 Discord's own, from there on a page by what stands before it.
    Status {
        /// The status.
        status: u16,
    },
    /// A 429 of the global limit, out of the blue.
    Global {
        /// Seconds to wait.
        seconds: f64,
    },
    /// A 429 of a limit that others share.
    Shared {
        /// Seconds to wait.
        seconds: f64,
    },
    /// The page of a banned address.
    Ban {
        /// Seconds to wait.
        seconds: f64,
    },
    /// The connection ends in the middle of the answer's body.
    Cut,
    /// The answer's body stands still in its middle.
    Stall,
    /// The connection ends before the answer.
    HangUp,
    /// What was asked for is done, and the connection ends before the answer.
    LoseAnswer,
}

/// Faults to come.
pub(crate) type Faults = VecDeque<RestFault>;

impl RestFault {
    pub(crate) fn response(self) -> Response {
        match self {
            Self::Status { status } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                if status.is_server_error() {
                    return (status, "<html>bad gateway</html>").into_response();
                }
                let body = Json(json!({"message": status.to_string(), "code": 0}));
                (status, [(header::VIA, "1.1 google")], body).into_response()
            }
            Self::Global { seconds } => too_many(seconds, "global", None),
            Self::Shared { seconds } => too_many(seconds, "shared", None),
            Self::Ban { seconds } => ban_page(seconds),
            Self::Cut => broken_body(Some(Bytes::from_static(b"{\"half\":"))),
            Self::Stall => {
                let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{\"half\":"))]);
                Body::from_stream(first.chain(stream::pending())).into_response()
            }
            Self::HangUp | Self::LoseAnswer => broken_body(None),
        }
    }
}

/// A body that fails after its first piece, which gets the time to be sent; without one nothing is sent at all.
fn broken_body(first: Option<Bytes>) -> Response {
    let cut = || Err(std::io::Error::other("cut"));
    let Some(first) = first else {
        return Body::from_stream(stream::iter([cut() as Result<Bytes, _>])).into_response();
    };
    let later = stream::once(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cut()
    });
    Body::from_stream(stream::iter([Ok(first)]).chain(later)).into_response()
}
