// SPDX-License-Identifier: AGPL-3.0-only
//! Identical GETs: those that are under way at once share one request to Discord, and answers are kept for a moment if
//! the settings say so. In: requests. Out: answers. A request goes on as long as anybody waits for it; failures are
//! nobody's but the one's who had them. Bounded by bytes and number; owned by `Outgoing`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, Shared, WeakShared};
use futures_util::{FutureExt, StreamExt, stream};
use holdfast_rest::{Body, BodyError, Call, Payload};
use http::header::{AUTHORIZATION, HeaderName, USER_AGENT};
use http::response::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::time::{Instant, timeout_at};

use crate::answer::Problem;
use crate::cache::Cache;
use crate::metrics::Metrics;
use crate::peers::Way;

/// Answers up to this are shared and kept; a longer one goes to one caller as it comes.
const WHOLE: usize = 256 << 10;

/// Requests that others may join; beyond, each goes by itself.
const FLIGHTS: usize = 16_384;

/// Stands for a request that nobody may join any more.
const CLOSED: usize = usize::MAX;

/// Headers that tell of the caller, not of what is asked for.
const OF_THE_CALLER: [HeaderName; 4] = [
    USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// What makes requests identical: token, path, query, priority, and every header that may matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// How much of it is the token.
    token: usize,
    bytes: Bytes,
}

/// An answer that several may have.
#[derive(Debug)]
pub(crate) struct Answer {
    head: Parts,
    body: Bytes,
}

/// What a shared request ends with.
enum Outcome {
    Whole(Arc<Answer>),
    /// For the one that it was sent for.
    One(Mutex<Option<Result<Response<Body>, Problem>>>),
}

type Flight = Shared<BoxFuture<'static, Arc<Outcome>>>;

/// A request that may be joined by who can wait at least as long.
struct Joinable {
    flight: WeakShared<BoxFuture<'static, Arc<Outcome>>>,
    joined: Arc<AtomicUsize>,
    deadline: Instant,
}

/// What somebody has to do with a flight.
enum Role {
    Leads,
    /// With the request that goes out if the flight isn't for all.
    Follows(Box<Call>),
}

type Flights = Arc<Mutex<HashMap<Key, Joinable>>>;
type Kept = Option<Arc<Mutex<Cache<Key, Arc<Answer>>>>>;

/// See the module.
pub(crate) struct Sharing {
    coalesce: bool,
    /// How long an answer may take to be gathered.
    patience: Duration,
    flights: Flights,
    cache: Kept,
}

impl Key {
    /// Of a request that may be shared: a GET without a body.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        let empty = matches!(&call.payload, Payload::Whole(body) if body.is_empty());
        if call.method != Method::GET || !empty {
            return None;
        }
        let mut bytes = BytesMut::with_capacity(512);
        bytes.extend_from_slice(token(call));
        let token = bytes.len();
        bytes.extend_from_slice(call.target.as_str().as_bytes());
        bytes.extend_from_slice(&[0, call.priority.map_or(0, |priority| 1 + priority as u8)]);
        for (name, value) in &call.headers {
            if *name != AUTHORIZATION && !OF_THE_CALLER.contains(name) {
                bytes.extend_from_slice(name.as_str().as_bytes());
                bytes.extend_from_slice(&[0]);
                bytes.extend_from_slice(value.as_bytes());
                bytes.extend_from_slice(&[0]);
            }
        }
        Some(Self { token, bytes: bytes.freeze() })
    }

    fn is_of(&self, token: &[u8]) -> bool {
        &self.bytes[..self.token] == token
    }
}

fn token(call: &Call) -> &[u8] {
    call.headers.get(AUTHORIZATION).map_or(&[], |value| value.as_bytes())
}

impl Answer {
    fn bytes(&self) -> usize {
        let headers = self.head.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        self.body.len() + headers.sum::<usize>()
    }

    fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::whole(self.body.clone()));
        *response.status_mut() = self.head.status;
        *response.headers_mut() = self.head.headers.clone();
        response
    }
}

impl Sharing {
    pub(crate) fn new(coalesce: bool, patience: Duration, kept_for: Duration, memory: usize) -> Self {
        let cache = (!kept_for.is_zero()).then(|| Arc::new(Mutex::new(Cache::new(kept_for, memory))));
        Self { coalesce, patience, flights: Arc::default(), cache }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.coalesce || self.cache.is_some()
    }

    /// A request that changes something: what is kept of its token's may not be true any more.
    pub(crate) fn forget(&self, call: &Call) {
        if let Some(cache) = &self.cache {
            lock(cache).forget(|key| key.is_of(token(call)));
        }
    }

