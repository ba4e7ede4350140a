// SPDX-License-Identifier: AGPL-3.0-only
//! A file holds one noun: at most 400 lines before its tests. (Functions: clippy's `too_many_lines`.)
//! In: sources. Out: Rust files that are longer and not excused below.

use super::{Finding, Source};

const LINES: usize = 400;

/// Files that may be longer, each with its reason. An entry whose file has shrunk is a finding too.
const EXCUSED: &[(&str, &str)] = &[];

/// See the module.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    judge(sources, EXCUSED)
}

fn judge(sources: &[Source], excused: &[(&str, &str)]) -> Vec<Finding> {
    let rust = sources.iter().filter(|source| source.extension() == "rs" && !source.is_test_only());
    rust.filter_map(|source| {
        let lines = before_tests(&source.text);
        let reason = excused.iter().find(|(path, _)| *path == source.path).map(|(_, reason)| reason);
        match (lines > LINES, reason) {
            (true, Some(reason)) => {
                println!("{}: {lines} lines, excused: {reason}", source.path);
                None
            }
            (true, None) => Some(format!("{lines} lines before the tests, more than {LINES}")),
            (false, Some(_)) => Some("is no longer long: take it off the list of excused files".to_owned()),
            (false, None) => None,
        }
        .map(|message| Finding::new(source, 0, message))
    })
    .collect()
}

fn before_tests(text: &str) -> usize {
    // Only at the margin: an attribute further in stands on an item of its own, among production code. Tests in a file
    // of their own are declared among the other modules.
    let lines: Vec<&str> = text.lines().collect();
    let begin = |pair: &[&str]| pair[0].starts_with("#[cfg(test)]") && !pair[1].ends_with(';');
    lines.windows(2).position(begin).unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::source;

    #[test]
    fn tests_are_not_counted() {
        let text = format!("{}#[cfg(test)]\n{}", "a\n".repeat(LINES), "b\n".repeat(LINES));
        assert_eq!(check(&[source("src/a.rs", &text)]), []);
        assert_eq!(check(&[source("crate/tests/long.rs", &"a\n".repeat(LINES + 1))]), []);
    }

    #[test]
    fn a_declaration_of_tests_elsewhere_ends_nothing() {
        let text = format!("#[cfg(test)]\nmod tests;\n{}", "a\n".repeat(LINES));
        assert_eq!(check(&[source("src/a.rs", &text)]).len(), 1);
    }

    #[test]
    fn a_long_file_is_found_unless_excused() {
        let long = [source("src/a.rs", &"a\n".repeat(LINES + 1))];
        assert_eq!(judge(&long, &[]).len(), 1);
        assert_eq!(judge(&long, &[("src/a.rs", "generated")]), []);
    }

    #[test]
    fn an_excuse_without_need_is_found() {
        assert_eq!(judge(&[source("src/a.rs", "a\n")], &[("src/a.rs", "generated")]).len(), 1);
    }
}
