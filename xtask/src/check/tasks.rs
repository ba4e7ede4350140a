// SPDX-License-Identifier: AGPL-3.0-only
//! Every task hangs on a handle: a task that nobody owns outlives its service and hides its panic.
//! In: sources. Out: calls in production code that start a task without an owner.

use super::{Finding, Source};

/// These return a handle. As a statement of its own, nobody keeps it; a `JoinSet` or a `TaskTracker` would.
const SPAWNS: &[&str] = &["tokio::spawn(", "tokio::task::spawn(", "task::spawn(", "Handle::current().spawn("];

/// Programs that end with their tasks; they are never part of a service.
const EXEMPT: &[&str] = &["crates/simulator/", "bench/", "xtask/"];

/// See the module.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    let rust = sources.iter().filter(|source| source.extension() == "rs" && !source.is_test_only());
    let services = rust.filter(|source| !EXEMPT.iter().any(|folder| source.path.starts_with(folder)));
    services.flat_map(unowned).collect()
}

fn unowned(source: &Source) -> Vec<Finding> {
    let production = source.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).enumerate();
    let starts = |line: &str| {
        let statement = line.trim_start();
        let statement = statement.strip_prefix("let _ = ").unwrap_or(statement);
        SPAWNS.iter().any(|spawn| statement.starts_with(spawn))
    };
    let found = production.filter(|(_, line)| starts(line));
    found.map(|(index, _)| Finding::new(source, index + 1, "starts a task that nobody owns")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::source;

    #[test]
    fn a_task_without_an_owner_is_found_with_its_line() {
        let text = "fn a() {\n    tokio::spawn(b());\n    let _ = tokio::spawn(b());\n}\n";
        let found = check(&[source("gateway/ws/src/a.rs", text)]);
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn owned_tasks_tests_and_comments_pass() {
        let text = "// not tokio::spawn(…)\nfn a() {\n    tasks.spawn(b());\n    self.job = Some(tokio::spawn(b()));\n}\n\
                    #[cfg(test)]\nmod tests {\n    tokio::spawn(b());\n}\n";
        assert_eq!(check(&[source("gateway/ws/src/a.rs", text)]), []);
        assert_eq!(check(&[source("crates/simulator/src/a.rs", "tokio::spawn(b());\n")]), []);
    }
}
