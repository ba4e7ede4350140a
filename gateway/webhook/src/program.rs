// SPDX-License-Identifier: AGPL-3.0-only
//! The service as a process runs it: settings come in, a [`Part`] goes out, which ends with an exit code.

use holdfast_broker::{BrokerSettings, Names};
use holdfast_service::process::{Part, Program};
use holdfast_service::{Exit, Service};
use tokio_util::sync::CancellationToken;

use crate::{Config, start};

/// This service in a process of its own.
pub const PROGRAM: Program<Config> = Program {
    name: "holdfast-webhook",
    admin_port: 9103,
    drop_in: None,
    read: Config::read,
    parts: |config| Ok(vec![part(config)]),
};

/// The service, which listens nowhere but at the broker.
#[must_use]
pub fn part(config: Config) -> Part {
    let prefix = config.broker.as_ref().map_or_else(|| BrokerSettings::at("").prefix, |it| it.prefix.clone());
    let exchange = Names::new(prefix).webhook();
    Part {
        name: "webhook",
        greeting: format!("webhooks  exchange {exchange}"),
        url: exchange,
        pages: &[],
        drain: config.drain_timeout,
        drain_setting: "webhook.drain_timeout",
        life: Box::new(|service, shutdown| Box::pin(live(config, service, shutdown))),
    }
}

async fn live(config: Config, service: Service, shutdown: CancellationToken) -> Exit {
    let outcome = match start(config, &service, shutdown).await {
        Ok(webhook) => webhook.wait().await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => Exit::Ok,
        Err(error) => {
            tracing::error!("the webhook service ended: {error}");
            Exit::Usage
        }
    }
}
