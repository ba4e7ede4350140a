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
    /// `e2e/`: the last line that counts is the one that counts all.
    EndToEnd,
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
        let counts = match runner {
            Runner::Uncounted => false,
            Runner::Cargo => line.starts_with("test result:"),
            Runner::Nextest => line.starts_with("Summary ["),
            Runner::EndToEnd => counted(line, &["passed"]).is_some(),
        };
        if !counts {
            return;
        }
        let passed = counted(line, &["passed"]).unwrap_or(0);
        let failed = [&["failed"][..], &["timed", "out"], &["exec", "failed"], &["errors"], &["error"]]
            .iter()
            .filter_map(|words| counted(line, words))
            .sum();
        if runner == Runner::Cargo {
            self.passed += passed;
            self.failed += failed;
            self.closing =
                Some(format!("{} passed; {} failed, over all test binaries", self.passed, self.failed));
        } else {
            *self = Tally { passed, failed, closing: Some(line.to_owned()) };
        }
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
    fn the_end_to_end_runner_s_last_count_stands() {
        let tally = read(Runner::EndToEnd, "==== 4 passed in 2.1s ====\nall clients: 9 passed, 1 failed");
        assert_eq!((tally.passed, tally.failed), (9, 1));
    }

    #[test]
    fn prose_about_passing_counts_nothing() {
        assert_eq!(read(Runner::EndToEnd, "the test passed\nwe passed 3 gates"), Tally::default());
        assert_eq!(read(Runner::Uncounted, "3 passed"), Tally::default());
    }

    fn read(runner: Runner, output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(runner, line));
        tally
    }
}
