// SPDX-License-Identifier: AGPL-3.0-only
//! Connections to Discord: kept, shared, HTTP/2 where it is spoken. In: requests. Out: heads of answers, within a time.

use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{Body, Payload};
use crate::RestError;

/// A connection with HTTP/2 that has gone silent would take all requests with it: it is tried so often, and given up
/// when it doesn't answer.
const PING_EVERY: Duration = Duration::from_secs(15);
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection may be idle before it is closed: less than servers usually keep one.
const IDLE: Duration = Duration::from_secs(55);

/// Idle connections that are kept: those of a burst, 16 KiB each.
const IDLE_CONNECTIONS: usize = 256;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// Makes connections, with TLS where the address asks for it.
pub type Connector = HttpsConnector<HttpConnector>;

/// Makes connections as all of our services do that ask by HTTP.
///
/// # Errors
/// There is no TLS.
pub fn connector() -> Result<Connector, RestError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    let https = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| RestError::Address { reason: error.to_string() })?;
    Ok(https.https_or_http().enable_all_versions().wrap_connector(http))
}

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Upstream {
    pool: Pool<Connector, Payload>,
    scheme: Scheme,
    authority: Authority,
    /// `/api/v10`: what stands before a path without a version.
    base: String,
    timeout: Duration,
}

/// Why Discord didn't answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection could be made: the request wasn't sent.
    #[error("Discord can't be reached: {0}")]
    Unreachable(String),
    /// The connection ended before the answer: the request may have been done.
    #[error("the connection to Discord ended before the answer: {reason}")]
    Lost {
        /// How.
        reason: String,
    },
    /// No answer in time: the request may have been done.
    #[error("Discord did not answer in time")]
    TimedOut,
    /// The caller's body ended early.
    #[error("the body of the request ended early")]
    Body,
    /// An answer's body that should be short wasn't, or ended early.
    #[error("Discord's answer could not be read")]
    Unreadable,
}

impl Upstream {
    /// Discord's API at `api_url`; an answer has to begin within `timeout`.
    ///
    /// # Errors
    /// The address can't be used.
    pub fn new(api_url: &str, timeout: Duration) -> Result<Self, RestError> {
        let wrong = |reason: &str| RestError::Address { reason: reason.to_owned() };
        let uri: Uri = api_url.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(wrong("it begins with http:// or https:// and a host"));
        };
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(wrong("it begins with http:// or https://"));
        }
        let base =
            parts.path_and_query.map_or(String::new(), |path| path.path().trim_end_matches('/').to_owned());
        let connector = connector()?;
        let pool = Pool::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PONG_WITHIN)
            .http2_keep_alive_while_idle(true)
            .build(connector);
        Ok(Self { pool, scheme, authority, base, timeout })
    }

    /// Path of the API with its version, without a closing slash.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn uri(&self, target: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        (parts.scheme, parts.authority) = (Some(self.scheme.clone()), Some(self.authority.clone()));
        parts.path_and_query = Some(target);
        Uri::from_parts(parts).expect("scheme, authority and path make an address")
    }

    pub(super) async fn request(&self, request: Request<Payload>) -> Result<Response<Body>, UpstreamError> {
        let answer = tokio::time::timeout(self.timeout, self.pool.request(request)).await;
        let response = answer.map_err(|_| UpstreamError::TimedOut)?.map_err(|error| failed(&error))?;
        Ok(response.map(Body::Stream))
    }
}

fn failed(error: &PoolError) -> UpstreamError {
    let mut innermost: &dyn std::error::Error = error;
    let mut from_body = false;
    while let Some(source) = innermost.source() {
        from_body |= source.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user);
        innermost = source;
    }
    let reason = innermost.to_string();
    match error {
        _ if error.is_connect() => UpstreamError::Unreachable(reason),
        _ if from_body => UpstreamError::Body,
        _ => UpstreamError::Lost { reason },
    }
}
