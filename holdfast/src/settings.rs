// SPDX-License-Identifier: AGPL-3.0-only
//! The settings of all services in one: finds the file, lays environment and arguments over it, reads it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use holdfast_service::settings::{Document, Effective, Origin, Problem, Problems, Reading, Section, Value};
use holdfast_service::{AdminSettings, Exit, LogSettings};

use crate::args::Args;
use crate::drop_in;

/// Where a file is looked for when none is named: the working folder, then the root of an image.
const FILES: [&str; 4] = ["holdfast.toml", "/holdfast.toml", "config.json", "/config.json"];

/// Sections whose services are planned.
const PLANNED: [&str; 6] = ["api", "http", "webhook", "voice", "broker", "cluster"];

/// Port of the admin listener of `up` and `ws`.
const ADMIN_PORT: u16 = 9100;

/// Everything that the settings say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) ws: holdfast_ws::Config,
    pub(crate) admin: AdminSettings,
    pub(crate) log: LogSettings,
}

/// What was written, before it is read.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) document: Document,
    /// The file, if there is one.
    pub(crate) file: Option<PathBuf>,
    /// Whether the file has the form of another program, whose pages are served too.
    pub(crate) drop_in: bool,
    /// What the file says that has no meaning here.
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    pub(crate) fn read(root: &Section<'_>) -> Self {
        for section in PLANNED {
            root.refuse(
                section,
                "this service is planned, and not part of this version: take the section out",
            );
        }
        Self {
            ws: holdfast_ws::Config::read(root),
            admin: root.section("admin", |admin| AdminSettings::read(admin, ADMIN_PORT)),
            log: root.section("log", LogSettings::read),
        }
    }
}

impl Written {
    /// Finds and parses what was written, without asking what it means.
    pub(crate) fn find(args: &Args) -> Result<Self, Problems> {
        Self::of(args.config.clone().or_else(|| first_there(&FILES)), holdfast_service::environment())
    }

    fn of(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let environment: Vec<_> = environment.into_iter().collect();
        let mut written = match &file {
            Some(path) if path.extension().is_some_and(|extension| extension == "json") => {
                let translated = drop_in::load(path, &environment)?;
                let (document, warnings) = (translated.document, translated.warnings);
                Self { document, file, drop_in: true, warnings }
            }
            Some(path) => {
                let document = Document::load(path)?;
                Self { document, file, drop_in: false, warnings: Vec::new() }
            }
            None => Self { document: Document::empty(), file, drop_in: false, warnings: Vec::new() },
        };
        written.document.environment(environment);
        Ok(written)
    }

    pub(crate) fn read(&self) -> Reading<Settings> {
        self.document.read(Settings::read)
    }

    /// Sets a key as if by an argument.
    pub(crate) fn set(&mut self, path: &str, value: Value, argument: &str) {
        self.document.set(path, value, Origin::Argument(argument.to_owned()));
    }
}

fn first_there(files: &[&str]) -> Option<PathBuf> {
    files.iter().map(PathBuf::from).find(|file| file.is_file())
}

/// Reads the level of the log anew from the same file.
pub(crate) fn level(file: Option<&Path>) -> Result<String, String> {
    let written = Written::of(file.map(Path::to_owned), holdfast_service::environment());
    let reading = written.map_err(|problems| problems.to_string())?.document.read(Settings::read);
    match reading.problems.iter().find(|problem| problem.path.starts_with("log")) {
        Some(problem) => Err(problem.to_string()),
        None => Ok(reading.value.log.level),
    }
}

/// Prints problems the way every command does.
pub(crate) fn refuse(problems: &Problems) -> anyhow::Result<Exit> {
    writeln!(std::io::stderr(), "holdfast: {problems}")?;
    Ok(Exit::Usage)
}

/// The command `config`.
pub(crate) fn print(args: &Args) -> anyhow::Result<Exit> {
    let written = match Written::find(args) {
        Ok(written) => written,
        Err(problems) => return refuse(&problems),
    };
    let Reading { effective, problems, .. } = written.read();
    let (text, exit) = show(&effective, problems, written.file.as_deref());
    writeln!(std::io::stdout(), "{text}")?;
    for warning in &written.warnings {
        writeln!(std::io::stderr(), "holdfast: {warning}")?;
    }
    match exit {
        Some(problems) => refuse(&problems),
        None => Ok(Exit::Ok),
    }
}

fn show(effective: &Effective, problems: Vec<Problem>, file: Option<&Path>) -> (String, Option<Problems>) {
    let from = file.map_or("no file".to_owned(), |file| file.display().to_string());
    let text =
        format!("# The settings in effect, from {from}, the environment and the defaults.\n{effective}");
    (text, (!problems.is_empty()).then_some(Problems(problems)))
}

#[cfg(test)]
mod tests;
