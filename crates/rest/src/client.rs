// SPDX-License-Identifier: AGPL-3.0-only
//! A client of Discord's REST API for one token: one request at a time comes in, one answer goes out, within a
//! deadline and a bound on its size.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use holdfast_service::Secret;
use http::header::{AUTHORIZATION, DATE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

use crate::gateway_url::same_place;
use crate::{Application, CurrentUser, GatewayBot, RestError};

/// Discord asks every client to name itself in this form ("User Agent").
const AGENT: &str = concat!("DiscordBot (holdfast, ", env!("CARGO_PKG_VERSION"), ")");

/// How long a request may take as a whole: Discord answers these within a second; a retry is cheaper than waiting.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The answers that are read here are at most a few KiB (an application with its guild and team).
const MAX_ANSWER: usize = 1 << 20;

/// How long to wait when a 429 doesn't say.
const UNSAID_WAIT: Duration = Duration::from_secs(5);

/// Asks Discord's REST API in the name of one bot. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    api_url: String,
    authorization: HeaderValue,
    timeout: Duration,
}

impl Client {
    /// A client for the API at `api_url` (`http` or `https`, such as `https://discord.com/api/v10`).
    ///
    /// # Errors
    /// The address or the token can't be used at all.
    pub fn new(api_url: &str, token: &Secret) -> Result<Self, RestError> {
        let api_url = api_url.trim_end_matches('/').to_owned();
        let uri: Uri = api_url.parse().map_err(|error: http::uri::InvalidUri| address(error.to_string()))?;
        if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(address("it begins with http:// or https:// and a host".to_owned()));
        }
        let mut authorization =
            HeaderValue::from_str(&format!("Bot {}", token.expose())).map_err(|_| RestError::Token)?;
        authorization.set_sensitive(true);
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| address(error.to_string()))?
            .https_or_http()
            .enable_http1()
            .build();
        let pool = Pool::builder(TokioExecutor::new()).pool_idle_timeout(TIMEOUT).build(connector);
        Ok(Self { pool, api_url, authorization, timeout: TIMEOUT })
    }

    /// The same client with another deadline per request.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The gateway's address, the recommended number of shards and the identify budget. `own` is the public address
    /// of our own front, which the answer must not be.
    ///
    /// # Errors
    /// See [`RestError`].
    pub async fn gateway_bot(&self, own: Option<&str>) -> Result<GatewayBot, RestError> {
        let gateway: GatewayBot = self.get("/gateway/bot").await?;
        match own {
            Some(own) if same_place(own, &gateway.url) => Err(RestError::OwnGateway { url: gateway.url }),
            _ => Ok(gateway),
        }
    }

    /// The bot's own user.
    ///
    /// # Errors
    /// See [`RestError`].
    pub async fn current_user(&self) -> Result<CurrentUser, RestError> {
        self.get("/users/@me").await
    }

    /// The bot's application.
    ///
    /// # Errors
    /// See [`RestError`].
    pub async fn application(&self) -> Result<Application, RestError> {
        self.get("/applications/@me").await
    }

    /// What time it is at Discord, in whole seconds; none, if it doesn't say.
    ///
    /// # Errors
    /// See [`RestError`].
    pub async fn clock(&self) -> Result<Option<SystemTime>, RestError> {
        let path = "/gateway";
        let answer = tokio::time::timeout(self.timeout, self.ask(path)).await;
        let response = answer
            .map_err(|_| RestError::TimedOut { api_url: self.api_url.clone(), after: self.timeout })??;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| httpdate::parse_http_date(date).ok()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RestError> {
        let answer = tokio::time::timeout(self.timeout, self.fetch(path)).await;
        let body = answer
            .map_err(|_| RestError::TimedOut { api_url: self.api_url.clone(), after: self.timeout })??;
        serde_json::from_slice(&body).map_err(|error| not_discord(path, error.to_string()))
    }

    async fn fetch(&self, path: &str) -> Result<Bytes, RestError> {
        let response = self.ask(path).await?;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| not_discord(path, error.to_string()))
    }

    async fn ask(&self, path: &str) -> Result<Response<Incoming>, RestError> {
        let request = Request::get(format!("{}{path}", self.api_url))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(USER_AGENT, HeaderValue::from_static(AGENT))
            .body(Empty::new())
            .map_err(|error| address(error.to_string()))?;
        let response = self.pool.request(request).await.map_err(|error| self.unreachable(&error))?;
        self.refused(path, &response)?;
        Ok(response)
    }

    fn refused(&self, path: &str, response: &Response<Incoming>) -> Result<(), RestError> {
        let path = path.to_owned();
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::UNAUTHORIZED => Err(RestError::Unauthorized),
            StatusCode::FORBIDDEN => Err(RestError::Forbidden { path }),
            StatusCode::TOO_MANY_REQUESTS => {
                let retry_after = retry_after(response).unwrap_or(UNSAID_WAIT);
                Err(RestError::RateLimited { path, retry_after })
            }
            status => Err(RestError::Status { path, status: status.as_u16() }),
        }
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> RestError {
        RestError::Unreachable { api_url: self.api_url.clone(), reason: innermost(error) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("api_url", &self.api_url).finish_non_exhaustive()
    }
}

fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let seconds: f64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The cause at the bottom says what happened; the layers above only that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn address(reason: String) -> RestError {
    RestError::Address { reason }
}

fn not_discord(path: &str, reason: String) -> RestError {
    RestError::NotDiscord { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests;
