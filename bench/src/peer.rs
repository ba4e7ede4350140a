// SPDX-License-Identifier: AGPL-3.0-only
//! Processes of this program that the driver talks to: clients, publishers, consumers.
//! In: calls. Out: the process's answers, waited for with a bound; it ends with the handle.
//! Both sides of the talk are here: a JSON line on standard input, a JSON line on standard output.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{ChildStdin, ChildStdout},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{client::Counts, process::Process, stack::Setup};

/// Longest wait for an answer: above the client's own bound for becoming ready.
const ANSWER: Duration = Duration::from_secs(150);
/// Answers that wait to be read; there is one to each command.
const ANSWERS: usize = 4;

/// Commands that wait: the driver waits for the answer to each.
const COMMANDS: usize = 4;

/// What the driver may ask for, one word a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Command {
    /// Identify all connections at once; answered when all have READY and every guild.
    Identify,
    /// Tell what was counted, and forget it.
    Reset,
    /// Tell what was counted since.
    Stats,
}

/// What the client answers, one JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// It is connected; of a gateway, all connections have had HELLO.
    Connected,
    /// All connections have READY and every guild that it listed.
    Ready(Readiness),
    /// What was counted.
    Stats(Box<Counts>),
}

/// How the clients became ready.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Readiness {
    /// From the first IDENTIFY to the last GUILD_CREATE, in milliseconds.
    pub(crate) milliseconds: f64,
    /// GUILD_CREATEs received by all connections.
    pub(crate) guilds: u64,
    /// Bytes of GUILD_CREATE payloads, inflated.
    pub(crate) guild_bytes: u64,
}

/// A process that is talked to, connected.
pub(crate) struct Peer {
    process: Process,
    commands: ChildStdin,
    answers: Receiver<Result<Answer>>,
}

impl Peer {
    /// Starts this program with a command line and waits until it has connected.
    pub(crate) fn start(setup: &Setup, words: &[String], log: PathBuf) -> Result<Self> {
        let process = setup.nursery.start(&setup.bench, words, log, true)?;
        let (commands, output) = process.pipes()?;
        let (sender, answers) = sync_channel(ANSWERS);
        thread::spawn(move || {
            for answer in read(output) {
                if sender.send(answer).is_err() {
                    break;
                }
            }
        });
        let peer = Self { process, commands, answers };
        match peer.answer()? {
            Answer::Connected => Ok(peer),
            other => bail!("it began with {other:?}"),
        }
    }

    /// Identifies all connections at once and waits until they have READY and every guild.
    pub(crate) fn identify(&mut self) -> Result<Readiness> {
        match self.ask(Command::Identify)? {
            Answer::Ready(readiness) => Ok(readiness),
            other => bail!("it answered IDENTIFY with {other:?}"),
        }
    }

    /// What it has counted since; it counts from zero again, without an event between the two.
    pub(crate) fn reset(&mut self) -> Result<Counts> {
        self.ask_counts(Command::Reset)
    }

    /// What it has counted since.
    pub(crate) fn counts(&mut self) -> Result<Counts> {
        self.ask_counts(Command::Stats)
    }

    fn ask_counts(&mut self, command: Command) -> Result<Counts> {
        match self.ask(command)? {
            Answer::Stats(counts) => Ok(*counts),
            other => bail!("it answered {command:?} with {other:?}"),
        }
    }

    /// The process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
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
            Err(RecvTimeoutError::Timeout) => bail!("no answer. {}", self.process.last_words()),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("it ended. {}", self.process.last_words())
            }
        }
    }
}

fn read(output: ChildStdout) -> impl Iterator<Item = Result<Answer>> {
    BufReader::new(output).lines().map(|line| {
        let line = line?;
        serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))
    })
}

/// Reads standard input on a thread of its own, which costs nothing between commands.
pub(crate) fn commands() -> mpsc::Receiver<Result<Command>> {
    let (sender, receiver) = mpsc::channel(COMMANDS);
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let command = line.map_err(Into::into).and_then(|line| {
                serde_json::from_str(&line).with_context(|| format!("unknown command {line:?}"))
            });
            if sender.blocking_send(command).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Answers the driver.
pub(crate) fn say(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
