// SPDX-License-Identifier: AGPL-3.0-only
//! The service as a process runs it: settings come in, a bound [`Part`] goes out, which ends with an exit code.

use holdfast_rest::RestError;
use holdfast_service::process::{DropIn, Part, Program};
use holdfast_service::{BindError, Exit, Service, bind};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Config, WsError, drop_in, start};

/// This service in a process of its own.
pub const PROGRAM: Program<Config> = Program {
    name: "holdfast-ws",
    admin_port: 9100,
    drop_in: Some(DropIn { translate: drop_in::load, metrics: drop_in::metrics::with_their_names }),
    read: Config::read,
    parts: |config| Ok(vec![part(config)?]),
};

/// Binds the front.
///
/// # Errors
/// Its address can't be listened on.
pub fn part(config: Config) -> Result<Part, BindError> {
    let listener = bind(config.listen, "ws.listen")?;
    let address = listener.local_addr().unwrap_or(config.listen);
    Ok(Part {
        name: "ws",
        url: format!("ws://{address}"),
        greeting: format!("gateway   {}   (listening on {address})", config.public_url),
        pages: &["/shards"],
        drain: config.drain_timeout,
        drain_setting: "ws.drain_timeout",
        life: Box::new(|service, shutdown| Box::pin(live(config, listener, service, shutdown))),
    })
}

async fn live(config: Config, listener: TcpListener, service: Service, shutdown: CancellationToken) -> Exit {
    let outcome = match start(config, listener, &service, shutdown).await {
        Ok(mut ws) => ws.wait().await,
        Err(WsError::Stopped) => Ok(()),
        Err(error) => Err(error),
    };
    let Err(error) = outcome else { return Exit::Ok };
    tracing::error!("the gateway service ended: {}", chain(&error));
    code_of(&error)
}

/// The error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn code_of(error: &WsError) -> Exit {
    match error {
        WsError::Fatal(_) | WsError::Rest(RestError::Unauthorized) => Exit::Refused,
        WsError::Rest(error) if error.is_final() => Exit::Usage,
        WsError::Shards { .. } | WsError::Tls(_) => Exit::Usage,
        WsError::Cluster(_) | WsError::ClusterCertificates(_) | WsError::Fleet(_) => Exit::Usage,
        _ => Exit::Error,
    }
}
