// SPDX-License-Identifier: AGPL-3.0-only
//! What becomes of a request: its path says which applications it may be for, its signature whether it is Discord's. In:
//! requests. Out: answers. Shared by all connections.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use holdfast_discord::signature::PublicKey;
use holdfast_service::{Answers, Peer, Tasks};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::answer::{self, Answer};
use crate::asked::{Posted, unix_us};
use crate::late::Late;
use crate::metrics::{InFlight, MEMORY_UNIT, Metrics, Reserved};
use crate::routes::Routes;
use crate::seen::Seen;
use crate::settings::{Application, Config};
use crate::verify::{self, Refused, Signed};
use crate::ways::Ways;
use crate::{events, interactions};

/// So much of what is too much of a body is read and thrown away.
const MAX_PASSED_OVER: usize = 8 << 20;

/// See the module's documentation.
pub(crate) struct Front {
    pub(crate) config: Config,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) routes: Routes,
    pub(crate) ways: Ways,
    pub(crate) late: Arc<Late>,
    pub(crate) late_places: Arc<Semaphore>,
    pub(crate) events: events::Events,
    /// Whoever listens for late replies.
    pub(crate) tasks: Tasks,
    endpoints: HashMap<String, Endpoint>,
    /// Requests that are being answered.
    places: Semaphore,
    /// Memory for their bodies.
    bodies: Semaphore,
    /// Interactions that were taken.
    seen: Seen,
}

/// What a path is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    what: What,
    /// Of the applications that may be meant.
    keys: Vec<PublicKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Interactions,
    Events,
}

/// What the front is made of.
pub(crate) struct Parts {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ways: Ways,
    pub(crate) late: Arc<Late>,
    pub(crate) events: events::Events,
    pub(crate) seen: Seen,
    pub(crate) tasks: Tasks,
}

impl Front {
    pub(crate) fn new(config: Config, parts: Parts) -> Self {
        let Parts { metrics, ways, late, events, seen, tasks } = parts;
        Self {
            metrics,
            routes: Routes::new(&config.routes),
            ways,
            late,
            late_places: Arc::new(Semaphore::new(config.max_late)),
            events,
            tasks,
            endpoints: endpoints(&config),
            places: Semaphore::new(config.max_in_flight),
            bodies: Semaphore::new(config.bodies_memory / MEMORY_UNIT),
            seen,
            config,
        }
    }

    async fn take(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let received = (Instant::now(), unix_us());
        let Some(endpoint) = self.endpoints.get(request.uri().path()) else {
            return answer::plain(StatusCode::NOT_FOUND, "nothing is here\n");
        };
        if request.method() != Method::POST {
            return answer::plain(StatusCode::METHOD_NOT_ALLOWED, "Discord posts here\n");
        }
        let signed = match verify::signature(request.headers()) {
            Ok(signed) => signed,
            Err(refused) => return self.refuse(refused),
        };
        let Ok(_place) = self.places.try_acquire() else { return self.full() };
        let mut memory = Reserved::new(&self.metrics, &self.bodies);
        let (head, body) = request.into_parts();
        let body = match self.body(body, &mut memory).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        if let Err(refused) = verify::right(&signed, &body, &endpoint.keys) {
            return self.refuse(refused);
        }
        // It is Discord's: from now on it counts how it is answered, and that it is.
        let discord = self.metrics.answering(received.0);
        let answer = match self.verified(endpoint, &signed, &body, received.1).await {
            Ok(()) => self.answer(endpoint, signed, body, &head.headers, received).await,
            // Somebody else's doing.
            Err(refused @ Refused::Replay) => {
                discord.forget();
                return self.refuse(refused);
            }
            Err(refused) => self.refuse(refused),
        };
        discord.answered(answer.status().is_success());
        answer
    }

