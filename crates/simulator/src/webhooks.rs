// SPDX-License-Identifier: AGPL-3.0-only
//! Messages by webhooks ("Webhook", from "Execute Webhook" on), with or without files.
//!
//! In: requests with a webhook's token in their path. Out: what was sent, in its order; a webhook that a test deletes
//! is gone. Every other webhook exists.
use std::collections::HashSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{patch, post};
use serde_json::{Value, json};

use crate::clock::{iso8601, unix};
use crate::hub::{Hub, lock};
use crate::interactions;

/// Messages that are remembered, the oldest forgotten first.
const MESSAGES: usize = 10_000;

/// A message that a webhook has sent.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookMessage {
    /// The webhook.
    pub webhook: u64,
    /// Its own id.
    pub id: u64,
    /// The thread that was asked for.
    pub thread: Option<u64>,
    /// What it says by now.
    pub body: Value,
    /// Its files: name and bytes.
    pub files: Vec<(String, Bytes)>,
    /// It was deleted.
    pub deleted: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    pub(crate) sent: Vec<WebhookMessage>,
    pub(crate) gone: HashSet<u64>,
}

/// A request's body: JSON, or a form with JSON and files.
type Sent = (Value, Vec<(String, Bytes)>);

/// The routes, to be merged with the others under `/api/v10`.
pub(crate) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/webhooks/{webhook}/{token}", post(execute))
        .route("/webhooks/{webhook}/{token}/messages/{message}", patch(edit).delete(delete))
}

fn error(status: StatusCode, code: u32, message: &str) -> Response {
    (status, Json(json!({"message": message, "code": code}))).into_response()
}

fn unknown_webhook() -> Response {
    error(StatusCode::NOT_FOUND, 10_015, "Unknown Webhook")
}

