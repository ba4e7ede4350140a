// SPDX-License-Identifier: AGPL-3.0-only
//! Discord as the one who calls: signs bodies and posts them ("Validating Security Request Headers").
//!
//! In: bodies, and how to sign them; wrongly too, as Discord does now and then. Out: answers, timed.
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::{iso8601, unix};
use crate::control::Control;
use crate::world::BOT_USER;

/// No key of anybody's: tests are to be repeatable.
const SEED: [u8; 32] = *b"holdfast simulates Discord's key";
const OTHER_SEED: [u8; 32] = *b"holdfast simulates another's key";

/// How a body is signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signing {
    /// As it should be.
    #[default]
    Right,
    /// By somebody else's key.
    OtherKey,
    /// Not at all.
    None,
    /// By headers that are no signature.
    Garbage,
    /// As it should be, so many seconds ago (or, below 0, ahead).
    Ago(i64),
    /// By these headers, as somebody has recorded them: signature and time.
    Recorded(String, String),
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Status; 0: nothing came back.
    pub status: u16,
    /// How long that took.
    pub took: Duration,
    /// Its header.
    pub content_type: String,
    /// Its body.
    pub body: Bytes,
    /// What it was signed with: signature and time.
    pub signed: (String, String),
}

/// Whoever posts.
pub(crate) struct Poster {
    pair: Ed25519KeyPair,
    other: Ed25519KeyPair,
    pool: Client<HttpConnector, Full<Bytes>>,
}

impl Default for Poster {
    fn default() -> Self {
        let pair = |seed| Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are a seed");
        let pool = Client::builder(TokioExecutor::new()).build_http();
        Self { pair: pair(&SEED), other: pair(&OTHER_SEED), pool }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Poster {
    /// The application's public key, as Discord shows it.
    pub(crate) fn public_key(&self) -> String {
        hex(self.pair.public_key().as_ref())
    }

    /// Signature and time of a body.
    fn sign(&self, body: &[u8], signing: &Signing) -> (String, String) {
        let now = unix().as_secs();
        let by = |pair: &Ed25519KeyPair, time: u64| {
            let message = [time.to_string().as_bytes(), body].concat();
            (hex(pair.sign(&message).as_ref()), time.to_string())
        };
        match signing {
            Signing::Right => by(&self.pair, now),
            Signing::OtherKey => by(&self.other, now),
            Signing::Ago(seconds) => by(&self.pair, now.saturating_add_signed(-seconds)),
            Signing::None => (String::new(), String::new()),
            Signing::Garbage => ("not hexadecimal".to_owned(), "yesterday".to_owned()),
            Signing::Recorded(signature, time) => (signature.clone(), time.clone()),
        }
    }
}

impl Control {
    /// The public key of the bot's application.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.hub.poster.public_key()
    }

    /// Posts a body, signed.
    pub async fn post(&self, url: &str, body: Bytes, signing: &Signing) -> Posted {
        let signed = self.hub.poster.sign(&body, signing);
        let mut request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "Discord-Interactions/1.0 (+https://discord.com)");
        if *signing != Signing::None {
            request =
                request.header("x-signature-ed25519", &signed.0).header("x-signature-timestamp", &signed.1);
        }
        let begun = Instant::now();
        let nothing = |took| Posted {
            status: 0,
            took,
            content_type: String::new(),
            body: Bytes::new(),
            signed: signed.clone(),
        };
        let Ok(request) = request.body(Full::new(body)) else { return nothing(Duration::ZERO) };
        let Ok(response) = self.hub.poster.pool.request(request).await else {
            return nothing(begun.elapsed());
        };
        let (head, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return nothing(begun.elapsed()) };
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Posted {
            status: head.status.as_u16(),
            took: begun.elapsed(),
            content_type: content_type.unwrap_or_default().to_owned(),
            body: body.to_bytes(),
            signed,
        }
    }

    /// Discord posts a webhook event ("Webhook Event Payloads"). The same `data` twice is the same event.
    pub async fn post_event(&self, url: &str, name: &str, data: &Value, signing: &Signing) -> Posted {
        let event =
            json!({"type": name, "timestamp": iso8601(Duration::from_secs(1_790_000_000)), "data": data});
        let body = json!({"version": 1, "application_id": BOT_USER.to_string(), "type": 1, "event": event});
        self.post(url, Bytes::from(body.to_string()), signing).await
    }
}
