// SPDX-License-Identifier: AGPL-3.0-only
//! A source file says its licence first; a Rust module then says what it is, in at most six lines.
//! In: sources. Out: files without one of them, or with a longer opening.

use super::{Finding, Source};

/// Longer openings aren't read; what is longer belongs to the items below or to `docs/architecture.md`.
const OPENING_LINES: usize = 6;

/// Languages whose files carry the line; JSON has no comments and Markdown shows them.
const LICENSED: &[&str] = &["rs", "toml", "py", "sh", "js", "mjs", "cjs", "ts", "go", "proto", "yml", "yaml"];

// In two parts, so that this line isn't taken for the header of this file by tools that search for it.
const LICENCE: &str = concat!("SPDX-License-Identifier", ": AGPL-3.0-only");

/// See the module.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    let licensed = sources.iter().filter(|source| LICENSED.contains(&source.extension()));
    licensed.filter_map(|source| licence(source).or_else(|| opening(source))).collect()
}

fn licence(source: &Source) -> Option<Finding> {
    // The first line may be a `#!`.
    let there = source.text.lines().take(2).any(|line| line.contains(LICENCE));
    (!there).then(|| Finding::new(source, 1, format!("`{LICENCE}` is missing from the first lines")))
}

fn opening(source: &Source) -> Option<Finding> {
    if source.extension() != "rs" {
        return None;
    }
    let lines = source.text.lines().skip(1).skip_while(|line| line.is_empty());
    let lines = lines.take_while(|line| line.starts_with("//!")).count();
    match lines {
        0 => Some(Finding::new(
            source,
            2,
            "no `//!` says what this module takes in, gives out, and who owns it",
        )),
        1..=OPENING_LINES => None,
        _ => {
            Some(Finding::new(source, 2, format!("the opening has {lines} lines, more than {OPENING_LINES}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::source;

    #[test]
    fn a_licence_and_an_opening_suffice() {
        assert_eq!(check(&[source("a.rs", &format!("// {LICENCE}\n//! What.\n\nfn a() {{}}\n"))]), []);
        assert_eq!(check(&[source("a.py", &format!("#!/usr/bin/env python3\n# {LICENCE}\n"))]), []);
        assert_eq!(check(&[source("a.md", "no header here")]), []);
    }

    #[test]
    fn a_missing_licence_is_found() {
        assert_eq!(check(&[source("a.rs", "//! What.\n"), source("b.sh", "#!/bin/sh\n\n\n")]).len(), 2);
    }

    #[test]
    fn a_missing_or_long_opening_is_found() {
        let bare = format!("// {LICENCE}\nfn a() {{}}\n");
        let long = format!("// {LICENCE}\n{}", "//! More.\n".repeat(OPENING_LINES + 1));
        assert_eq!(check(&[source("a.rs", &bare), source("b.rs", &long)]).len(), 2);
    }
}