    async fn answer(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        signed: Signed,
        body: Bytes,
        headers: &HeaderMap,
        (received, received_us): (Instant, u64),
    ) -> Answer {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let posted = Posted {
            body,
            content_type: text(CONTENT_TYPE.as_str()).to_owned(),
            signature: signed.signature,
            timestamp: signed.timestamp,
            trace: text("traceparent").to_owned(),
            received,
            received_us,
        };
        match endpoint.what {
            What::Interactions => interactions::answer(self, posted).await,
            What::Events => events::answer(self, posted).await,
        }
    }

    fn refuse(&self, refused: Refused) -> Answer {
        self.metrics.refused(refused.name());
        answer::plain(StatusCode::UNAUTHORIZED, "invalid request signature\n")
    }

    fn full(&self) -> Answer {
        self.metrics.refused("full");
        answer::plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests are being answered\n")
    }

    async fn body(&self, body: Incoming, memory: &mut Reserved<'_>) -> Result<Bytes, Answer> {
        match timeout(self.config.body_timeout, whole(body, self.config.max_body, memory)).await {
            Ok(Ok(Read::Whole(body))) => Ok(body),
            Ok(Ok(Read::NoRoom)) => Err(self.full()),
            Ok(Ok(Read::TooLarge)) => {
                self.metrics.refused("too_large");
                Err(answer::plain(StatusCode::PAYLOAD_TOO_LARGE, "larger than http.max_body\n"))
            }
            Ok(Err(_)) => Err(answer::plain(StatusCode::BAD_REQUEST, "the body ended early\n")),
            Err(_) => {
                self.metrics.refused("slow");
                Err(answer::plain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"))
            }
        }
    }

    async fn verified(
        &self,
        endpoint: &Endpoint,
        signed: &Signed,
        body: &Bytes,
        now_us: u64,
    ) -> Result<(), Refused> {
        let age = match endpoint.what {
            What::Interactions => self.config.max_age,
            What::Events => self.config.events_max_age,
        };
        verify::young(signed, now_us / 1_000_000, age)?;
        // An event that comes again is one that Discord isn't sure of: see `events`.
        if endpoint.what == What::Interactions {
            verify::new(signed, body, &self.seen, age).await?;
        }
        Ok(())
    }
}

impl Answers for Front {
    type Body = Full<Bytes>;

    async fn answer(self: Arc<Self>, request: Request<Incoming>, _: Peer) -> Answer {
        let _counted = InFlight::begin(&self.metrics);
        self.take(request).await
    }
}

/// What was read of a body.
enum Read {
    Whole(Bytes),
    TooLarge,
    /// All bodies together have as much as they may.
    NoRoom,
}

/// A body of at most so many bytes. Of one that has more some are read, or whoever sends them wouldn't see the answer.
async fn whole(mut body: Incoming, most: usize, memory: &mut Reserved<'_>) -> Result<Read, hyper::Error> {
    let (mut whole, mut read) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        read += data.len();
        if read <= most {
            if !memory.grow(read) {
                return Ok(Read::NoRoom);
            }
            whole.extend_from_slice(&data);
        } else if read > most + MAX_PASSED_OVER {
            break;
        }
    }
    Ok(if read <= most { Read::Whole(whole.freeze()) } else { Read::TooLarge })
}

fn endpoints(config: &Config) -> HashMap<String, Endpoint> {
    // Without a way to anybody, an event would be taken and be lost: Discord is to hear that nobody takes them.
    let takes_events = config.broker.is_some() || config.events_url.is_some();
    let mut endpoints = HashMap::new();
    for Application { key, interactions, events } in &config.applications {
        for (path, what) in [(interactions, What::Interactions), (events, What::Events)] {
            if what == What::Events && !takes_events {
                continue;
            }
            let endpoint = || Endpoint { what, keys: Vec::new() };
            let endpoint = endpoints.entry(path.clone()).or_insert_with(endpoint);
            // One path is for one thing: the settings are checked for that within an application.
            if endpoint.what == what {
                endpoint.keys.push(*key);
            }
        }
    }
    endpoints
}
