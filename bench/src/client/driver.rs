// SPDX-License-Identifier: AGPL-3.0-only
//! The driver's handle of a client process.
//! In: calls. Out: the process's answers, waited for with a bound. The process ends with the handle.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::{Answer, Args, Command, Counts, Readiness};
use crate::process::{Nursery, Process};

/// Longest wait for an answer: above the client's own bound for becoming ready.
const ANSWER: Duration = Duration::from_secs(150);
/// Answers that wait to be read; there is one to each command.
const ANSWERS: usize = 4;

/// A client process, connected.
pub(crate) struct Client {
    process: Process,
    commands: ChildStdin,
    answers: Receiver<Result<Answer>>,
}

impl Client {
    /// Starts the process and waits until all its connections have had HELLO.
    pub(crate) fn start(nursery: &Nursery, executable: &Path, args: &Args, log: PathBuf) -> Result<Self> {
        let process = nursery.start(executable, &words(args), log, true)?;
        let (commands, output) = process.pipes()?;
        let (sender, answers) = sync_channel(ANSWERS);
        thread::spawn(move || {
            for answer in read(output) {
                if sender.send(answer).is_err() {
                    break;
                }
            }
        });
        let client = Self { process, commands, answers };
        match client.answer()? {
            Answer::Connected => Ok(client),
            other => bail!("the client began with {other:?}"),
        }
    }

    /// Identifies all connections at once and waits until they have READY and every guild.
    pub(crate) fn identify(&mut self) -> Result<Readiness> {
        match self.ask(Command::Identify)? {
            Answer::Ready(readiness) => Ok(readiness),
            other => bail!("the client answered IDENTIFY with {other:?}"),
        }
    }

    /// Lets the client count from zero.
    pub(crate) fn reset(&mut self) -> Result<()> {
        self.ask(Command::Reset).map(drop)
    }

    /// What the client has counted since.
    pub(crate) fn counts(&mut self) -> Result<Counts> {
        match self.ask(Command::Stats)? {
            Answer::Stats(counts) => Ok(*counts),
            other => bail!("the client answered a question for its counts with {other:?}"),
        }
    }

    fn ask(&mut self, command: Command) -> Result<Answer> {
        let mut line = serde_json::to_string(&command)?;
        line.push('\n');
        self.commands.write_all(line.as_bytes()).with_context(|| self.process.last_words())?;
        self.answer()
    }

    fn answer(&self) -> Result<Answer> {
        match self.answers.recv_timeout(ANSWER) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => bail!("the client does not answer"),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the client ended. {}", self.process.last_words())
            }
        }
    }
}

fn read(output: ChildStdout) -> impl Iterator<Item = Result<Answer>> {
    BufReader::new(output).lines().map(|line| {
        let line = line?;
        serde_json::from_str(&line).with_context(|| format!("the client said {line:?}"))
    })
}

fn words(args: &Args) -> Vec<String> {
    let compression = args.compression.to_possible_value();
    let mut words = vec![
        "client".to_owned(),
        format!("--address={}", args.address),
        format!("--token={}", args.token),
        format!("--shards={}", args.shards),
        format!("--clients={}", args.clients),
        format!("--compression={}", compression.as_ref().map_or("none", |value| value.get_name())),
    ];
    if args.check {
        words.push("--check".to_owned());
    }
    words
}
