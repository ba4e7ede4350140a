// SPDX-License-Identifier: AGPL-3.0-only
//! Lints are set once, in the workspace's `Cargo.toml`; every crate of the workspace takes them from there.
//! In: sources. Out: crates that don't inherit them, and files that set some of their own.

use super::{Finding, Source};

/// Attributes of a whole file that set lints. Single exceptions are `#[expect(…, reason = "…")]` on an item.
const SETTERS: &[&str] = &["#![allow(", "#![warn(", "#![deny(", "#![forbid(", "#![expect("];

/// See the module.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    sources.iter().flat_map(|source| manifest(source).into_iter().chain(set_in_source(source))).collect()
}

fn manifest(source: &Source) -> Option<Finding> {
    let is_manifest = source.path.ends_with("Cargo.toml") && source.text.contains("[package]");
    // What has a workspace of its own has nobody to inherit from: fuzz crates, which need their own profile, and examples,
    // which are there to be copied.
    let stands_alone = source.text.lines().any(|line| line.trim() == "[workspace]");
    if !is_manifest || stands_alone {
        return None;
    }
    let text: String = source.text.split_whitespace().collect();
    let inherits = text.contains("[lints]workspace=true") || text.contains("lints.workspace=true");
    (!inherits)
        .then(|| Finding::new(source, 0, "doesn't inherit the workspace's lints: `[lints] workspace = true`"))
}

fn set_in_source(source: &Source) -> Vec<Finding> {
    if source.extension() != "rs" {
        return Vec::new();
    }
    let lines = source.text.lines().enumerate();
    let set = lines.filter(|(_, line)| SETTERS.iter().any(|setter| line.trim_start().starts_with(setter)));
    set.map(|(index, _)| {
        Finding::new(source, index + 1, "sets lints for a whole file; they are set in Cargo.toml")
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::source;

    #[test]
    fn a_crate_that_inherits_passes() {
        assert_eq!(
            check(&[source("a/Cargo.toml", "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n")]),
            []
        );
        assert_eq!(check(&[source("Cargo.toml", "[workspace]\n")]), []);
    }

    #[test]
    fn a_crate_with_a_workspace_of_its_own_passes() {
        assert_eq!(check(&[source("examples/a/Cargo.toml", "[package]\nname = \"a\"\n\n[workspace]\n")]), []);
    }

    #[test]
    fn a_crate_that_does_not_inherit_is_found() {
        assert_eq!(check(&[source("a/Cargo.toml", "[package]\nname = \"a\"\n")]).len(), 1);
    }

    #[test]
    fn a_file_that_sets_lints_is_found_with_its_line() {
        let found = check(&[source("a/src/lib.rs", "//! A.\n#![allow(dead_code)]\n")]);
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2]);
    }
}
