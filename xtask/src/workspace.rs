// SPDX-License-Identifier: AGPL-3.0-only
//! Where the workspace is and which text files belong to it.
//! In: git's own list of files. Out: `Source` values, path and text, for the checks to read.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A text file of the project.
pub(crate) struct Source {
    /// Path from the workspace's root, with forward slashes.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

impl Source {
    /// The part of the path behind the last dot, or nothing.
    pub(crate) fn extension(&self) -> &str {
        Path::new(&self.path).extension().and_then(|extension| extension.to_str()).unwrap_or("")
    }

    /// True for Rust that only runs in tests or benchmarks of its crate.
    pub(crate) fn is_test_only(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or("");
        file == "tests.rs" || file.ends_with("_tests.rs") || self.path.split('/').any(|part| part == "tests")
    }
}

/// The workspace's root: the folder above this crate's.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Every text file that is tracked, or new and not ignored.
pub(crate) fn sources() -> Result<Vec<Source>> {
    let root = root();
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output()
        .context("git could not be started; the checks ask it which files belong to the project")?;
    ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr).trim());
    let paths = String::from_utf8(listed.stdout).context("a file's name is not UTF-8")?;
    // A file that is listed but can't be read as text is deleted, binary or a link to elsewhere.
    Ok(paths
        .split('\0')
        .filter(|path| !path.is_empty())
        .filter_map(|path| {
            let text = std::fs::read_to_string(root.join(path)).ok()?;
            Some(Source { path: path.to_owned(), text })
        })
        .collect())
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |target| root().join(target))
}
