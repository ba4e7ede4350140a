// SPDX-License-Identifier: AGPL-3.0-only
//! Builds what the benchmark measures, in release, and runs it.
//! In: the benchmark's own arguments. Out: its tables, on standard output.

use anyhow::Result;

use crate::tool::Tool;

/// The benchmark starts the other two as processes of their own, from the folder that it runs from itself.
const MEASURED: &str = "cargo build --release -p holdfast -p holdfast-simulator -p holdfast-bench";

/// Builds, then hands the terminal over to the benchmark.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    Tool::new(MEASURED).run_attached()?;
    let bench = Tool::new("cargo run --quiet --release -p holdfast-bench --");
    arguments.iter().fold(bench, |bench, argument| bench.argument(argument)).run_attached()
}
