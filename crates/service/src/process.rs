// SPDX-License-Identifier: AGPL-3.0-only
//! A process from its settings to its exit code: a [`Program`] says what is in it; its services start, it waits,
//! drains within a deadline and ends with the code that says how. Everything that runs belongs to the one [`Service`]
//! made here.

mod announcement;
mod flags;
mod health;
mod part;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

pub use announcement::{AnnounceError, Announcement};
use axum::Router;
pub use flags::{RunFlags, SettingsFlag};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
pub use part::{Life, Part};
use tokio_util::sync::CancellationToken;

use crate::settings::{Document, Problems, Reading, Section, Translate, Written};
use crate::{
    AdminSettings, BindError, Exit, LogSettings, Page, Service, Telemetry, TelemetryError, admin, bind, drain,
};

/// What is left for tasks of the process itself once the services have drained.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// Sections of services and of what they share: a program of one service leaves the others' alone.
const BUILT: [&str; 6] = ["ws", "api", "http", "webhook", "broker", "cluster"];

/// Sections whose services are planned.
const PLANNED: [&str; 1] = ["voice"];

/// What a process consists of: one service, or all that the settings name.
#[derive(Debug, Clone, Copy)]
pub struct Program<S> {
    /// The binary's name, which stands before what it says on standard error.
    pub name: &'static str,
    /// Port of the admin listener when the settings name none.
    pub admin_port: u16,
    /// Another program, whose settings files are accepted as they are.
    pub drop_in: Option<DropIn>,
    /// Reads the sections of its services.
    pub read: fn(&Section<'_>) -> S,
    /// Its services, each bound to its listener.
    pub parts: fn(S) -> Result<Vec<Part>, BindError>,
}

/// Another program that ours takes the place of.
#[derive(Debug, Clone, Copy)]
pub struct DropIn {
    /// Reads a settings file of its form.
    pub translate: Translate,
    /// Adds its names to the text of our metrics, for dashboards that know only those.
    pub metrics: fn(&str) -> String,
}

/// Everything that a program's settings say.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings<S> {
    /// The sections of its services.
    pub services: S,
    /// The section `[admin]`.
    pub admin: AdminSettings,
    /// The section `[log]`.
    pub log: LogSettings,
}

/// A process could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The log.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// SIGTERM and the like.
    #[error("cannot handle signals: {0}")]
    Signals(io::Error),
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The file with the addresses.
    #[error(transparent)]
    Announce(#[from] AnnounceError),
}

/// The body of `main`: does `work` and turns its outcome into an exit code. An error is printed, in its alternate form
/// (with its causes), behind the binary's name.
pub fn main<E: Display>(name: &str, work: impl Future<Output = Result<Exit, E>>) -> ExitCode {
    crate::raise_file_limit();
    let outcome = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(work);
            // Threads that block (a name being looked up) must not hold up the end.
            runtime.shutdown_background();
            outcome.map_err(|error| format!("{error:#}"))
        }
        Err(error) => Err(error.to_string()),
    };
    outcome.unwrap_or_else(|error| say(name, &error, Exit::Error)).into()
}

/// Says on standard error what is in the way, and gives back the code that goes with it.
fn say(name: &str, what: &str, exit: Exit) -> Exit {
    // Standard error may be closed; there is nobody left to tell then.
    let _ = io::stderr().write_fmt(format_args!("{name}: {what}\n"));
    exit
}

impl<S> Program<S> {
    /// Finds what the user wrote; see [`Written::find`].
    ///
    /// # Errors
    /// A file that can't be read or parsed.
    pub fn find(&self, flag: &SettingsFlag) -> Result<Written, Problems> {
        Written::find(flag.file.as_deref(), self.drop_in.map(|drop_in| drop_in.translate))
    }

    /// Reads what was written.
    pub fn read(&self, document: &Document) -> Reading<Settings<S>> {
        document.read(|root| Settings::read(root, self))
    }

    /// Says what is wrong with the settings.
    #[must_use]
    pub fn refuse(&self, problems: &Problems) -> Exit {
        say(self.name, &problems.to_string(), Exit::Usage)
    }

