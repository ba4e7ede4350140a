// SPDX-License-Identifier: AGPL-3.0-only
//! What CI runs, in order: what is cheap and often wrong first, real clients last.
//! In: whether the long tests are wanted. Out: the steps' output and the sum of what the runners counted.

use std::process::ExitCode;
use std::time::Duration;

use crate::check;
use crate::setup;
use crate::step::Steps;
use crate::tally::Runner;
use crate::tool::Tool;
use crate::workspace;

/// CI gives up after 40 minutes; a minute of it is for ending what still runs and for the closing lines.
const BUDGET: Duration = Duration::from_secs(39 * 60);

/// Random cases per property in `--full`; a plain run leaves it to each test (proptest's own is 256).
const FULL_CASES: &str = "4096";

/// Tells tests to do all that they can: longer outages, more connections, a soak of minutes.
const FULL: &str = "HOLDFAST_TEST_FULL";

/// Packages that aren't of the workspace: an example that can be copied as it is, and what plays it. The set-up builds and
/// lints them, `e2e/run.mjs` tests them.
const APART: &[(&str, &str)] = &[
    ("the worker in Rust", "examples/rust-worker/Cargo.toml"),
    ("what plays it", "e2e/bots/rust/Cargo.toml"),
];

/// Sets up and runs everything.
pub(crate) fn run(full: bool) -> ExitCode {
    let mut steps = Steps::within((!full).then_some(BUDGET));
    steps.own("set-up", setup::run);
    without_a_build(&mut steps);
    // Its libraries come with its first run; kubectl and helm do more where they are.
    steps.tool("Kubernetes manifests", Tool::new("bash deploy/kubernetes/check.sh"));
    rust_tests(&mut steps, full);
    end_to_end(&mut steps, full);
    steps.close()
}

/// Runs only what needs no build.
pub(crate) fn check_only() -> ExitCode {
    let mut steps = Steps::within(None);
    without_a_build(&mut steps);
    steps.close()
}

fn without_a_build(steps: &mut Steps) {
    for (name, check) in check::ALL {
        steps.own(name, || check::run(*check));
    }
    steps.own("direction of dependencies", check::dependencies::run);
    steps.tool("format", Tool::new("cargo fmt --all -- --check -l --color never"));
    for (name, manifest) in APART {
        let format = format!("cargo fmt --manifest-path {manifest} -- --check -l --color never");
        steps.tool(&format!("format, {name}"), Tool::new(&format));
    }
}

/// Builds through clippy: what it lints it compiles as well, so that a run builds everything once. `cargo clippy` would
/// go over all libraries and the whole workspace for itself, a fifth of the time that CI has.
pub(crate) fn linted(tool: Tool) -> Tool {
    tool.environment("RUSTC_WORKSPACE_WRAPPER", "clippy-driver").environment("CLIPPY_ARGS", "-Dwarnings")
}

fn rust_tests(steps: &mut Steps, full: bool) {
    let all = |tool: Tool| match full {
        true => linted(tool).environment("PROPTEST_CASES", FULL_CASES).environment(FULL, "1"),
        false => linted(tool),
    };
    if Tool::new("cargo nextest --version").succeeds() {
        // What may take how long is in .config/nextest.toml.
        let profile = if full { "full" } else { "default" };
        let tests = Tool::new("cargo nextest run --workspace --no-fail-fast --no-tests=pass --cargo-quiet")
            .argument(&format!("--profile={profile}"));
        steps.tool("tests and clippy", all(tests.counted_as(Runner::Nextest)));
        // nextest leaves the documentation's examples out.
        let examples = Tool::new("cargo test --workspace --doc --no-fail-fast --quiet");
        steps.tool("examples in the documentation", linted(examples).counted_as(Runner::Cargo));
    } else {
        let tests = Tool::new("cargo test --workspace --no-fail-fast --quiet");
        steps.tool("tests and clippy", all(tests.counted_as(Runner::Cargo)));
    }
}

fn end_to_end(steps: &mut Steps, full: bool) {
    if !workspace::root().join("e2e/run.mjs").is_file() {
        println!("==> end to end: no e2e/run.mjs, left out");
        return;
    }
    // The plain run takes the binaries that the tests have been built with: others would be built with other features of
    // the same libraries, so with all of them once more.
    let (folder, run) =
        if full { ("release", "node e2e/run.mjs --full") } else { ("debug", "node e2e/run.mjs") };
    if full {
        // The workspace's tests have run it with zstd: twilight is compiled for one compression at a time.
        for (compression, features) in [("zlib", " --features zlib"), ("no compression", "")] {
            let run = format!("cargo test -p holdfast-e2e-twilight --quiet --no-default-features{features}");
            steps.tool(&format!("twilight, {compression}"), Tool::new(&run).counted_as(Runner::Cargo));
        }
        let build = "cargo build --quiet --release -p holdfast -p holdfast-simulator";
        steps.tool("build for end to end", Tool::new(build));
    }
    let target = workspace::target();
    let binary = |name: &str| target.join(folder).join(name).to_string_lossy().into_owned();
    let tests = Tool::new(run)
        .environment("HOLDFAST_BIN", &binary("holdfast"))
        .environment("HOLDFAST_SIMULATOR_BIN", &binary("holdfast-simulator"))
        .counted_as(Runner::Node);
    steps.tool("end to end", tests);
}
