// SPDX-License-Identifier: AGPL-3.0-only
//! Runs the services: settings come in, the services start, the process waits, drains within a deadline and ends with
//! the code that says how. Everything that runs belongs to the one `Service` made here.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use holdfast_rest::RestError;
use holdfast_service::{Exit, Page, Service, Telemetry, admin, bind, drain};
use holdfast_ws::{Ws, WsError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::args::{Args, Run, Up};
use crate::drop_in::metrics::with_their_names;
use crate::settings::{Settings, Written, level, refuse};
use crate::simulate::Simulation;

/// What is left for tasks of the process itself once the services have drained.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// The command `up`.
pub(crate) async fn up(args: &Args, options: &Up) -> anyhow::Result<Exit> {
    let mut written = match Written::find(args) {
        Ok(written) => written,
        Err(problems) => return refuse(&problems),
    };
    let simulation = if options.simulate { Some(Simulation::start(options).await?) } else { None };
    if let Some(simulation) = &simulation {
        simulation.settle(&mut written);
    }
    run(&written, &options.run, simulation).await
}

/// The command `ws`.
pub(crate) async fn ws(args: &Args, options: &Run) -> anyhow::Result<Exit> {
    match Written::find(args) {
        Ok(written) => run(&written, options, None).await,
        Err(problems) => refuse(&problems),
    }
}

async fn run(written: &Written, options: &Run, simulation: Option<Simulation>) -> anyhow::Result<Exit> {
    let settings = match written.read().into_result() {
        Ok(settings) => settings,
        Err(problems) => return refuse(&problems),
    };
    let telemetry = Telemetry::start(&settings.log)?;
    for warning in &written.warnings {
        tracing::warn!("{warning}");
    }
    let shutdown = CancellationToken::new();
    let service = Service::new(CancellationToken::new());
    drain::on_signals(shutdown.clone(), &service.tasks).context("cannot handle signals")?;
    let file = written.file.clone();
    telemetry.follow(&service.tasks, written.file.clone(), move || level(file.as_deref()))?;
    if written.drop_in {
        let metrics = service.metrics.clone();
        service.pages.add("/metrics", move || Page::metrics(with_their_names(&metrics.encode())));
    }
    let front = bind(settings.ws.listen, "ws.listen")?;
    let addresses = Addresses { front: front.local_addr()?, admin: serve_admin(&settings, &service)? };
    addresses.announce(&settings, options.addresses.as_deref(), simulation.as_ref())?;
    // The admin listener answers already: Discord may be out of reach for long, and /readyz says so.
    let exit = match holdfast_ws::start(settings.ws.clone(), front, &service, shutdown.clone()).await {
        Ok(ws) => wait(ws, &service, &shutdown, settings.ws.drain_timeout).await,
        Err(WsError::Stopped) => Exit::Ok,
        Err(error) => ended(Err(error)),
    };
    let exit = finish(&service, exit).await;
    if let Some(simulation) = simulation {
        simulation.stop().await;
    }
    Ok(exit)
}

fn serve_admin(settings: &Settings, service: &Service) -> anyhow::Result<Option<SocketAddr>> {
    if !settings.admin.enabled {
        return Ok(None);
    }
    let listener = bind(settings.admin.listen, "admin.listen")?;
    let address = listener.local_addr()?;
    admin::serve(listener, service.pages.clone(), Router::new(), &service.tasks);
    Ok(Some(address))
}

/// Where everything is.
struct Addresses {
    front: SocketAddr,
    admin: Option<SocketAddr>,
}

impl Addresses {
    /// Says where everything is: to people on standard output, to programs in a file.
    fn announce(
        &self,
        settings: &Settings,
        file: Option<&Path>,
        simulation: Option<&Simulation>,
    ) -> anyhow::Result<()> {
        if let Some(file) = file {
            let addresses = json!({
                "ws": format!("ws://{}", self.front),
                "admin": self.admin.map(|address| format!("http://{address}")),
                "api": simulation.map(|simulation| simulation.api_url().to_owned()),
                "pid": std::process::id(),
            });
            // Renamed into place, so that whoever waits for the file never reads half of it.
            let unfinished = file.with_extension("unfinished");
            std::fs::write(&unfinished, addresses.to_string())
                .and_then(|()| std::fs::rename(&unfinished, file))
                .with_context(|| format!("cannot write the addresses to {}", file.display()))?;
        }
        let mut lines = simulation.map_or_else(String::new, Simulation::greeting);
        lines += &format!("  gateway   {}   (listening on {})\n", settings.ws.public_url, self.front);
        if let Some(admin) = self.admin {
            lines += &format!("  admin     http://{admin}   /healthz /readyz /metrics /shards\n");
        }
        // Standard output may be closed: that is no reason to stop.
        let _ = std::io::stdout().write_all(lines.as_bytes());
        Ok(())
    }
}

/// Waits for the end, asked for or not, and says how it went.
async fn wait(mut ws: Ws, service: &Service, shutdown: &CancellationToken, deadline: Duration) -> Exit {
    let exit = tokio::select! {
        biased;
        outcome = ws.wait() => ended(outcome),
        () = overdue(service, shutdown, deadline) => {
            tracing::error!(?deadline, "drain deadline passed (ws.drain_timeout): ending with work undone");
            Exit::DrainDeadline
        }
    };
    shutdown.cancel();
    exit
}

/// Ends the tasks of the process itself.
async fn finish(service: &Service, mut exit: Exit) -> Exit {
    if let Err(unfinished) = service.tasks.finish(LAST_TASKS).await {
        tracing::warn!(%unfinished, "tasks did not end");
        exit = if exit == Exit::Ok { Exit::DrainDeadline } else { exit };
    }
    if let Some(panic) = service.tasks.failure() {
        tracing::error!(%panic, "a defect in Holdfast: please report it with the lines above");
        return Exit::Error;
    }
    tracing::info!(code = exit as u8, "ended");
    exit
}

/// Until the deadline after the end was asked for, or after a task has panicked.
async fn overdue(service: &Service, shutdown: &CancellationToken, deadline: Duration) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = service.tasks.token().cancelled() => shutdown.cancel(),
    }
    tokio::time::sleep(deadline).await;
}

fn ended(outcome: Result<(), WsError>) -> Exit {
    match outcome {
        Ok(()) => Exit::Ok,
        Err(error) => {
            let exit = code_of(&error);
            let error = anyhow::Error::new(error);
            tracing::error!("the gateway service ended: {error:#}");
            exit
        }
    }
}

fn code_of(error: &WsError) -> Exit {
    match error {
        WsError::Fatal(_) | WsError::Rest(RestError::Unauthorized) => Exit::Refused,
        WsError::Rest(error) if error.is_final() => Exit::Usage,
        WsError::Shards { .. } | WsError::Tls(_) => Exit::Usage,
        _ => Exit::Error,
    }
}
