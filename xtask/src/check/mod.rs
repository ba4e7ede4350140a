// SPDX-License-Identifier: AGPL-3.0-only
//! Rules that no ready-made lint enforces. Each is one file: a pure function from texts to findings.
//! In: the project's text files. Out: findings as `path:line: what is wrong`.
//! Clippy does the rest: function length, unwrap, unsafe, documentation (`Cargo.toml`, `clippy.toml`).

use anyhow::{Result, bail};

use crate::workspace::{self, Source};

pub(crate) mod dependencies;
mod headers;
mod length;
mod links;
mod lints;
mod metrics;
mod names;
mod paths;
mod tasks;
mod variables;

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    /// Counted from one; zero: the file as a whole.
    line: usize,
    message: String,
}

impl Finding {
    fn new(source: &Source, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: source.path.clone(), line, message: message.into() }
    }
}

/// A rule over the project's text files.
pub(crate) type Check = fn(&[Source]) -> Vec<Finding>;

/// All rules over texts, by the name that a step shows.
pub(crate) const ALL: &[(&str, Check)] = &[
    ("headers of source files", headers::check),
    ("length of files", length::check),
    ("names of modules", names::check),
    ("lints in one place", lints::check),
    ("tasks have owners", tasks::check),
    ("links in documents", links::check),
    ("no paths of one machine", paths::check),
    ("metrics that are asked for", metrics::check),
    ("settings in variables", variables::check),
];

/// Applies one rule to the workspace.
pub(crate) fn run(check: Check) -> Result<()> {
    report(&check(&workspace::sources()?))
}

fn report(findings: &[Finding]) -> Result<()> {
    for Finding { path, line, message } in findings {
        println!("{path}:{line}: {message}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    Ok(())
}

#[cfg(test)]
fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}
