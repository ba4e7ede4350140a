// SPDX-License-Identifier: AGPL-3.0-only
//! What is wrong with the settings, all of it at once, each with its key, its origin and a way to mend it.

use std::fmt;

use super::value::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's whole path, such as `ws.log.memory`; empty for a file that can't be read at all.
    pub path: String,
    /// What is wrong and what is expected, without the key and the place. Never holds a secret.
    pub what: String,
    /// Where it was written; `None` when it was written nowhere.
    pub origin: Option<Origin>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.what)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        writeln!(f, "{count} problem{} in the settings:", if count == 1 { "" } else { "s" })?;
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        write!(f, "`holdfast config` shows what is in effect; docs/configuration.md explains every key.")
    }
}

/// How alike two keys have to be for one to be offered instead of the other; below it, guesses are noise.
const ALIKE: f64 = 0.6;

/// The candidate most like `key`, if any is like it at all.
pub(super) fn nearest<'a>(key: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(key, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}
