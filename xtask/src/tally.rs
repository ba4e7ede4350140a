// SPDX-License-Identifier: AGPL-3.0-only
//! Counts what test runners report.
//! In: a runner's output, line by line. Out: how many passed and failed, and its own closing line.

/// Whose output is read: each runner closes in its own words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// A tool that counts nothing; it passes or fails as a whole.
    Uncounted,
    /// `cargo test`: one closing line per test binary, summed up here.
    Cargo,
    /// `cargo nextest`: one closing line in all.
    Nextest,
    /// `node --test`: a line per count, such as `ℹ pass 5`.
    Node,
}

/// What one runner counted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// The runner's own closing line, for the end of our output.
    pub(crate) closing: Option<String>,
}

impl Tally {
    /// Takes in one line of the runner's output.
    pub(crate) fn read(&mut self, runner: Runner, line: &str) {
        let line = line.trim();
        match runner {
            Runner::Uncounted => {}
            Runner::Cargo if line.starts_with("test result:") => {
                self.passed += counted(line, &["passed"]).unwrap_or(0);
                self.failed += counted(line, &["failed"]).unwrap_or(0);
                self.close(format!("{} passed; {} failed, over all test binaries", self.passed, self.failed));
            }
            Runner::Nextest if line.starts_with("Summary [") => {
                let failures = [&["failed"][..], &["timed", "out"], &["exec", "failed"]];
                self.passed = counted(line, &["passed"]).unwrap_or(0);
                self.failed = failures.iter().filter_map(|words| counted(line, words)).sum();
                self.close(line.to_owned());
            }
            Runner::Node => self.read_node(line),
            Runner::Cargo | Runner::Nextest => {}
        }
    }

    fn read_node(&mut self, line: &str) {
        let words: Vec<&str> = words(line).filter(|word| !word.is_empty()).collect();
        let [what, count] = words[..] else { return };
        let Ok(count) = count.parse::<u64>() else { return };
        match what {
            "pass" => self.passed += count,
            "fail" | "cancelled" => self.failed += count,
            _ => return,
        }
        self.close(format!("pass {}, fail {}", self.passed, self.failed));
    }

    fn close(&mut self, line: String) {
        self.closing = Some(line);
    }
}

/// The number that stands directly before these words.
fn counted(line: &str, words: &[&str]) -> Option<u64> {
    let tokens: Vec<&str> = line
        .split_whitespace()
        .map(|token| token.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
        .collect();
    tokens.windows(words.len() + 1).find(|window| window[1..] == *words)?[0].parse().ok()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_test_is_summed_over_its_binaries() {
        let tally = read(
            Runner::Cargo,
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
             test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        );
        assert_eq!((tally.passed, tally.failed), (15, 2));
    }

    #[test]
    fn nextest_counts_time_outs_as_failures() {
        let tally = read(
            Runner::Nextest,
            "  PASS [ 0.1s] a::b\n     Summary [   1.2s] 9/10 tests run: 5 passed (1 slow), 1 failed, 2 timed out, 1 exec failed, 3 skipped",
        );
        assert_eq!((tally.passed, tally.failed), (5, 4));
        assert!(tally.closing.is_some_and(|line| line.starts_with("Summary [")));
    }

    #[test]
    fn node_counts_cancelled_tests_as_failures() {
        let tally = read(
            Runner::Node,
            "✔ a bot restarts (12ms)\nℹ tests 10\nℹ suites 0\nℹ pass 7\nℹ fail 2\nℹ cancelled 1\nℹ skipped 0\nℹ duration_ms 49",
        );
        assert_eq!((tally.passed, tally.failed), (7, 3));
        assert_eq!(read(Runner::Node, "# pass 5\n# fail 0").passed, 5);
    }

    #[test]
    fn what_a_test_says_counts_nothing() {
        assert_eq!(read(Runner::Node, "they pass 3 gates\npass\npass on"), Tally::default());
        assert_eq!(read(Runner::Nextest, "3 passed, 1 failed"), Tally::default());
        assert_eq!(read(Runner::Uncounted, "test result: 3 passed"), Tally::default());
    }

    fn read(runner: Runner, output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(runner, line));
        tally
    }
}
