// SPDX-License-Identifier: AGPL-3.0-only
//! Runs one tool in the workspace's root, passes its output on as it comes, counts and times it.
//! In: a command line and a deadline. Out: a `Tally`, or why the tool failed.
//! Owns the child process: it has ended, or was asked to, when `run` returns.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::tally::{Runner, Tally};
use crate::workspace;

/// Lines in flight between the two reading threads and the printing one. A full channel makes the tool
/// wait, as a slow terminal would.
const LINES: usize = 256;

/// How a tool ended, and what it counted until then.
pub(crate) struct Ended {
    pub(crate) tally: Tally,
    /// Why it is a failure, if it is one.
    pub(crate) failure: Option<String>,
}

/// A command line, with the environment that it gets on top of ours.
pub(crate) struct Tool {
    command: Command,
    runner: Runner,
}

impl Tool {
    /// `line` is split at spaces: no argument of ours contains one.
    pub(crate) fn new(line: &str) -> Tool {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).current_dir(workspace::root()).stdin(Stdio::null());
        Tool { command, runner: Runner::Uncounted }
    }

    /// Adds one argument as it is.
    pub(crate) fn argument(mut self, argument: &str) -> Tool {
        self.command.arg(argument);
        self
    }

    /// Adds a variable to the tool's environment.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Tool {
        self.command.env(name, value);
        self
    }

    /// Says in whose words the tool counts.
    pub(crate) fn counted_as(mut self, runner: Runner) -> Tool {
        self.runner = runner;
        self
    }

    /// Runs with our own standard streams, unread and untimed.
    pub(crate) fn run_attached(mut self) -> Result<()> {
        let name = self.name();
        self.command.stdin(Stdio::inherit());
        let status = self.command.status().with_context(|| format!("{name} could not be started"))?;
        anyhow::ensure!(status.success(), "{name} ended with {status}");
        Ok(())
    }

    /// True if the tool starts and ends well; its output is dropped.
    pub(crate) fn succeeds(mut self) -> bool {
        self.command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Runs to the end or to the deadline.
    pub(crate) fn run(mut self, deadline: Option<Instant>) -> Result<Ended> {
        let name = self.name();
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("{name} could not be started"))?;
        let mut tally = Tally::default();
        let in_time = {
            let lines = lines_of(&mut child);
            pass_on(&lines, deadline, |line| tally.read(self.runner, line))
        };
        if !in_time {
            terminate(&mut child)?;
            return Ok(Ended { tally, failure: Some(format!("{name} was still running at the deadline")) });
        }
        let status = child.wait().with_context(|| format!("{name} could not be waited for"))?;
        let failure = (!status.success()).then(|| format!("{name} ended with {status}"));
        Ok(Ended { tally, failure })
    }

    fn name(&self) -> String {
        self.command.get_program().to_string_lossy().into_owned()
    }
}

fn lines_of(child: &mut Child) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(LINES);
    if let Some(output) = child.stdout.take() {
        read_lines(output, sender.clone());
    }
    if let Some(errors) = child.stderr.take() {
        read_lines(errors, sender);
    }
    receiver
}

/// The thread ends with the stream, or when nobody listens any more.
fn read_lines(stream: impl Read + Send + 'static, sender: SyncSender<Vec<u8>>) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            match stream.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if sender.send(line).is_err() => return,
                Ok(_) => {}
            }
        }
    });
}

/// Prints until both streams have ended (true) or the deadline has come (false).
fn pass_on(lines: &Receiver<Vec<u8>>, deadline: Option<Instant>, mut read: impl FnMut(&str)) -> bool {
    loop {
        let line = match deadline {
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => lines.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        match line {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line);
                print!("{line}");
                read(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// Asks first (a test runner then ends its own children), and waits for it only as long as that takes.
fn terminate(child: &mut Child) -> Result<()> {
    let asked = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status();
    if !asked.is_ok_and(|status| status.success()) {
        child.kill().context("a tool past its deadline could not be ended")?;
    }
    child.wait().context("a tool past its deadline could not be waited for")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_tool_s_output_is_counted() {
        let ended = Tool::new("echo pass 3").counted_as(Runner::Node).run(None).unwrap();
        assert_eq!((ended.tally.passed, ended.failure), (3, None));
    }

    #[test]
    fn a_bad_exit_code_is_a_failure() {
        assert!(Tool::new("false").run(None).unwrap().failure.is_some());
    }

    #[test]
    fn a_tool_that_runs_past_its_deadline_is_ended() {
        let begun = Instant::now();
        let ended = Tool::new("sleep 600").run(Some(begun + Duration::from_millis(50))).unwrap();
        assert!(ended.failure.is_some_and(|why| why.contains("deadline")));
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_missing_tool_is_named() {
        let error = Tool::new("no-such-tool-anywhere").run(None).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("no-such-tool-anywhere")));
    }
}