async fn execute(
    State(hub): State<Arc<Hub>>,
    Path((webhook, token)): Path<(u64, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(answer) = interactions::follow_up(&hub, &token, || json_of(&headers, &body)) {
        return answer;
    }
    let query = query.unwrap_or_default();
    let mut webhooks = lock(&hub.webhooks);
    if webhooks.gone.contains(&webhook) {
        return unknown_webhook();
    }
    let Some((body, files)) = read(&headers, &body) else {
        return error(StatusCode::BAD_REQUEST, 50_035, "Invalid Form Body");
    };
    if files.is_empty() && !says_something(&body) {
        return error(StatusCode::BAD_REQUEST, 50_006, "Cannot send an empty message");
    }
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let thread = parameter("thread_id").and_then(|id| id.parse().ok());
    let message = WebhookMessage { webhook, id: hub.snowflakes.next(), thread, body, files, deleted: false };
    let shown = show(&message);
    if webhooks.sent.len() >= MESSAGES {
        webhooks.sent.remove(0);
    }
    webhooks.sent.push(message);
    match parameter("wait") {
        Some("true") => Json(shown).into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn edit(
    State(hub): State<Arc<Hub>>,
    Path((webhook, token, message)): Path<(u64, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(answer) = interactions::edit(&hub, &token, || json_of(&headers, &body)) {
        return answer;
    }
    let mut webhooks = lock(&hub.webhooks);
    let read = read(&headers, &body).unwrap_or_default();
    change(&mut webhooks, webhook, &message, |found| {
        for (key, value) in read.0.as_object().into_iter().flatten() {
            found.body[key] = value.clone();
        }
        found.files.extend(read.1);
        Json(show(found)).into_response()
    })
}

async fn delete(
    State(hub): State<Arc<Hub>>,
    Path((webhook, _, message)): Path<(u64, String, String)>,
) -> Response {
    change(&mut lock(&hub.webhooks), webhook, &message, |found| {
        found.deleted = true;
        StatusCode::NO_CONTENT.into_response()
    })
}

/// Does something to a message that is there.
fn change(
    webhooks: &mut Webhooks,
    webhook: u64,
    message: &str,
    act: impl FnOnce(&mut WebhookMessage) -> Response,
) -> Response {
    if webhooks.gone.contains(&webhook) {
        return unknown_webhook();
    }
    let id: Option<u64> = message.parse().ok();
    let wanted =
        |it: &&mut WebhookMessage| it.webhook == webhook && !it.deleted && id.is_none_or(|id| id == it.id);
    match webhooks.sent.iter_mut().find(wanted) {
        Some(found) => act(found),
        None => error(StatusCode::NOT_FOUND, 10_008, "Unknown Message"),
    }
}

/// The message as Discord answers with it.
fn show(message: &WebhookMessage) -> Value {
    let id = message.webhook.to_string();
    let file = |(number, (name, bytes)): (usize, &(String, Bytes))| {
        json!({"id": number.to_string(),
        "filename": name, "size": bytes.len()})
    };
    let attachments: Vec<_> = message.files.iter().enumerate().map(file).collect();
    json!({"id": message.id.to_string(), "type": 0, "channel_id": message.thread.unwrap_or(1).to_string(),
        "content": message.body["content"], "embeds": [], "attachments": attachments, "webhook_id": id,
        "author": {"id": id, "username": "webhook", "bot": true}, "timestamp": iso8601(unix())})
}

/// What a body says, without its files; null where it isn't understood.
pub(crate) fn json_of(headers: &HeaderMap, body: &[u8]) -> Value {
    read(headers, body).map_or(Value::Null, |(json, _)| json)
}

fn read(headers: &HeaderMap, body: &[u8]) -> Option<Sent> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match kind.split_once("boundary=") {
        Some((_, boundary)) => form(body, boundary.trim_matches('"')),
        None => Some((serde_json::from_slice(body).ok()?, Vec::new())),
    }
}

/// Takes a form apart (RFC 7578).
fn form(body: &[u8], boundary: &str) -> Option<Sent> {
    let (delimiter, mut sent) = (format!("--{boundary}"), Sent::default());
    let mut starts = find_all(body, delimiter.as_bytes());
    let last = starts.pop()?;
    let ends = starts.iter().skip(1).copied().chain([last]).collect::<Vec<_>>();
    for (start, end) in starts.into_iter().zip(ends) {
        let part = body.get(start + delimiter.len() + 2..end.checked_sub(2)?)?;
        let split = find_all(part, b"\r\n\r\n").first().copied()?;
        let (head, data) = (std::str::from_utf8(&part[..split]).ok()?, &part[split + 4..]);
        let named = |name: &str| head.split_once(name)?.1.split_once('"').map(|(value, _)| value.to_owned());
        match (named("; name=\"")?.as_str(), named("; filename=\"")) {
            ("payload_json", _) => sent.0 = serde_json::from_slice(data).ok()?,
            (_, Some(file)) => sent.1.push((file, Bytes::copy_from_slice(data))),
            _ => return None,
        }
    }
    Some(sent)
}

fn find_all(body: &[u8], what: &[u8]) -> Vec<usize> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(next) = body[at..].windows(what.len()).position(|window| window == what) {
        found.push(at + next);
        at += next + what.len();
    }
    found
}

/// Whether a message has anything in it ("Create Message", "Limitations").
pub(crate) fn says_something(body: &Value) -> bool {
    let says = |key: &str| match &body[key] {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        // An embed without a field is none.
        Value::Array(list) => list.iter().any(|item| *item != json!({})),
        _ => true,
    };
    ["content", "embeds", "components", "attachments", "poll", "sticker_ids"].into_iter().any(says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_taken_apart() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"payload_json\"\r\n\r\n{\"content\":\"x\"}\r\n\
                    --b\r\nContent-Disposition: form-data; name=\"files[0]\"; filename=\"a\"\r\n\r\n1\r\n2\r\n--b--\r\n";
        let (json, files) = form(body.as_bytes(), "b").unwrap();
        assert_eq!((json, files), (json!({"content": "x"}), vec![("a".to_owned(), "1\r\n2".into())]));
    }
}
