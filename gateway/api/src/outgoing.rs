// SPDX-License-Identifier: AGPL-3.0-only
//! What goes to Discord, by whichever front it came: headers made fit, the gateway answered, identical requests shared.
//! In: requests that may pass. Out: answers. One for all fronts of a process.

use std::sync::Arc;

use holdfast_rest::{Body, Call, Caller, Payload, Priority};
use holdfast_service::Secret;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::answer::Problem;
use crate::gateway::{gateway, gateway_bot, is_ours};
use crate::metrics::Metrics;
use crate::peers::{RELAYED, Way};
use crate::request::{Target, strip, strip_request, target};
use crate::settings::Config;
use crate::sharing::{Key, Sharing};

/// Discord asks every client to name itself in this form ("User Agent"); for callers that don't.
const AGENT: &str = concat!("DiscordBot (holdfast-api, ", env!("CARGO_PKG_VERSION"), ")");

/// See the module.
pub(crate) struct Outgoing {
    pub(crate) config: Config,
    pub(crate) access: Access,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) way: Way,
    /// The same without other replicas.
    straight: Way,
    /// The bot's token as a header, for requests without one.
    default: Option<HeaderValue>,
    /// The header of the bot whose gateway `ws` serves.
    own: Option<HeaderValue>,
    sharing: Sharing,
}

/// A request as its caller put it.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) priority: Option<Priority>,
    pub(crate) caller: Caller,
    /// How long it may wait.
    pub(crate) deadline: Instant,
    /// Ends its waiting early.
    pub(crate) stop: Option<CancellationToken>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gateway {
    Plain,
    Bot,
}

impl Outgoing {
    pub(crate) fn new(config: Config, way: Way, metrics: Arc<Metrics>) -> Self {
        let token = config.token.as_ref().map(|token| Secret::new(format!("Bot {}", token.expose())));
        let own = token.as_ref().and_then(|token| {
            let mut value = HeaderValue::from_str(token.expose()).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let listed = config.only_own_token || !config.tokens.is_empty();
        let only = listed.then(|| config.tokens.iter().cloned().chain(token).collect());
        let access = Access { secret: config.secret.clone(), only };
        let default = own.clone().filter(|_| config.default_token);
        let sharing =
            Sharing::new(config.coalesce, config.upstream_timeout, config.cache, config.cache_memory);
        let straight = Way { forwarder: way.forwarder.clone(), peers: None };
        Self { config, access, metrics, way, straight, default, own, sharing }
    }

    /// Where a caller's path leads to at Discord.
    pub(crate) fn target(&self, uri: &Uri) -> Result<Target, Problem> {
        target(uri, self.way.forwarder.upstream().base()).map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "path", "this path leads somewhere else than it seems to")
        })
    }

    /// Answers a request that may pass.
    pub(crate) async fn send(&self, asked: Asked, payload: Payload) -> Result<Response<Body>, Problem> {
        let fronted = self.fronted(&asked);
        if fronted == Some(Gateway::Plain) {
            return Ok(gateway(&self.config.gateway_url));
        }
        let Asked { method, target, headers, priority, caller, deadline, stop } = asked;
        // Whoever has sent it on takes this replica for its owner.
        let way = if headers.contains_key(RELAYED) { &self.straight } else { &self.way };
        let mut headers = self.fit(headers);
        if fronted == Some(Gateway::Bot) {
            // The answer is looked into: it mustn't be compressed.
            headers.remove(ACCEPT_ENCODING);
        }
        let call = Call {
            method,
            target: target.path,
            below: target.below,
            headers,
            payload,
            priority,
            caller,
            deadline,
            stop,
        };
        let mut response = match Key::of(&call).filter(|_| self.sharing.is_on()) {
            Some(key) => self.sharing.get(key, call, way, &self.metrics).await?,
            None => {
                self.sharing.forget(&call);
                way.send(call).await?
            }
        };
        strip(response.headers_mut());
        if fronted == Some(Gateway::Bot) {
            return gateway_bot(response, &self.config.gateway_url, self.config.shards).await;
        }
        Ok(response)
    }

    /// Headers as Discord is to see them.
    fn fit(&self, mut headers: HeaderMap) -> HeaderMap {
        strip_request(&mut headers);
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        }
        if let Some(token) = &self.default
            && !headers.contains_key(AUTHORIZATION)
        {
            headers.insert(AUTHORIZATION, token.clone());
        }
        if let Some(token) = headers.get_mut(AUTHORIZATION) {
            // Neither printed nor kept in the tables of HTTP/2.
            token.set_sensitive(true);
        }
        headers
    }

    /// Whether the request asks for the gateway that `ws` serves.
    fn fronted(&self, asked: &Asked) -> Option<Gateway> {
        let path = &asked.target.path.path()[asked.target.below..];
        let asks = self.config.gateway && asked.method == Method::GET && path.starts_with("/gateway");
        if !asks || is_ours(&asked.headers) {
            return None;
        }
        match path {
            "/gateway" => Some(Gateway::Plain),
            // Another bot's gateway isn't ours.
            "/gateway/bot" => {
                let token = asked.headers.get(AUTHORIZATION).or(self.default.as_ref());
                (token == self.own.as_ref()).then_some(Gateway::Bot)
            }
            _ => None,
        }
    }
}
