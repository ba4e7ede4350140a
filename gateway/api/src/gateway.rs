// SPDX-License-Identifier: AGPL-3.0-only
//! `GET /gateway` and `/gateway/bot`: bots are told to connect to the WebSocket front. In: Discord's answer. Out: the
//! same with our address, our count of shards, and no limit on sessions worth the name.

use holdfast_rest::Body;
use http::header::USER_AGENT;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use crate::answer::{Problem, json_response};

/// Discord's answer is below 1 KiB.
const SMALL: usize = 64 << 10;

/// Sessions at the front cost nothing: no bot runs into these.
const SESSIONS: u32 = 1_000_000;
const CONCURRENCY: u32 = 1_000;

/// Our own services need Discord's true answer: they are known by how they name themselves.
pub(crate) fn is_ours(headers: &HeaderMap) -> bool {
    headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"DiscordBot (holdfast,"))
}

/// The answer to `GET /gateway`.
pub(crate) fn gateway(url: &str) -> Response<Body> {
    json_response(StatusCode::OK, &json!({ "url": url }))
}

/// The answer to `GET /gateway/bot`, of Discord's. Whatever isn't a success stays as it is.
pub(crate) async fn gateway_bot(
    response: Response<Body>,
    url: &str,
    shards: Option<u32>,
) -> Result<Response<Body>, Problem> {
    if response.status() != StatusCode::OK {
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let strange = || Problem::new(StatusCode::BAD_GATEWAY, "lost", "Discord's answer could not be read");
    let body = Limited::new(body, SMALL).collect().await.map_err(|_| strange())?.to_bytes();
    let mut answer: Value = serde_json::from_slice(&body).map_err(|_| strange())?;
    answer["url"] = json!(url);
    if let Some(shards) = shards {
        answer["shards"] = json!(shards);
    }
    answer["session_start_limit"] = json!({
        "total": SESSIONS, "remaining": SESSIONS, "reset_after": 0, "max_concurrency": CONCURRENCY,
    });
    head.headers.remove(http::header::CONTENT_LENGTH);
    Ok(Response::from_parts(head, Body::whole(answer.to_string().into())))
}
