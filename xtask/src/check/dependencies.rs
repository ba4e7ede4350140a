// SPDX-License-Identifier: AGPL-3.0-only
//! Which crate may depend on which, and who alone may use a library that defines what a crate is.
//! In: `cargo metadata`. Out: edges that no row of `RULES` allows. The table is the rule; the picture of
//! it is in `docs/architecture.md`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Finding, report};
use crate::workspace;

/// What one of our crates may depend on.
struct Rule {
    name: &'static str,
    /// Ours, in what is shipped.
    ours: &'static [&'static str],
    /// Ours, only in its tests.
    in_tests: &'static [&'static str],
}

const fn rule(name: &'static str, ours: &'static [&'static str], in_tests: &'static [&'static str]) -> Rule {
    Rule { name, ours, in_tests }
}

/// What each service may see. No service is among them: services speak through the broker.
const SHARED: &[&str] = &[
    "holdfast-rest",
    "holdfast-broker",
    "holdfast-cluster",
    "holdfast-state",
    "holdfast-contract",
    "holdfast-service",
    "holdfast-discord",
];

/// A service's tests run against the simulated Discord; the services themselves can't tell it from the real one.
const SIMULATED: &[&str] = &["holdfast-simulator"];

const RULES: &[Rule] = &[
    rule("holdfast-discord", &[], &[]),
    rule("holdfast-service", &[], &[]),
    rule("holdfast-contract", &[], &[]),
    rule("holdfast-state", &["holdfast-discord"], &[]),
    rule("holdfast-cluster", &["holdfast-service", "holdfast-discord"], &[]),
    rule("holdfast-broker", &["holdfast-contract", "holdfast-service", "holdfast-discord"], &[]),
    rule("holdfast-rest", &["holdfast-cluster", "holdfast-service", "holdfast-discord"], SIMULATED),
    // It may know Discord's names, never our encoders' or services' opinions: it judges them.
    rule("holdfast-simulator", &["holdfast-discord"], &[]),
    rule("holdfast-ws", SHARED, SIMULATED),
    rule("holdfast-api", SHARED, SIMULATED),
    rule("holdfast-http", SHARED, SIMULATED),
    rule("holdfast-webhook", SHARED, SIMULATED),
    rule("holdfast-voice", SHARED, SIMULATED),
    rule(
        "holdfast",
        &[
            "holdfast-ws",
            "holdfast-api",
            "holdfast-http",
            "holdfast-webhook",
            "holdfast-voice",
            "holdfast-rest",
            "holdfast-broker",
            "holdfast-cluster",
            "holdfast-state",
            "holdfast-contract",
            "holdfast-service",
            "holdfast-discord",
            "holdfast-simulator",
        ],
        &[],
    ),
    // It starts the others as processes, so that it measures what people run; its workers speak by the contract.
    rule("holdfast-bench", &["holdfast-simulator", "holdfast-discord", "holdfast-contract"], &[]),
    // A library of others before the service as it is, in one process.
    rule(
        "holdfast-e2e-twilight",
        &[],
        &["holdfast-ws", "holdfast-api", "holdfast-service", "holdfast-discord", "holdfast-simulator"],
    ),
    rule("xtask", &[], &[]),
];

/// Libraries that only these crates may use.
const ONLY_IN: &[(&str, &[&str])] = &[
    // The benchmark measures `holdfast-broker` against the bare library.
    ("lapin", &["holdfast-broker", "holdfast-bench"]),
    ("redis", &["holdfast-cluster"]),
    ("fred", &["holdfast-cluster"]),
];

/// Crates without I/O and without a clock.
const PURE: &[&str] = &["holdfast-discord", "holdfast-state", "holdfast-contract"];

/// What brings I/O, a clock or tasks.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-websockets",
    "tokio-rustls",
    "futures-util",
    "hyper",
    "hyper-util",
    "axum",
    "rustls",
    "socket2",
    "fastrand",
    "tracing",
];

/// A dependency as a manifest states it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    from: String,
    to: String,
    in_tests: bool,
}

/// Reads the workspace's manifests and judges every edge.
pub(crate) fn run() -> Result<()> {
    let output = std::process::Command::new("cargo")
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(workspace::root())
        .output()
        .context("cargo metadata could not be started")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata gave no JSON")?;
    let (crates, edges) = read(&metadata).context("cargo metadata has another form than expected")?;
    report(&judge(&crates, &edges))
}

