// SPDX-License-Identifier: AGPL-3.0-only
//! Callers by HTTP: who they are, and how much of their connections is taken. In: settings, requests with their peers.
//! Out: a listener, answers of the front.

use std::net::IpAddr;
use std::sync::Arc;

use holdfast_rest::{Body, Caller};
use holdfast_service::{Answers, HttpBounds, HttpListener, Peer, TlsError};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::TcpListener;

use crate::front::Front;
use crate::metrics::Metrics;
use crate::settings::Config;

/// Takes over a bound listener.
pub(crate) fn listener(
    config: &Config,
    listener: TcpListener,
    metrics: &Metrics,
) -> Result<HttpListener, TlsError> {
    let bounds = HttpBounds {
        max_connections: config.max_connections,
        max_header_bytes: config.max_header_bytes,
        idle_timeout: config.idle_timeout,
    };
    HttpListener::new(listener, config.tls.as_ref(), bounds, metrics.connections.clone())
}

impl Answers for Front {
    type Body = Body;

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        self.answer_to(request, caller(peer)).await
    }
}

/// Who sends requests: an address; on this machine, where all have the same, a connection.
fn caller(peer: Peer) -> Caller {
    match peer.address {
        address if address.is_loopback() => Caller(peer.connection),
        // Above all connections of this machine.
        IpAddr::V4(address) => Caller(1 << 63 | u64::from(address.to_bits())),
        IpAddr::V6(address) => Caller(1 << 63 | u64::try_from(address.to_bits() >> 64).unwrap_or(0)),
    }
}
