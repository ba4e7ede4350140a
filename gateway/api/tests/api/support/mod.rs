// SPDX-License-Identifier: AGPL-3.0-only
//! A simulated Discord, the service before it, and a caller.

mod door;
mod fleet;
mod process;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use holdfast_api::Config;
use holdfast_service::{Secret, Service};
use holdfast_simulator::{Bucket, Options, Refill, RestLimits, Simulator};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use door::Door;
pub(crate) use fleet::{configured_fleet, fleet, store};
pub(crate) use process::Process;

pub(crate) const TOKEN: &str = "sim-token";
pub(crate) const OTHER: &str = "other-token";

/// The route that most buckets here are of.
pub(crate) const SEND: &str = "POST /channels/{channel_id}/messages";

/// How long anything may take that isn't bound by a limit.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Stage {
    pub(crate) discord: Simulator,
    pub(crate) api: RunningApi,
}

/// The service in this process.
pub(crate) struct RunningApi {
    pub(crate) address: SocketAddr,
    pub(crate) service: Service,
    pub(crate) shutdown: CancellationToken,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer as a caller sees it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Discord with limits that a test chooses.
pub(crate) async fn stage(change: impl FnOnce(&mut RestLimits)) -> Stage {
    configured(change, |_| {}).await
}

/// The same with settings that a test chooses.
pub(crate) async fn configured(
    change: impl FnOnce(&mut RestLimits),
    configure: impl FnOnce(&mut Config),
) -> Stage {
    let tokens = vec![TOKEN.to_owned(), OTHER.to_owned()];
    let discord = Simulator::start(Options { tokens, ..Options::default() }).await.expect("starts");
    let mut limits = RestLimits::default();
    change(&mut limits);
    discord.set_rest_limits(limits);
    let api = api(discord.api_url(), configure).await;
    Stage { discord, api }
}

/// The service before whatever is at `api_url`.
pub(crate) async fn api(api_url: &str, configure: impl FnOnce(&mut Config)) -> RunningApi {
    let mut config =
        Config { api_url: api_url.to_owned(), token: Some(Secret::new(TOKEN)), ..Config::default() };
    configure(&mut config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (service, shutdown) = (Service::new(CancellationToken::new()), CancellationToken::new());
    let api = holdfast_api::start(config, listener, &service, shutdown.clone()).await.expect("starts");
    service.tasks.spawn("api", async move { api.wait().await.expect("nothing refuses") });
    let client = Client::builder(TokioExecutor::new()).build_http();
    RunningApi { address, service, shutdown, client }
}

impl Stage {
    /// Sends a request with the bot's token.
    pub(crate) async fn ask(&self, method: &str, path: &str) -> Answer {
        self.api.send(request(method, path, "")).await
    }

    /// How many requests Discord has answered with this status.
    pub(crate) fn answered(&self, status: u16) -> usize {
        self.discord.requests().iter().filter(|request| request.status == status).count()
    }
}

impl RunningApi {
    /// Sends a request.
    pub(crate) async fn send(&self, mut request: Request<Full<Bytes>>) -> Answer {
        let uri = format!("http://{}{}", self.address, request.uri());
        *request.uri_mut() = uri.parse().expect("an address");
        let response = self.client.request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// What `/metrics` says.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.service.metrics.encode();
        let found = text.lines().find_map(|other| other.strip_prefix(line)?.strip_prefix(' '));
        assert!(found.is_some(), "no {line} in {text}");
        found.unwrap_or_default().parse().expect("a number")
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

/// A bucket of its own.
pub(crate) fn bucket(routes: &[&str], limit: u32, seconds: f64, refill: Refill) -> Bucket {
    Bucket {
        routes: routes.iter().map(|route| (*route).to_owned()).collect(),
        hash: "0123456789abcdef".to_owned(),
        limit,
        seconds,
        refill,
        shared: false,
        sub_limits: Vec::new(),
    }
}

/// Whether the long tests are wanted (`cargo xtask test --full`).
pub(crate) fn full() -> bool {
    holdfast_service::environment().any(|(name, value)| name == "HOLDFAST_TEST_FULL" && !value.is_empty())
}

/// A request with the bot's token.
pub(crate) fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    request_of(TOKEN, method, path, body)
}

/// A request with a token.
pub(crate) fn request_of(token: &str, method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("authorization", format!("Bot {token}"));
    let request = if body.is_empty() { request } else { request.header("content-type", "application/json") };
    request.body(Full::from(body.to_owned())).expect("a request")
}

/// Waits until something holds that nothing tells of.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it holds soon");
}

impl RunningApi {
    /// Whether the answer's body breaks off.
    pub(crate) async fn breaks_off(&self, path: &str) -> bool {
        let mut asked = request("GET", path, "");
        *asked.uri_mut() = format!("http://{}{path}", self.address).parse().expect("an address");
        match self.client.request(asked).await {
            Ok(response) => response.into_body().collect().await.is_err(),
            Err(_) => true,
        }
    }
}
