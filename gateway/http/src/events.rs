// SPDX-License-Identifier: AGPL-3.0-only
//! Webhook events: to the broker with a confirm, or to a worker's URL, and only then Discord is told that it was taken.
//! What Discord sends once more, not having heard that, is known by its hash and goes on once.

use std::sync::Arc;
use std::time::Duration;

use holdfast_broker::{Broker, HEADER_TRACE, Message, Publication, PublishError};
use holdfast_contract::SCHEMA;
use holdfast_contract::v1::WebhookEvent;
use http::{StatusCode, Uri};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::timeout_at;
use tracing::debug;

use crate::answer::{self, Answer};
use crate::asked::Posted;
use crate::front::Front;
use crate::seen::{Claimed, Key, Seen, hex};

/// Of Discord's 3 s, some go on the way.
const WITHIN: Duration = Duration::from_millis(2_500);
/// Discord sends an event again for ten minutes ("Responding to Events").
const REMEMBER: Duration = Duration::from_secs(15 * 60);
/// A routing key's bound.
const MAX_NAME: usize = 255;

/// Where events go.
pub(crate) struct Events {
    broker: Broker,
    url: Option<Uri>,
    seen: Seen,
}

/// How far an event got.
enum Went {
    /// All the way.
    Arrived,
    /// Nobody wants such events.
    Unrouted,
    /// Discord is to send it again.
    Nowhere,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    kind: u64,
    #[serde(borrow, default)]
    application_id: Option<&'a str>,
    #[serde(borrow, default)]
    event: Option<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    name: &'a str,
}

impl Events {
    pub(crate) fn new(broker: Broker, url: Option<Uri>, seen: Seen) -> Self {
        Self { broker, url, seen }
    }
}

/// Takes an event.
pub(crate) async fn answer(front: &Arc<Front>, posted: Posted) -> Answer {
    let metrics = &front.metrics;
    let payload: Payload<'_> = match serde_json::from_slice(&posted.body) {
        Ok(payload) => payload,
        Err(error) => {
            debug!(%error, "Discord signed what is no event");
            metrics.refused("malformed");
            return answer::plain(StatusCode::BAD_REQUEST, "no webhook event\n");
        }
    };
    let Some(event) = payload.event.filter(|_| payload.kind != 0) else {
        metrics.event("ping");
        return answer::empty(StatusCode::NO_CONTENT);
    };
    let hash: Key = Sha256::digest(&posted.body).into();
    // As long as its time would be young enough, it is known.
    let claim = match front.events.seen.claim(hash, REMEMBER.max(2 * front.config.events_max_age)).await {
        Claimed::Fresh(claim) => claim,
        // Whoever is at it may fail yet.
        Claimed::Elsewhere => return again(front),
        Claimed::Done => {
            metrics.event("duplicate");
            return answer::empty(StatusCode::NO_CONTENT);
        }
    };
    let application = payload.application_id.and_then(|id| id.parse().ok()).unwrap_or(0);
    let outcome = match go(front, &posted, application, event.name, &hash).await {
        Went::Arrived => "published",
        Went::Unrouted => "unrouted",
        Went::Nowhere => {
            claim.give_back().await;
            return again(front);
        }
    };
    claim.keep().await;
    metrics.event(outcome);
    answer::empty(StatusCode::NO_CONTENT)
}

/// Discord is to send it again.
fn again(front: &Front) -> Answer {
    front.metrics.event("unavailable");
    answer::plain(StatusCode::SERVICE_UNAVAILABLE, "not taken: send it again\n")
}

async fn go(front: &Front, posted: &Posted, application: u64, name: &str, hash: &Key) -> Went {
    let by = posted.received + WITHIN;
    if let Some(url) = &front.events.url {
        return match timeout_at(by, front.ways.worker.post(url, posted)).await {
            Ok(Ok(answered)) if answered.status.is_success() => Went::Arrived,
            _ => Went::Nowhere,
        };
    }
    let broker = &front.events.broker;
    if name.len() > MAX_NAME {
        return Went::Unrouted;
    }
    let hash = hex(hash);
    let event = WebhookEvent {
        schema: SCHEMA,
        application,
        name: name.to_owned(),
        received_at_us: posted.received_us,
        hash: hash.clone(),
        trace: posted.trace.clone(),
        body: posted.body.clone(),
    };
    let mut message = Message::of(&event);
    message.properties.message_id = Some(hash.into());
    message.properties.persistent = true;
    if !posted.trace.is_empty() {
        message = message.header(HEADER_TRACE, posted.trace.clone());
    }
    let publication = Publication::new(broker.names().webhook_events(), name.to_owned(), message).mandatory();
    match timeout_at(by, broker.publish(publication)).await {
        Ok(Ok(())) => Went::Arrived,
        // As with events of the gateway: who wants them binds first.
        Ok(Err(PublishError::Unrouted)) => Went::Unrouted,
        _ => Went::Nowhere,
    }
}