fn read(metadata: &Value) -> Option<(Vec<String>, Vec<Edge>)> {
    let mut crates = Vec::new();
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array()? {
        let from = package["name"].as_str()?;
        crates.push(from.to_owned());
        for dependency in package["dependencies"].as_array()? {
            let in_tests = dependency["kind"].as_str() == Some("dev");
            let to = dependency["name"].as_str()?.to_owned();
            edges.push(Edge { from: from.to_owned(), to, in_tests });
        }
    }
    Some((crates, edges))
}

fn judge(crates: &[String], edges: &[Edge]) -> Vec<Finding> {
    let unruled = crates.iter().filter(|name| rule_of(name).is_none());
    let unruled =
        unruled.map(|name| (name.as_str(), "has no row in the table of directions: give it one".to_owned()));
    let forbidden = edges.iter().filter_map(|edge| Some((edge.from.as_str(), why_not(crates, edge)?)));
    unruled
        .chain(forbidden)
        .map(|(name, message)| Finding { path: name.to_owned(), line: 0, message })
        .collect()
}

fn rule_of(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

fn why_not(crates: &[String], Edge { from, to, in_tests }: &Edge) -> Option<String> {
    let (from, to) = (from.as_str(), to.as_str());
    if let Some((_, users)) = ONLY_IN.iter().find(|(library, _)| *library == to)
        && !users.contains(&from)
        // Tests may look for themselves at what a service has left.
        && !in_tests
    {
        return Some(format!("uses {to}, which only {} may", users.join(", ")));
    }
    if PURE.contains(&from) && IMPURE.contains(&to) && !in_tests {
        return Some(format!("uses {to}, but holds neither I/O nor a clock"));
    }
    let rule = rule_of(from)?;
    let allowed = rule.ours.contains(&to) || (*in_tests && rule.in_tests.contains(&to));
    (crates.iter().any(|name| name == to) && !allowed).then(|| format!("may not depend on {to}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_as_it_is_keeps_the_rules() {
        run().unwrap();
    }

    #[test]
    fn services_may_use_what_is_shared_but_not_each_other() {
        assert_eq!(forbidden("holdfast-ws", "holdfast-state", false), 0);
        assert_eq!(forbidden("holdfast-ws", "holdfast-api", false), 1);
        assert_eq!(forbidden("holdfast-ws", "holdfast-api", true), 1);
    }

    #[test]
    fn the_simulator_is_for_tests_and_for_up() {
        assert_eq!(forbidden("holdfast-ws", "holdfast-simulator", true), 0);
        assert_eq!(forbidden("holdfast-ws", "holdfast-simulator", false), 1);
        assert_eq!(forbidden("holdfast", "holdfast-simulator", false), 0);
    }

    #[test]
    fn pure_crates_stay_pure() {
        assert_eq!(forbidden("holdfast-discord", "tokio", false), 1);
        assert_eq!(forbidden("holdfast-discord", "memchr", false), 0);
        assert_eq!(forbidden("holdfast-state", "holdfast-service", false), 1);
    }

    #[test]
    fn one_crate_speaks_to_the_broker_and_the_benchmark_compares_it() {
        assert_eq!(forbidden("holdfast-broker", "lapin", false), 0);
        assert_eq!(forbidden("holdfast-bench", "lapin", false), 0);
        assert_eq!(forbidden("holdfast-ws", "lapin", false), 1);
    }

    #[test]
    fn a_new_crate_needs_a_row() {
        assert_eq!(judge(&["holdfast-surprise".to_owned()], &[]).len(), 1);
    }

    #[test]
    fn rows_name_crates_that_have_rows() {
        let named = RULES.iter().flat_map(|rule| rule.ours.iter().chain(rule.in_tests));
        named.for_each(|name| assert!(rule_of(name).is_some(), "{name} has no row"));
    }

    fn forbidden(from: &str, to: &str, in_tests: bool) -> usize {
        let crates: Vec<String> = RULES.iter().map(|rule| rule.name.to_owned()).collect();
        judge(&crates, &[Edge { from: from.to_owned(), to: to.to_owned(), in_tests }]).len()
    }
}
