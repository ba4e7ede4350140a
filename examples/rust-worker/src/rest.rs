// SPDX-License-Identifier: AGPL-3.0-only
//! Discord's REST API through RabbitMQ and Holdfast, which waits for rate limits. In: method, path, JSON. Out: Discord's
//! answer. The rules are in docs/contract.md, "Requests to Discord's REST API".

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::asking::{AskError, Asking, Refused, expiring};
use crate::v1::rest_reply::Result as Outcome;
use crate::v1::{ErrorCode, RestHeader, RestReply, RestRequest, RestResponse};
use crate::{SCHEMA, unix_ms};

/// The reply may be that the deadline has passed.
const MARGIN: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What is asked of Discord. Begin with [`Request::new`].
#[derive(Clone)]
pub struct Request<'a> {
    /// In capitals.
    pub method: &'a str,
    /// Path and query, with or without `/api/v10`.
    pub path: &'a str,
    /// The body.
    pub json: Option<Value>,
    /// The idempotency key names what is to be done: with it, it is done once, however often and by whomever it is asked
    /// for within ten minutes. Empty: no such check.
    pub key: &'a str,
    /// How long it may wait for its turn.
    pub within: Duration,
}

impl<'a> Request<'a> {
    /// Without a body and without a key; it may wait for half a minute.
    #[must_use]
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Self { method, path, json: None, key: "", within: Duration::from_secs(30) }
    }
}

/// Why Discord hasn't done it.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// Discord says no.
    #[error("Discord answers {status}: {message}")]
    Discord {
        /// The HTTP status.
        status: u32,
        /// One of Discord's JSON error codes, if it gave any.
        code: Option<i64>,
        /// Discord's words.
        message: String,
    },
    /// Holdfast says no, or nobody says anything.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// Discord's REST API, for one token.
pub struct Rest {
    asking: Asking,
    authorization: RestHeader,
}

impl Rest {
    /// See [`Asking::open`].
    ///
    /// # Errors
    /// RabbitMQ is away, or refuses.
    pub async fn open(url: &str, token: &str, prefix: &str) -> Result<Self, AskError> {
        let asking = Asking::open(url, prefix).await?;
        Ok(Self { asking, authorization: header("Authorization", &format!("Bot {token}")) })
    }

    /// Gives Discord's JSON, or null where it gives none. What wasn't done and may succeed later is asked for again.
    ///
    /// # Errors
    /// Discord or Holdfast says no, or nobody has answered in time.
    pub async fn request(&self, request: Request<'_>) -> Result<Value, RestError> {
        let deadline = Instant::now() + request.within;
        let asked = self.message(request);
        let mut pause = FIRST_PAUSE;
        loop {
            let refused = match self.once(&asked, deadline - Instant::now()).await? {
                Outcome::Response(response) => return answer(&response),
                Outcome::Error(error) => Refused::from(error),
            };
            // Begun under this key, so that asking again does nothing twice.
            let is_under_way = refused.code == i32::from(ErrorCode::Undecided);
            pause = pause.max(refused.retry_after);
            if !(refused.may_succeed_later() || is_under_way) || Instant::now() + pause >= deadline {
                return Err(AskError::from(refused).into());
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// See [`Asking::close`].
    ///
    /// # Errors
    /// It has ended already.
    pub async fn close(self) -> Result<(), AskError> {
        self.asking.close().await
    }

    fn message(&self, Request { method, path, json, key, within }: Request<'_>) -> RestRequest {
        let mut headers = vec![self.authorization.clone()];
        headers.extend(json.as_ref().map(|_| header("Content-Type", "application/json")));
        RestRequest {
            schema: SCHEMA,
            method: method.to_owned(),
            path: path.to_owned(),
            headers,
            body: json.map_or_else(Vec::new, |json| json.to_string().into_bytes()),
            deadline_ms: unix_ms(within),
            idempotency_key: key.to_owned(),
            ..RestRequest::default()
        }
    }

    async fn once(&self, asked: &RestRequest, within: Duration) -> Result<Outcome, AskError> {
        let properties = expiring::<RestRequest>(within);
        let mut answers = self.asking.ask(("requests", "rest"), asked, properties, within + MARGIN).await?;
        let outcome = answers.next::<RestReply>().await?.result;
        outcome.ok_or_else(|| AskError::Malformed("neither an answer nor an error".into()))
    }
}

fn header(name: &str, value: &str) -> RestHeader {
    RestHeader { name: name.to_owned(), value: value.as_bytes().to_vec() }
}

fn answer(RestResponse { status, body, .. }: &RestResponse) -> Result<Value, RestError> {
    // A proxy before Discord may answer with a page for people.
    let json: Option<Value> = serde_json::from_slice(body).ok();
    if *status < 400 {
        return Ok(json.unwrap_or_default());
    }
    let told = json.unwrap_or_default();
    let message = told["message"].as_str().unwrap_or_default().to_owned();
    Err(RestError::Discord { status: *status, code: told["code"].as_i64(), message })
}
