// SPDX-License-Identifier: AGPL-3.0-only
//! The client process: as many bots as asked for, one connection per shard each, reading as cheaply as it can.
//! In: command lines on standard input. Out: one JSON line for each on standard output.
//! Ends with its standard input, so it never outlives the driver.

mod driver;
mod inflate;
mod payload;
mod record;
mod session;
mod websocket;

use std::{
    cell::RefCell,
    io::{BufRead, Write},
    net::SocketAddr,
    rc::Rc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc::{Receiver, channel},
    task::LocalSet,
    time::{Instant, timeout},
};

pub(crate) use self::{driver::Client, inflate::Compression, record::Counts};
use self::{record::Recorder, session::Session};

/// Every intent that Discord documents (bits 0 to 16, 20, 21, 24, 25).
pub(crate) const ALL_INTENTS: u64 = 0x1_ffff | 0b11 << 20 | 0b11 << 24;
/// Longest wait for all connections to be made, and for all to have READY and their guilds.
const SETUP: Duration = Duration::from_secs(120);
/// Connections made at the same time: below the usual backlog of a listener.
const CONNECTING: usize = 64;

/// Commands that wait: the driver waits for the answer to each.
const COMMANDS: usize = 4;

/// Whom the client connects to, and as how many.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The gateway's address.
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// The bot's token.
    #[arg(long, default_value = "sim-token")]
    pub(crate) token: String,
    /// Shards, each with its own connection.
    #[arg(long, default_value_t = 16)]
    pub(crate) shards: u32,
    /// Connections on each shard.
    #[arg(long, default_value_t = 1)]
    pub(crate) clients: u32,
    /// What to ask for in the connection's query.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub(crate) compression: Compression,
    /// Look into each message for its number: losses, order, duplicates. Costs the client some time.
    #[arg(long)]
    pub(crate) check: bool,
}

/// What the driver may ask for, one word a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Command {
    /// Identify all connections at once; answered when all have READY and every guild.
    Identify,
    /// Forget what was counted.
    Reset,
    /// Tell what was counted since.
    Stats,
}

/// What the client answers, one JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// All connections have had HELLO.
    Connected,
    /// All connections have READY and every guild that it listed.
    Ready(Readiness),
    /// Counting starts again.
    Reset,
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

/// Runs the client until its standard input ends.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, talk(args))
}

async fn talk(args: &Args) -> Result<()> {
    let recorder = Rc::new(RefCell::new(Recorder::new(args.check, args.compression)?));
    let mut waiting =
        timeout(SETUP, connect(args, &recorder)).await.context("connecting took too long")??;
    say(&Answer::Connected)?;
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        match command? {
            Command::Identify => {
                let sessions = std::mem::take(&mut waiting);
                say(&Answer::Ready(identify(args, sessions, &recorder).await?))?;
            }
            Command::Reset => {
                recorder.borrow_mut().reset();
                say(&Answer::Reset)?;
            }
            Command::Stats => {
                let counts = recorder.borrow_mut().counts();
                say(&Answer::Stats(Box::new(counts)))?;
            }
        }
    }
    Ok(())
}

/// Reads standard input on a thread of its own, which costs nothing between commands.
fn commands() -> Receiver<Result<Command>> {
    let (sender, receiver) = channel(COMMANDS);
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

fn say(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

async fn connect(args: &Args, recorder: &Rc<RefCell<Recorder>>) -> Result<Vec<Session>> {
    let all: Vec<u32> = (0..args.clients).flat_map(|_| 0..args.shards).collect();
    let mut sessions = Vec::with_capacity(all.len());
    for some in all.chunks(CONNECTING) {
        let mut attempts = Vec::new();
        for &shard in some {
            let recorder = Rc::clone(recorder);
            let (address, compression) = (args.address, args.compression);
            attempts.push(tokio::task::spawn_local(async move {
                Session::connect(address, shard, compression, recorder).await
            }));
        }
        for attempt in attempts {
            sessions.push(attempt.await??);
        }
    }
    Ok(sessions)
}

async fn identify(
    args: &Args,
    sessions: Vec<Session>,
    recorder: &Rc<RefCell<Recorder>>,
) -> Result<Readiness> {
    let expected = sessions.len();
    let started = Instant::now();
    let became_ready = recorder.borrow().became_ready();
    for (number, session) in sessions.into_iter().enumerate() {
        let identify = session.identify(&args.token, args.shards);
        tokio::task::spawn_local(session.run(identify, number));
    }
    let all_ready = async {
        loop {
            let ready = became_ready.notified();
            let (ready_now, closed) = recorder.borrow().progress();
            if let Some(why) = closed {
                bail!("a connection closed before it was ready: {why}");
            }
            if ready_now >= expected {
                return Ok(());
            }
            ready.await;
        }
    };
    timeout(SETUP, all_ready).await.with_context(|| recorder.borrow().missing(expected))??;
    let (guilds, guild_bytes) = recorder.borrow().guilds();
    Ok(Readiness { milliseconds: started.elapsed().as_secs_f64() * 1e3, guilds, guild_bytes })
}
