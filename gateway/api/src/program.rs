// SPDX-License-Identifier: AGPL-3.0-only
//! The service as a process runs it: settings come in, a bound [`Part`] goes out, which ends with an exit code.

use holdfast_service::process::{Part, Program};
use holdfast_service::{BindError, Exit, Service, bind};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Config, start};

/// This service in a process of its own.
pub const PROGRAM: Program<Config> = Program {
    name: "holdfast-api",
    admin_port: 9101,
    drop_in: None,
    read: Config::read,
    parts: |config| Ok(vec![part(config)?]),
};

/// Binds the listener.
///
/// # Errors
/// Its address can't be listened on.
pub fn part(config: Config) -> Result<Part, BindError> {
    let listener = bind(config.listen, "api.listen")?;
    let address = listener.local_addr().unwrap_or(config.listen);
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    Ok(Part {
        name: "api",
        url: format!("{scheme}://{address}/api/v10"),
        greeting: format!("REST      {scheme}://{address}/api/v10"),
        pages: &[],
        drain: config.drain_timeout,
        drain_setting: "api.drain_timeout",
        life: Box::new(|service, shutdown| Box::pin(live(config, listener, service, shutdown))),
    })
}

async fn live(config: Config, listener: TcpListener, service: Service, shutdown: CancellationToken) -> Exit {
    let outcome = match start(config, listener, &service, shutdown).await {
        Ok(api) => api.wait().await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => Exit::Ok,
        Err(error) => {
            tracing::error!("the REST service ended: {error}");
            Exit::Usage
        }
    }
}
