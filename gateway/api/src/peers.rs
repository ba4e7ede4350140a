// SPDX-License-Identifier: AGPL-3.0-only
//! Replicas while the store is away: each account belongs to one of them, by hash, and the others send its requests
//! there. In: who lived when the store was heard last, calls. Out: answers of the owner. Owned by the service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_cluster::RestStore;
use holdfast_rest::{
    Body, Call, Connector, Forwarder, Limits, Payload, Priority, RestError, UpstreamError, connector,
};
use holdfast_service::{Condition, Secret};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::answer::Problem;
use crate::metrics::Metrics;
use crate::settings::Config;

/// On requests that another replica has sent on: whoever gets them sends them to Discord.
pub(crate) const RELAYED: HeaderName = HeaderName::from_static("holdfast-relayed");

/// How often a replica says that it is there, and for how long that counts.
const ANNOUNCE: Duration = Duration::from_secs(1);
const COUNTS: Duration = Duration::from_secs(5);

/// How long a replica that couldn't be reached isn't tried again: its accounts belong to the next one.
const AVOIDED: Duration = Duration::from_secs(5);

/// The way of calls: to Discord, or to the replica that their account belongs to. Clones share it.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) forwarder: Forwarder,
    pub(crate) peers: Option<Arc<Peers>>,
}

/// See the module.
pub(crate) struct Peers {
    store: RestStore,
    egress: String,
    /// This replica's address, and what stands before all of theirs.
    own: String,
    scheme: &'static str,
    secret: Option<HeaderValue>,
    /// How long an answer may take once it is a request's turn.
    patience: Duration,
    pool: Client<Connector, Payload>,
    /// Who lived when the store was heard last.
    known: Mutex<Vec<String>>,
    avoided: Mutex<HashMap<String, Instant>>,
    metrics: Arc<Metrics>,
}

impl Way {
    /// Sends a call when it is its turn, here or at its owner.
    pub(crate) async fn send(&self, call: Call) -> Result<Response<Body>, Problem> {
        let call = match self.peers.as_ref().filter(|peers| !peers.store.is_connected()) {
            Some(peers) => match peers.relay(call).await {
                Relayed::Answered(response) => return response,
                Relayed::Ours(call) => *call,
            },
            None => call,
        };
        Ok(self.forwarder.send(call).await?)
    }
}

/// What became of a call.
enum Relayed {
    Answered(Result<Response<Body>, Problem>),
    /// It is to be sent from here.
    Ours(Box<Call>),
}

impl Peers {
    /// This replica, which others reach at `own`. `None` without a store.
    ///
    /// # Errors
    /// There is no TLS.
    pub(crate) fn new(
        config: &Config,
        limits: &Limits,
        own: String,
        metrics: Arc<Metrics>,
    ) -> Result<Option<Arc<Self>>, RestError> {
        let Some(store) = limits.store().cloned() else { return Ok(None) };
        let pool = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector()?);
        let hidden = |secret: &Secret| {
            let mut value = HeaderValue::from_str(secret.expose()).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        Ok(Some(Arc::new(Self {
            store,
            egress: config.limits.egress.clone(),
            known: Mutex::new(vec![own.clone()]),
            own,
            scheme: if config.tls.is_some() { "https" } else { "http" },
            secret: config.secret.as_ref().and_then(hidden),
            patience: config.upstream_timeout,
            pool,
            avoided: Mutex::default(),
            metrics,
        })))
    }

