// SPDX-License-Identifier: AGPL-3.0-only
//! The service as a process runs it: settings come in, a bound [`Part`] goes out, which ends with an exit code.

use holdfast_service::process::{Part, Program};
use holdfast_service::{BindError, Exit, Service, bind};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Config, start};

/// This service in a process of its own.
pub const PROGRAM: Program<Config> = Program {
    name: "holdfast-http",
    admin_port: 9102,
    drop_in: None,
    read: Config::read,
    parts: |config| Ok(vec![part(config)?]),
};

/// Binds the listener.
///
/// # Errors
/// Its address can't be listened on.
pub fn part(config: Config) -> Result<Part, BindError> {
    let listener = bind(config.listen, "http.listen")?;
    let address = listener.local_addr().unwrap_or(config.listen);
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let path = config.applications.first().map_or("/interactions", |application| &application.interactions);
    Ok(Part {
        name: "http",
        url: format!("{scheme}://{address}"),
        greeting: format!("webhooks  {scheme}://{address}{path}"),
        pages: &[],
        drain: config.drain_timeout,
        drain_setting: "http.drain_timeout",
        life: Box::new(|service, shutdown| Box::pin(live(config, listener, service, shutdown))),
    })
}

async fn live(config: Config, listener: TcpListener, service: Service, shutdown: CancellationToken) -> Exit {
    match start(config, listener, &service, shutdown).await {
        Ok(http) => match http.wait().await {
            Ok(()) => Exit::Ok,
            Err(refusal) => {
                tracing::error!("the broker refuses: {refusal}");
                Exit::Error
            }
        },
        Err(error) => {
            tracing::error!("the service for what Discord posts could not begin: {error}");
            Exit::Usage
        }
    }
}
