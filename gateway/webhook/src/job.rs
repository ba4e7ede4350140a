// SPDX-License-Identifier: AGPL-3.0-only
//! What a message asks for. In: a body of the broker's. Out: a request to Discord with its deadline and key, or why it
//! is none. Pure but for the clock, which comes as an argument.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use holdfast_broker::{HEADER_TRACE, HEADER_WEBHOOK, Message};
use holdfast_contract::v1::{Error, ErrorCode, WebhookFile, WebhookMessage, webhook_message::Operation};
use holdfast_rest::ledger_key;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::multipart::Form;

/// AMQP's bound on short texts; keys of our own are no longer either.
const KEY_BYTES: usize = 255;

/// One thing to do at Discord.
pub(crate) struct Job {
    pub(crate) webhook: u64,
    /// What is done, for metrics.
    pub(crate) operation: &'static str,
    pub(crate) method: Method,
    /// Path and query at Discord. Holds the token.
    pub(crate) target: PathAndQuery,
    pub(crate) content: Content,
    /// Doing it twice is the same as once.
    pub(crate) repeatable: bool,
    /// Somebody may have done it before.
    pub(crate) again: bool,
    pub(crate) deadline: Instant,
    /// Its name in the ledger.
    pub(crate) key: Option<String>,
    /// W3C trace context, passed on to Discord.
    pub(crate) trace: Option<HeaderValue>,
}

/// The path holds the token, the body what a user said.
impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { webhook, operation, .. } = self;
        f.debug_struct("Job").field("webhook", webhook).field("operation", operation).finish_non_exhaustive()
    }
}

/// A request's body.
pub(crate) enum Content {
    Nothing,
    Json(Bytes),
    Form(Form),
}

/// When a message came, by both clocks, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) now: Instant,
    pub(crate) unix_ms: u64,
    pub(crate) max_wait: Duration,
}

impl Job {
    /// Reads a message. `base` is what paths at Discord begin with.
    pub(crate) fn read(message: &Message, base: &str, taken: Taken) -> Result<Self, Error> {
        let asked: WebhookMessage = message.decode(usize::MAX)?;
        check_address(&asked, message)?;
        let deadline = deadline(&asked, taken)?;
        let key = key(&asked, message)?;
        let WebhookMessage { webhook_id, token, thread_id, operation, .. } = asked;
        let (operation, method, below, query, content) = match operation {
            Some(Operation::Execute(it)) => {
                let query = [("wait=true", it.wait), ("with_components=true", it.with_components)];
                ("execute", Method::POST, String::new(), query, content(it.body, it.files)?)
            }
            Some(Operation::Edit(it)) => {
                let query = [("with_components=true", it.with_components), ("", false)];
                ("edit", Method::PATCH, of_message(it.message_id), query, content(it.body, it.files)?)
            }
            Some(Operation::Delete(it)) => {
                let none = [("", false); 2];
                ("delete", Method::DELETE, of_message(it.message_id), none, Content::Nothing)
            }
            None => return Err(Error::new(ErrorCode::Unsupported, "no operation that is known here")),
        };
        let mut query: Vec<_> =
            query.into_iter().filter(|(_, wanted)| *wanted).map(|(text, _)| text.to_owned()).collect();
        if thread_id != 0 {
            query.push(format!("thread_id={thread_id}"));
        }
        let mark = if query.is_empty() { "" } else { "?" };
        let target = format!("{base}/webhooks/{webhook_id}/{token}{below}{mark}{}", query.join("&"));
        let target = target.parse().map_err(|_| invalid("token"))?;
        let repeatable = method != Method::POST;
        let (webhook, again) = (webhook_id, false);
        let trace = message.headers.text(HEADER_TRACE).and_then(|trace| HeaderValue::from_str(trace).ok());
        Ok(Self { webhook, operation, method, target, content, repeatable, again, deadline, key, trace })
    }
}

/// The message that a route is about.
fn of_message(id: u64) -> String {
    if id == 0 { "/messages/@original".to_owned() } else { format!("/messages/{id}") }
}