    /// Says that this replica is there, and hears who else is, until the service ends. `/readyz` says when that can't be.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken, condition: Condition) {
        loop {
            match self.store.replicas(&self.egress, &self.own, COUNTS).await {
                Ok(replicas) => {
                    self.metrics.replicas.set(i64::try_from(replicas.len()).unwrap_or(i64::MAX));
                    *self.known.lock().unwrap_or_else(PoisonError::into_inner) = replicas;
                    condition.ready();
                }
                Err(away) => condition.remark(format!("{away}: accounts belong to replicas by hash")),
            }
            if stop.run_until_cancelled(tokio::time::sleep(ANNOUNCE)).await.is_none() {
                break;
            }
        }
        // If it can't be told, it lapses.
        let _ = self.store.replicas(&self.egress, &self.own, Duration::ZERO).await;
    }

    /// Sends a call to the owner of its account, if that is another.
    async fn relay(&self, mut call: Call) -> Relayed {
        let path = call.target.path().get(call.below..).unwrap_or_default();
        let token = call.headers.get(AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        let Some(account) = Limits::account_number(token, call.method.as_str(), path) else {
            return Relayed::Ours(Box::new(call));
        };
        while let Some(owner) = self.owner(account) {
            let again = match &call.payload {
                Payload::Whole(body) => Some(Payload::Whole(body.clone())),
                Payload::Stream(_) | Payload::Made(_) => None,
            };
            let wait = call.deadline.saturating_duration_since(Instant::now());
            let asked = self.pool.request(self.request(&owner, &mut call, wait));
            let error = match timeout(wait + self.patience, asked).await {
                Ok(Ok(response)) => {
                    self.metrics.relayed("answered");
                    return Relayed::Answered(Ok(response.map(Body::Stream)));
                }
                Ok(Err(error)) if error.is_connect() => {
                    self.avoid(owner);
                    match again {
                        Some(payload) => call.payload = payload,
                        None => {
                            return self.failed(UpstreamError::Unreachable("the replica is gone".to_owned()));
                        }
                    }
                    continue;
                }
                Ok(Err(error)) => UpstreamError::Lost { reason: error.to_string() },
                Err(_) => UpstreamError::TimedOut,
            };
            return self.failed(error);
        }
        Relayed::Ours(Box::new(call))
    }

    fn failed(&self, error: UpstreamError) -> Relayed {
        self.metrics.relayed("failed");
        Relayed::Answered(Err(holdfast_rest::CallError::from(error).into()))
    }

    /// The request as the owner is to get it.
    fn request(&self, owner: &str, call: &mut Call, wait: Duration) -> Request<Payload> {
        let payload = std::mem::replace(&mut call.payload, Payload::Whole(bytes::Bytes::new()));
        let mut request = Request::new(payload);
        *request.method_mut() = call.method.clone();
        let uri = Uri::builder().scheme(self.scheme).authority(owner).path_and_query(call.target.clone());
        // An address that is none can't be reached.
        *request.uri_mut() = uri.build().unwrap_or_default();
        let mut headers = call.headers.clone();
        headers.insert(RELAYED, HeaderValue::from_static("1"));
        headers.insert(
            "holdfast-deadline-ms",
            HeaderValue::from(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        );
        if let Some(priority) = call.priority {
            let name = match priority {
                Priority::High => "high",
                Priority::Normal => "normal",
                Priority::Low => "low",
            };
            headers.insert("holdfast-priority", HeaderValue::from_static(name));
        }
        if let Some(secret) = &self.secret {
            headers.insert("holdfast-secret", secret.clone());
        }
        *request.headers_mut() = headers;
        request
    }

    /// The replica that an account belongs to; `None`: this one. Of those that can be reached, the one with the highest
    /// hash, so that one that is lost leaves the others' as they are.
    fn owner(&self, account: u64) -> Option<String> {
        let now = Instant::now();
        let avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fine = |peer: &&String| avoided.get(*peer).is_none_or(|until| *until <= now);
        let owner = known.iter().filter(fine).max_by_key(|peer| weight(account, peer))?;
        (*owner != self.own).then(|| owner.clone())
    }

    fn avoid(&self, peer: String) {
        let mut avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
        avoided.insert(peer, Instant::now() + AVOIDED);
    }
}

/// Of an account at a replica: the same wherever it is computed (FNV-1a, then mixed).
fn weight(account: u64, peer: &str) -> u64 {
    let step = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = account.to_be_bytes().into_iter().chain(peer.bytes()).fold(0xcbf2_9ce4_8422_2325, step);
    let mixed = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_spread_and_stay_where_they_are_when_another_replica_is_lost() {
        let peers = ["a:1", "b:1", "c:1"];
        let owner = |account: u64, peers: &[&'static str]| {
            peers.iter().copied().max_by_key(|peer| weight(account, peer)).expect("some")
        };
        for account in 0..300 {
            let before = owner(account, &peers);
            let after = owner(account, &peers[..2]);
            assert!(before == "c:1" || before == after);
        }
        for peer in peers {
            let owned = (0..300).filter(|account| owner(*account, &peers) == peer).count();
            assert!((70..130).contains(&owned), "{peer}: {owned}");
        }
    }
}
