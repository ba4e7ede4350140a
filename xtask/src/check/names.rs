// SPDX-License-Identifier: AGPL-3.0-only
//! A module is named after what it holds; these names hold anything, so nobody knows what belongs there.
//! In: sources. Out: files and folders with such a name.

use super::{Finding, Source};

const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "models", "constants", "misc"];

/// See the module.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    let rust = sources.iter().filter(|source| source.extension() == "rs");
    rust.filter_map(|source| {
        let parts = source.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
        let empty = parts.into_iter().find(|part| EMPTY_NAMES.contains(part))?;
        Some(Finding::new(source, 0, format!("`{empty}` doesn't say what is inside; name the thing itself")))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::source;

    #[test]
    fn files_and_folders_with_empty_names_are_found() {
        assert_eq!(
            check(&[source("crates/a/src/utils.rs", ""), source("crates/a/src/common/b.rs", "")]).len(),
            2
        );
    }

    #[test]
    fn nouns_pass() {
        assert_eq!(check(&[source("crates/a/src/commonwealth.rs", ""), source("docs/utils.md", "")]), []);
    }
}