fn check_address(asked: &WebhookMessage, message: &Message) -> Result<(), Error> {
    if asked.webhook_id == 0 {
        return Err(invalid("webhook_id"));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    // Dots alone would lead elsewhere.
    if !asked.token.bytes().all(fits) || asked.token.trim_matches('.').is_empty() {
        return Err(invalid("token"));
    }
    // By the header messages get into one queue, and so into order.
    if message.headers.text(HEADER_WEBHOOK) != Some(asked.webhook_id.to_string().as_str()) {
        let text = format!("the header {HEADER_WEBHOOK} has to be webhook_id, as a decimal string");
        return Err(Error::new(ErrorCode::InvalidArgument, text));
    }
    Ok(())
}

fn deadline(asked: &WebhookMessage, taken: Taken) -> Result<Instant, Error> {
    let wait = match asked.deadline_ms {
        0 => taken.max_wait,
        at => Duration::from_millis(at.saturating_sub(taken.unix_ms)).min(taken.max_wait),
    };
    if wait.is_zero() {
        return Err(Error::new(ErrorCode::DeadlineExceeded, "the deadline passed before it was taken in"));
    }
    Ok(taken.now + wait)
}

fn key(asked: &WebhookMessage, message: &Message) -> Result<Option<String>, Error> {
    let key = match asked.idempotency_key.as_str() {
        "" => message.properties.message_id.as_deref().unwrap_or_default(),
        key => key,
    };
    if key.len() > KEY_BYTES {
        return Err(invalid("idempotency_key"));
    }
    let scope = format!("webhook {}/{}", asked.webhook_id, asked.token);
    Ok((!key.is_empty()).then(|| ledger_key(scope.as_bytes(), key)))
}

fn content(body: Bytes, files: Vec<WebhookFile>) -> Result<Content, Error> {
    if !body.is_empty() && serde_json::from_slice::<&RawValue>(&body).is_err() {
        return Err(invalid("body"));
    }
    if files.is_empty() {
        return Ok(Content::Json(if body.is_empty() { Bytes::from_static(b"{}") } else { body }));
    }
    Form::new(body, files).map(Content::Form).map_err(invalid)
}

/// A field that can't be used.
fn invalid(field: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("{field} is missing, or can't be used"))
}

#[cfg(test)]
mod tests {
    use holdfast_contract::v1::{DeleteWebhookMessage, EditWebhookMessage, ExecuteWebhook};

    use super::*;

    #[test]
    fn each_operation_is_a_request_of_discords() {
        let execute = ExecuteWebhook { body: "{}".into(), wait: true, ..Default::default() };
        let edit = EditWebhookMessage { message_id: 5, with_components: true, ..Default::default() };
        let delete = DeleteWebhookMessage::default();
        for (operation, thread_id, expected) in [
            (Operation::Execute(execute), 0, "POST /api/v10/webhooks/7/to-ken?wait=true"),
            (
                Operation::Edit(edit),
                9,
                "PATCH /api/v10/webhooks/7/to-ken/messages/5?with_components=true&thread_id=9",
            ),
            (Operation::Delete(delete), 0, "DELETE /api/v10/webhooks/7/to-ken/messages/@original"),
        ] {
            let job =
                read(WebhookMessage { operation: Some(operation), thread_id, ..message() }).expect("fine");
            assert_eq!(format!("{} {}", job.method, job.target), expected);
            assert_eq!(job.repeatable, !expected.starts_with("POST"));
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_a_reason() {
        let body = |body: &'static str| {
            Some(Operation::Execute(ExecuteWebhook { body: body.into(), ..ExecuteWebhook::default() }))
        };
        for (asked, code) in [
            (WebhookMessage { webhook_id: 0, ..message() }, ErrorCode::InvalidArgument),
            (WebhookMessage { token: String::new(), ..message() }, ErrorCode::InvalidArgument),
            (WebhookMessage { token: "..".to_owned(), ..message() }, ErrorCode::InvalidArgument),
            (WebhookMessage { token: "a/b".to_owned(), ..message() }, ErrorCode::InvalidArgument),
            (WebhookMessage { operation: body("{"), ..message() }, ErrorCode::InvalidArgument),
            (WebhookMessage { operation: None, ..message() }, ErrorCode::Unsupported),
            (WebhookMessage { deadline_ms: 999, ..message() }, ErrorCode::DeadlineExceeded),
            (WebhookMessage { idempotency_key: "k".repeat(256), ..message() }, ErrorCode::InvalidArgument),
        ] {
            assert_eq!(read(asked.clone()).expect_err("refused").code(), code, "{asked:?}");
        }
        let other = Message::of(&message()).header(HEADER_WEBHOOK, "8");
        let refused = Job::read(&other, "", taken()).expect_err("another webhook's queue");
        assert_eq!(refused.code(), ErrorCode::InvalidArgument);
    }

    #[test]
    fn the_key_is_the_messages_own_or_that_of_the_property() {
        let keyed = |key: &str, id: Option<&'static str>| {
            let asked = WebhookMessage { idempotency_key: key.to_owned(), ..message() };
            let mut message = Message::of(&asked).header(HEADER_WEBHOOK, "7");
            message.properties.message_id = id.map(Into::into);
            Job::read(&message, "", taken()).expect("fine").key
        };
        assert_eq!(keyed("", None), None);
        assert_eq!(keyed("a", Some("b")), keyed("", Some("a")));
        assert_ne!(keyed("a", None), keyed("b", None));
    }

    fn message() -> WebhookMessage {
        let execute = ExecuteWebhook { body: r#"{"content":"hi"}"#.into(), ..ExecuteWebhook::default() };
        WebhookMessage {
            webhook_id: 7,
            token: "to-ken".to_owned(),
            operation: Some(Operation::Execute(execute)),
            ..WebhookMessage::default()
        }
    }

    fn read(asked: WebhookMessage) -> Result<Job, Error> {
        let header = asked.webhook_id.to_string();
        Job::read(&Message::of(&asked).header(HEADER_WEBHOOK, header), "/api/v10", taken())
    }

    fn taken() -> Taken {
        Taken { now: Instant::now(), unix_ms: 1_000, max_wait: Duration::from_secs(60) }
    }
}
