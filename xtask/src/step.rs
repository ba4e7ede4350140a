// SPDX-License-Identifier: AGPL-3.0-only
//! A chore's steps in order: each is announced, timed and counted, and a failed one doesn't stop the rest.
//! In: closures that return a `Tally`. Out: a progress line per step and the closing lines.
//! Owns the deadline of the whole run, so that the closing lines are always printed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::tally::Tally;
use crate::tool::{Ended, Tool};

/// The steps that were run so far.
pub(crate) struct Steps {
    deadline: Option<Instant>,
    begun: Instant,
    passed: u64,
    failed: u64,
    failures: Vec<String>,
    closings: Vec<String>,
}

impl Steps {
    /// `budget` bounds all steps together; a step that is reached too late fails at once.
    pub(crate) fn within(budget: Option<Duration>) -> Steps {
        let begun = Instant::now();
        Steps {
            deadline: budget.map(|budget| begun + budget),
            begun,
            passed: 0,
            failed: 0,
            failures: Vec::new(),
            closings: Vec::new(),
        }
    }

    /// Runs a tool as a step.
    pub(crate) fn tool(&mut self, name: &str, tool: Tool) {
        let deadline = self.deadline;
        self.step(name, || tool.run(deadline));
    }

    /// Runs our own code as a step.
    pub(crate) fn own(&mut self, name: &str, run: impl FnOnce() -> Result<()>) {
        self.step(name, || run().map(|()| Ended { tally: Tally::default(), failure: None }));
    }

    fn step(&mut self, name: &str, run: impl FnOnce() -> Result<Ended>) {
        println!("==> {name}");
        let begun = Instant::now();
        let ended = run()
            .unwrap_or_else(|error| Ended { tally: Tally::default(), failure: Some(format!("{error:#}")) });
        self.record(name, ended, begun.elapsed());
    }

    fn record(&mut self, name: &str, ended: Ended, took: Duration) {
        let Ended { tally, failure } = ended;
        self.passed += tally.passed;
        // A step that failed without counting is one failure, so that "0 failed" always means success.
        self.failed += if failure.is_some() { tally.failed.max(1) } else { tally.failed };
        if let Some(closing) = tally.closing {
            self.closings.push(format!("{name}: {closing}"));
        }
        let seconds = took.as_secs_f64();
        match failure {
            None => println!("<== {name}: ok, {seconds:.1} s"),
            Some(why) => {
                println!("<== {name}: FAILED, {seconds:.1} s: {why}");
                self.failures.push(format!("{name}: {why}"));
            }
        }
    }

    /// Prints the closing lines: the runners' own, the failed steps, and as the last one the sum.
    pub(crate) fn close(self) -> ExitCode {
        println!("\nall steps: {:.0} s", self.begun.elapsed().as_secs_f64());
        self.closings.iter().for_each(|line| println!("{line}"));
        self.failures.iter().for_each(|line| println!("FAILED {line}"));
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::tally::Runner;

    #[test]
    fn a_failed_step_counts_once_and_the_next_still_runs() {
        let mut steps = Steps::within(None);
        steps.own("breaks", || Err(anyhow!("broken")));
        steps.tool("counts", Tool::new("echo pass 4").counted_as(Runner::Node));
        assert_eq!((steps.passed, steps.failed), (4, 1));
        assert_eq!(steps.close(), ExitCode::FAILURE);
    }

    #[test]
    fn a_runner_s_failures_are_not_counted_twice() {
        let mut steps = Steps::within(None);
        let tally = Tally { passed: 1, failed: 3, closing: None };
        steps.record("tests", Ended { tally, failure: Some("exit code 1".to_owned()) }, Duration::ZERO);
        assert_eq!(steps.failed, 3);
    }

    #[test]
    fn a_step_reached_after_the_deadline_fails() {
        let mut steps = Steps::within(Some(Duration::ZERO));
        steps.tool("late", Tool::new("sleep 600"));
        assert_eq!(steps.failed, 1);
    }
}
