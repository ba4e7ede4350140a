// SPDX-License-Identifier: AGPL-3.0-only
//! The command `config`: prints the settings in effect, each with its origin, secrets masked.

use std::io::Write as _;
use std::path::Path;

use holdfast_service::Exit;
use holdfast_service::process::SettingsFlag;
use holdfast_service::settings::{Effective, Problems, Reading};

use crate::services::ALL;

/// See the module.
pub(crate) fn run(settings: &SettingsFlag) -> anyhow::Result<Exit> {
    let written = match ALL.find(settings) {
        Ok(written) => written,
        Err(problems) => return Ok(ALL.refuse(&problems)),
    };
    let Reading { effective, problems, .. } = ALL.read(&written.document);
    writeln!(std::io::stdout(), "{}", show(&effective, written.file.as_deref()))?;
    for warning in &written.warnings {
        writeln!(std::io::stderr(), "{}: {warning}", ALL.name)?;
    }
    Ok(if problems.is_empty() { Exit::Ok } else { ALL.refuse(&Problems(problems)) })
}

fn show(effective: &Effective, file: Option<&Path>) -> String {
    let from = file.map_or("no file".to_owned(), |file| file.display().to_string());
    format!("# The settings in effect, from {from}, the environment and the defaults.\n{effective}")
}

#[cfg(test)]
mod tests;
