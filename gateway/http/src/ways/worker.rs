// SPDX-License-Identifier: AGPL-3.0-only
//! To a worker's URL, as Discord would post it: the same body and signature, so that a library's own check passes. Its
//! answer is the reply, however late it comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use holdfast_discord::signature::{SIGNATURE, TIMESTAMP};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout_at;

use super::{Failure, Replies, Said};
use crate::asked::{Asked, Posted};
use crate::reply::Raw;

const AGENT: &str = concat!("holdfast-http/", env!("CARGO_PKG_VERSION"));
const CONNECT: Duration = Duration::from_secs(1);
/// Workers and proxies before them close what is idle, after 60 s or more as a rule; Node after 5 s.
const IDLE: Duration = Duration::from_secs(4);

/// Connections to workers.
#[derive(Clone)]
pub(crate) struct Worker {
    pool: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    max_reply: usize,
}

/// What a worker answered.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) raw: Raw,
}

impl Worker {
    /// Replies may have at most so many bytes.
    ///
    /// # Errors
    /// There are no certificates to trust.
    pub(crate) fn new(max_reply: usize) -> Result<Self, std::io::Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(std::io::Error::other)?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let pool = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { pool, max_reply })
    }

    /// Posts what Discord posted.
    pub(crate) async fn post(&self, url: &Uri, posted: &Posted) -> Result<Answered, Failure> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(USER_AGENT, AGENT)
            .header(CONTENT_TYPE, &posted.content_type)
            .header(SIGNATURE, &posted.signature)
            .header(TIMESTAMP, &posted.timestamp);
        let request =
            if posted.trace.is_empty() { request } else { request.header("traceparent", &posted.trace) };
        let request = request.body(Full::new(posted.body.clone())).map_err(|_| Failure::Unavailable)?;
        let response = self
            .pool
            .request(request)
            .await
            .map_err(|error| if error.is_connect() { Failure::NoWorker } else { Failure::Lost })?;
        let (head, body) = response.into_parts();
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let body = Limited::new(body, self.max_reply).collect().await.map_err(|_| Failure::Lost)?;
        Ok(Answered {
            status: head.status,
            raw: Raw { content_type, body: body.to_bytes(), ..Raw::default() },
        })
    }

    /// Asks, and waits until a reply is of no use any more.
    pub(super) fn ask(&self, asked: Arc<Asked>) -> Replies {
        let worker = self.clone();
        stream::once(async move {
            let url = asked.rule.url.as_ref().ok_or(Failure::NoWorker)?;
            let answered = timeout_at(asked.late_until, worker.post(url, &asked.posted)).await;
            let Answered { status, raw } = answered.map_err(|_| Failure::Lost)??;
            match status {
                // It has answered, or will, by the REST API ("Interaction Callback").
                StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(Said::Taken),
                status if status.is_success() => Ok(Said::Reply(raw, None)),
                _ => Err(Failure::Unavailable),
            }
        })
        .boxed()
    }
}
