// SPDX-License-Identifier: AGPL-3.0-only
//! What works only on its author's machine doesn't belong in the project.
//! In: sources. Out: lines that name a home directory, or the place of this checkout.

use super::{Finding, Source};
use crate::workspace;

/// Folders below which people and machines keep their own things.
const HOMES: &[&str] = &["/home/", "/Users/", "/root/", "C:\\Users\\"];

/// See the module.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    let root = workspace::root();
    judge(sources, &root.to_string_lossy())
}

fn judge(sources: &[Source], checkout: &str) -> Vec<Finding> {
    // Lock files are written by tools, and this file names what it looks for.
    let written = sources
        .iter()
        .filter(|source| !is_generated(&source.path) && !source.path.ends_with("check/paths.rs"));
    let lines = written
        .flat_map(|source| source.text.lines().enumerate().map(move |(index, line)| (source, index, line)));
    lines
        .filter_map(|(source, index, line)| {
            let machine = HOMES.iter().copied().chain([checkout]).find(|path| names(line, path))?;
            Some(Finding::new(source, index + 1, format!("names a path of one machine ({machine}…)")))
        })
        .collect()
}

fn is_generated(path: &str) -> bool {
    path.ends_with("Cargo.lock") || path.ends_with("package-lock.json")
}

/// True if the path begins there, and isn't the middle of a longer one or of an address.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "._-}".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::source;

    #[test]
    fn homes_and_the_checkout_are_found_with_their_line() {
        let texts =
            [source("a.md", "fine\nsee /home/ann/bot\n"), source("b.rs", "// in /srv/checkout/target\n")];
        let found = judge(&texts, "/srv/checkout");
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn addresses_and_relative_paths_pass() {
        let texts = [
            source("a.md", "https://example.com/home/page and src/root/mod.rs\n"),
            source("Cargo.lock", "/root/x"),
        ];
        assert_eq!(judge(&texts, "/srv/checkout"), []);
    }
}