    /// Finds the settings and runs; all of a process that has nothing of its own to say.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub async fn start(&self, flag: &SettingsFlag, flags: &RunFlags) -> Result<Exit, ProcessError> {
        match self.find(flag) {
            Ok(written) if flags.health => Ok(self.health(&written).await),
            Ok(written) => self.run(&written, &flags.announcement()).await,
            Err(problems) => Ok(self.refuse(&problems)),
        }
    }

    /// Asks the process that runs with these settings whether it is well.
    pub async fn health(&self, written: &Written) -> Exit {
        let asked = match self.read(&written.document).into_result() {
            Ok(settings) => health::ask(&settings.admin).await,
            Err(problems) => return self.refuse(&problems),
        };
        asked.map_or_else(|what| say(self.name, &what, Exit::Error), |()| Exit::Ok)
    }

    /// Runs the services that the settings describe until they end, asked to or not.
    ///
    /// # Errors
    /// See [`ProcessError`]. Wrong settings are said and end with [`Exit::Usage`].
    pub async fn run(&self, written: &Written, announcement: &Announcement) -> Result<Exit, ProcessError> {
        let settings = match self.read(&written.document).into_result() {
            Ok(settings) => settings,
            Err(problems) => return Ok(self.refuse(&problems)),
        };
        let process = Process::start(written, &settings.log)?;
        if let Some(drop_in) = self.drop_in.filter(|_| written.translated) {
            let metrics = process.service.metrics.clone();
            process
                .service
                .pages
                .add("/metrics", move || Page::metrics((drop_in.metrics)(&metrics.encode())));
        }
        let parts = (self.parts)(settings.services)?;
        let admin = process.serve_admin(&settings.admin)?;
        announcement.say(&parts, admin)?;
        // The admin listener answers already: a service may be long in starting, and /readyz says so.
        let exit = process.live(parts).await;
        Ok(process.finish(exit).await)
    }
}

impl<S> Settings<S> {
    fn read(root: &Section<'_>, program: &Program<S>) -> Self {
        BUILT.into_iter().for_each(|section| root.pass_over(section));
        for section in PLANNED {
            let what = "this service is planned, and not part of this version: take the section out";
            root.refuse(section, what);
        }
        Self {
            services: (program.read)(root),
            admin: root.section("admin", |admin| AdminSettings::read(admin, program.admin_port)),
            log: root.section("log", LogSettings::read),
        }
    }
}

/// A running process.
struct Process {
    service: Service,
    /// Asks everything to end in order.
    shutdown: CancellationToken,
}

impl Process {
    /// Begins the log, and handles signals from now on.
    fn start(written: &Written, log: &LogSettings) -> Result<Self, ProcessError> {
        let telemetry = Telemetry::start(log)?;
        for warning in &written.warnings {
            tracing::warn!("{warning}");
        }
        let process = Self::new();
        let tasks = &process.service.tasks;
        drain::on_signals(process.shutdown.clone(), tasks).map_err(ProcessError::Signals)?;
        telemetry.follow(tasks, written.file.clone(), written.level()).map_err(ProcessError::Signals)?;
        Ok(process)
    }

    fn new() -> Self {
        Self { service: Service::new(CancellationToken::new()), shutdown: CancellationToken::new() }
    }

    fn serve_admin(&self, settings: &AdminSettings) -> Result<Option<SocketAddr>, BindError> {
        if !settings.enabled {
            return Ok(None);
        }
        let listener = bind(settings.listen, "admin.listen")?;
        let address = listener.local_addr().unwrap_or(settings.listen);
        admin::serve(listener, self.service.pages.clone(), Router::new(), &self.service.tasks);
        Ok(Some(address))
    }

    /// Until all parts have ended, or have taken too long about it.
    async fn live(&self, parts: Vec<Part>) -> Exit {
        let (deadline, setting) = parts
            .iter()
            .map(|part| (part.drain, part.drain_setting))
            .max()
            .unwrap_or((Duration::ZERO, "no service"));
        let exit = tokio::select! {
            biased;
            exit = self.all(parts) => exit,
            () = self.overdue(deadline) => {
                tracing::error!(?deadline, "drain deadline passed ({setting}): ending with work undone");
                Exit::DrainDeadline
            }
        };
        self.shutdown.cancel();
        exit
    }

    /// Runs all parts; the end of one ends the others. The first that doesn't end well says how the process ends.
    async fn all(&self, parts: Vec<Part>) -> Exit {
        let start = |part: Part| (part.life)(self.service.clone(), self.shutdown.clone());
        let mut lives: FuturesUnordered<_> = parts.into_iter().map(start).collect();
        let mut exit = Exit::Ok;
        while let Some(ended) = lives.next().await {
            self.shutdown.cancel();
            exit = if exit == Exit::Ok { ended } else { exit };
        }
        exit
    }

    /// Until the deadline after the end was asked for, or after a task has panicked.
    async fn overdue(&self, deadline: Duration) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.service.tasks.token().cancelled() => self.shutdown.cancel(),
        }
        tokio::time::sleep(deadline).await;
    }

    /// Ends the tasks of the process itself.
    async fn finish(&self, mut exit: Exit) -> Exit {
        let tasks = &self.service.tasks;
        if let Err(unfinished) = tasks.finish(LAST_TASKS).await {
            tracing::warn!(%unfinished, "tasks did not end");
            exit = if exit == Exit::Ok { Exit::DrainDeadline } else { exit };
        }
        if let Some(panic) = tasks.failure() {
            tracing::error!(%panic, "a defect in Holdfast: please report it with the lines above");
            return Exit::Error;
        }
        tracing::info!(code = exit as u8, "ended");
        exit
    }
}

#[cfg(test)]
mod tests;