    /// Answers a request from what is kept, by one that is under way, or by sending it.
    pub(crate) async fn get(
        &self,
        key: Key,
        call: Call,
        way: &Way,
        metrics: &Metrics,
    ) -> Result<Response<Body>, Problem> {
        let kept = self.cache.as_ref().and_then(|cache| lock(cache).get(&key, Instant::now()).cloned());
        if let Some(answer) = kept {
            metrics.shared("cache");
            return Ok(answer.response());
        }
        let (flight, role) = self.join(key, call, way);
        match (&*flight.await, role) {
            (Outcome::Whole(answer), Role::Leads) => Ok(answer.response()),
            (Outcome::Whole(answer), Role::Follows(_)) => {
                metrics.shared("flight");
                Ok(answer.response())
            }
            (Outcome::One(own), Role::Leads) => lock(own).take().expect("only who leads takes it, and once"),
            (Outcome::One(_), Role::Follows(call)) => way.send(*call).await,
        }
    }

    /// Joins a request that is under way, or begins one.
    fn join(&self, key: Key, call: Call, way: &Way) -> (Flight, Role) {
        let mut flights = lock(&self.flights);
        if let Some(joinable) = flights.get(&key).filter(|it| self.coalesce && it.deadline <= call.deadline)
            && let Some(flight) = joinable.flight.upgrade()
            && joinable.add()
        {
            return (flight, Role::Follows(Box::new(call)));
        }
        let (joined, deadline) = (Arc::new(AtomicUsize::new(1)), call.deadline);
        let (way, open) = (way.clone(), Arc::clone(&joined));
        let (all, cache, name) = (Arc::clone(&self.flights), self.cache.clone(), key.clone());
        let patience = self.patience;
        let flight = async move {
            let answer = way.send(call).await;
            // From here on nobody joins.
            let others = open.swap(CLOSED, Ordering::Relaxed) > 1;
            leave(&all, &name, &open);
            Arc::new(land(answer, others, name, cache, patience).await)
        };
        let flight: Flight = flight.boxed().shared();
        if flights.len() >= FLIGHTS {
            flights.retain(|_, joinable| joinable.flight.upgrade().is_some());
        }
        if let Some(weak) = flight.downgrade().filter(|_| flights.len() < FLIGHTS) {
            flights.insert(key, Joinable { flight: weak, joined, deadline });
        }
        (flight, Role::Leads)
    }
}

/// The request can't be joined any more.
fn leave(flights: &Flights, key: &Key, joined: &Arc<AtomicUsize>) {
    let mut flights = lock(flights);
    // There may be a later one of the same key by now.
    if flights.get(key).is_some_and(|it| Arc::ptr_eq(&it.joined, joined)) {
        flights.remove(key);
    }
}

impl Joinable {
    /// One more waits for it, if that is still possible.
    fn add(&self) -> bool {
        let more = |joined: usize| (joined != CLOSED).then(|| joined + 1);
        self.joined.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// What becomes of an answer: only one that others wait for, or that is to be kept, is gathered.
async fn land(
    answer: Result<Response<Body>, Problem>,
    others: bool,
    key: Key,
    cache: Kept,
    patience: Duration,
) -> Outcome {
    let one = |own| Outcome::One(Mutex::new(Some(own)));
    let response = match answer {
        // How long to wait is each one's own affair.
        Ok(response) if response.status() != StatusCode::TOO_MANY_REQUESTS => response,
        own => return one(own),
    };
    let cache = cache.filter(|_| response.status() == StatusCode::OK);
    if !others && cache.is_none() {
        return one(Ok(response));
    }
    match gather(response, patience).await {
        Ok(answer) => {
            let answer = Arc::new(answer);
            if let Some(cache) = cache {
                let bytes = answer.bytes() + key.bytes.len();
                lock(&cache).put(key, Arc::clone(&answer), bytes, Instant::now());
            }
            Outcome::Whole(answer)
        }
        Err(response) => one(Ok(response)),
    }
}

/// All of an answer; or, where that is too long, stands still or breaks off, the same answer as it was.
async fn gather(response: Response<Body>, patience: Duration) -> Result<Answer, Response<Body>> {
    let until = Instant::now() + patience;
    let (head, mut body) = response.into_parts();
    let mut whole = BytesMut::new();
    let rest = loop {
        let Ok(frame) = timeout_at(until, body.frame()).await else {
            let late = Err("the body did not come in time".into());
            break stream::once(std::future::ready(late)).boxed();
        };
        match frame {
            None => return Ok(Answer { head, body: whole.freeze() }),
            Some(Err(error)) => break stream::once(std::future::ready(Err(error))).boxed(),
            Some(Ok(frame)) => {
                whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            }
        }
        if whole.len() > WHOLE {
            break body.into_data_stream().boxed();
        }
    };
    let first: Result<Bytes, BodyError> = Ok(whole.freeze());
    let all = stream::iter([first]).chain(rest).map(|data| data.map(Frame::data));
    Err(Response::from_parts(head, Body::Made(UnsyncBoxBody::new(StreamBody::new(all)))))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
