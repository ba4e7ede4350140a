// SPDX-License-Identifier: AGPL-3.0-only
//! What the commands start: all services that there are, or one.

use holdfast_broker::{Exchange, Names};
use holdfast_service::BindError;
use holdfast_service::process::{self, Part, Program};
use holdfast_service::settings::Section;

/// The sections of all services, and which of them are wanted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Services {
    pub(crate) ws: holdfast_ws::Config,
    pub(crate) api: holdfast_api::Config,
    pub(crate) http: holdfast_http::Config,
    pub(crate) webhook: holdfast_webhook::Config,
    pub(crate) wanted: Wanted,
}

/// The services whose sections are there; where none is, all that need no section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    ws: bool,
    api: bool,
    http: bool,
    webhook: bool,
}

impl Wanted {
    /// Whether REST is.
    pub(crate) fn api(self) -> bool {
        self.api
    }

    /// Whether what Discord posts is.
    pub(crate) fn http(self) -> bool {
        self.http
    }
}

/// Everything that the settings say.
pub(crate) type Settings = process::Settings<Services>;

/// All services.
pub(crate) const ALL: Program<Services> = Program {
    name: "holdfast",
    admin_port: WS.admin_port,
    drop_in: WS.drop_in,
    read: Services::read,
    parts: Services::parts,
};

/// The gateway service alone, as in `holdfast-ws`.
pub(crate) const WS: Program<holdfast_ws::Config> = Program { name: "holdfast", ..holdfast_ws::PROGRAM };

/// The REST service alone, as in `holdfast-api`.
pub(crate) const API: Program<holdfast_api::Config> = Program { name: "holdfast", ..holdfast_api::PROGRAM };

/// The service for what Discord posts alone, as in `holdfast-http`.
pub(crate) const HTTP: Program<holdfast_http::Config> =
    Program { name: "holdfast", ..holdfast_http::PROGRAM };

/// The webhook service alone, as in `holdfast-webhook`.
pub(crate) const WEBHOOK: Program<holdfast_webhook::Config> =
    Program { name: "holdfast", ..holdfast_webhook::PROGRAM };

impl Services {
    fn read(root: &Section<'_>) -> Self {
        let mut ws = holdfast_ws::Config::read(root);
        let beside = holdfast_api::Beside {
            api_url: ws.discord.api_url.clone(),
            token: Some(ws.discord.token.clone()).filter(|token| !token.is_empty()),
            gateway_url: ws.public_url.clone(),
            shards: ws.shards.total,
            broker: ws.broker.clone(),
            cluster: ws.cluster.clone(),
        };
        let api = holdfast_api::Config::beside(root, beside);
        let beside = holdfast_webhook::Beside {
            api_url: api.api_url.clone(),
            upstream_timeout: api.upstream_timeout,
            limits: api.limits.clone(),
            broker: ws.broker.clone(),
            cluster: ws.cluster.clone(),
        };
        let webhook = holdfast_webhook::Config::beside(root, beside);
        let written = |section| root.origin(section).is_some();
        let named = ["ws", "api", "http", "webhook"].map(written);
        let [has_ws, has_api, has_http, has_webhook] = named;
        let none = named == [false; 4];
        let (ws_wanted, api_wanted) = (has_ws || none, has_api || none);
        let wanted = Wanted { ws: ws_wanted, api: api_wanted, http: has_http, webhook: has_webhook };
        let beside = holdfast_http::Beside {
            api_url: api.api_url.clone(),
            limits: api.limits.clone(),
            broker: ws.broker.clone(),
            ws: wanted.ws,
            cluster: ws.cluster.clone(),
        };
        let http = holdfast_http::Config::beside(root, beside);
        ws.embedded = wanted.http;
        Self { ws, api, http, webhook, wanted }
    }

    /// The exchanges that the services declare at the broker.
    pub(crate) fn exchanges(&self, names: &Names) -> Vec<Exchange> {
        let Wanted { ws, api, http, webhook } = self.wanted;
        let all = [
            ws.then(|| holdfast_ws::exchanges(&self.ws.amqp, names)),
            api.then(|| holdfast_api::exchanges(names)),
            http.then(|| holdfast_http::exchanges(names)),
            webhook.then(|| holdfast_webhook::exchanges(&self.webhook, names)),
        ];
        all.into_iter().flatten().flatten().collect()
    }

    fn parts(self) -> Result<Vec<Part>, BindError> {
        let mut parts = Vec::new();
        if self.wanted.ws {
            parts.push(holdfast_ws::part(self.ws)?);
        }
        if self.wanted.api {
            parts.push(holdfast_api::part(self.api)?);
        }
        if self.wanted.http {
            parts.push(holdfast_http::part(self.http)?);
        }
        if self.wanted.webhook {
            parts.push(holdfast_webhook::part(self.webhook));
        }
        Ok(parts)
    }
}
