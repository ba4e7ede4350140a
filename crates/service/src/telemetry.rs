// SPDX-License-Identifier: AGPL-3.0-only
//! The process's own log on standard error: level and format come in, and the level again whenever the settings file
//! changes or SIGHUP arrives.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::Tasks;
use crate::settings::{Section, Value};

/// How often the settings file is looked at: soon enough for somebody who waits, and nothing for the machine.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What never gets into the log, whatever the level says. The library that speaks to the broker logs whole messages that
/// come back to us, and at TRACE the password; what matters of it, the broker's own crate says.
const SILENT: &str = "lapin";

/// The section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// A level, or levels per target such as `info,holdfast_ws=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl LogSettings {
    /// Reads the section.
    pub fn read(section: &Section<'_>) -> Self {
        let expected = "a level (error, warn, info, debug, trace, off) or levels per target such as \
                        \"info,holdfast_ws=debug\"";
        let parse = |value: &Value| match value {
            Value::Text(text) if is_level(text) => Some(text.clone()),
            _ => None,
        };
        Self {
            level: section
                .custom("level", "info".to_owned(), expected, parse, |level| format!("\"{level}\"")),
            format: section.choice(
                "format",
                LogFormat::Pretty,
                &[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)],
            ),
        }
    }
}

/// Stricter than the filter's own parser, which takes a misspelt level for the name of a target.
fn is_level(text: &str) -> bool {
    let level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
    text.split(',').all(|directive| match directive.trim().rsplit_once('=') {
        Some((target, name)) => !target.is_empty() && level(name),
        None => level(directive.trim()),
    }) && EnvFilter::try_new(spaceless(text)).is_ok()
}

/// The filter's own parser takes no spaces.
fn spaceless(text: &str) -> String {
    text.split_whitespace().collect()
}

/// The running log.
#[derive(Debug, Clone)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// The log could not be begun or changed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is none.
    #[error("not a log level: {0}")]
    Level(String),
    /// There is a log already in this process.
    #[error("this process has a log already")]
    Taken,
}

impl Telemetry {
    /// Begins the process's log.
    ///
    /// # Errors
    /// The level is none, or there is a log already.
    pub fn start(settings: &LogSettings) -> Result<Self, TelemetryError> {
        let (filter, handle) = reload::Layer::new(filter_of(&settings.level)?);
        let lines = match settings.format {
            LogFormat::Pretty => {
                let colours = std::io::stderr().is_terminal();
                fmt::layer().with_writer(std::io::stderr).with_ansi(colours).boxed()
            }
            LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        subscriber.try_init().map_err(|_| TelemetryError::Taken)?;
        Ok(Self { filter: handle })
    }

    /// Changes the level.
    ///
    /// # Errors
    /// The level is none.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        let filter = filter_of(level)?;
        self.filter.reload(filter).map_err(|_| TelemetryError::Taken)
    }

    /// Changes the level whenever the file changes or SIGHUP arrives; `level` reads it anew. The task belongs to
    /// `tasks`.
    ///
    /// # Errors
    /// The system refuses to have the signal handled.
    pub fn follow(
        &self,
        tasks: &Tasks,
        file: Option<PathBuf>,
        level: impl Fn() -> Result<String, String> + Send + 'static,
    ) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let telemetry = self.clone();
        let token = tasks.token().clone();
        tasks.spawn("log level", async move {
            let mut seen = modified(file.as_ref()).await;
            loop {
                tokio::select! {
                    biased;
                    () = token.cancelled() => return,
                    _ = hangup.recv() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {
                        let now = modified(file.as_ref()).await;
                        // A file that is being replaced is missing for a moment: wait for the new one.
                        if now == seen || now.is_none() {
                            continue;
                        }
                        seen = now;
                    }
                }
                match level()
                    .and_then(|level| telemetry.set_level(&level).map(|()| level).map_err(|e| e.to_string()))
                {
                    Ok(level) => tracing::info!(level, "log level read anew"),
                    Err(error) => {
                        tracing::warn!(error, "the log level stays: the settings have a problem now")
                    }
                }
            }
        });
        Ok(())
    }
}

async fn modified(file: Option<&PathBuf>) -> Option<SystemTime> {
    tokio::fs::metadata(file?).await.ok()?.modified().ok()
}

fn filter_of(level: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = || TelemetryError::Level(level.to_owned());
    if !is_level(level) {
        return Err(wrong());
    }
    let text = spaceless(level);
    let wanted = text.split(',').filter(|directive| !directive.starts_with(SILENT));
    let directives: Vec<&str> = wanted.collect();
    EnvFilter::try_new(format!("{},{SILENT}=off", directives.join(","))).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_logs_passwords_is_silent_at_every_level() {
        for level in ["trace", "lapin=trace", "info, lapin::frames=trace"] {
            let filter = filter_of(level).expect("a level").to_string();
            assert!(filter.contains("lapin=off") && !filter.contains("frames"), "{filter}");
            assert!(!filter.contains("lapin=trace"), "{filter}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_target() {
        for good in ["info", "INFO", "off", "info,holdfast_ws=debug", "warn, holdfast=trace"] {
            assert!(is_level(good), "{good}");
        }
        for bad in ["inof", "", "info,", "holdfast_ws=loud", "=debug"] {
            assert!(!is_level(bad), "{bad}");
        }
    }
}
