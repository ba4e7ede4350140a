// SPDX-License-Identifier: AGPL-3.0-only
//! The client process: as many bots as asked for, one connection per shard each, reading as cheaply as it can.
//! In: command lines on standard input. Out: one JSON line for each on standard output.
//! Ends with its standard input, so it never outlives the driver.

mod inflate;
mod payload;
mod record;
mod session;
mod websocket;

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    task::LocalSet,
    time::{Instant, timeout},
};

pub(crate) use self::{
    inflate::Compression,
    payload::{numbered, sent_at},
    record::{Counts, Recorder},
    session::{Opened, Session, micros},
    websocket::{Message, pong},
};
use crate::peer::{Answer, Command, Readiness, commands, say};

/// Every intent that Discord documents (bits 0 to 16, 20, 21, 24, 25).
pub(crate) const ALL_INTENTS: u64 = 0x1_ffff | 0b11 << 20 | 0b11 << 24;
/// Longest wait for all connections to be made, and for all to have READY and their guilds.
const SETUP: Duration = Duration::from_secs(120);
/// Connections made at the same time: below the usual backlog of a listener.
const CONNECTING: usize = 64;

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

impl Args {
    /// The command line that says the same.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![
            "client".to_owned(),
            format!("--address={}", self.address),
            format!("--token={}", self.token),
            format!("--shards={}", self.shards),
            format!("--clients={}", self.clients),
            format!("--compression={}", self.compression.name()),
        ];
        if self.check {
            words.push("--check".to_owned());
        }
        words
    }
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
        let command = command?;
        match command {
            Command::Identify => {
                let sessions = std::mem::take(&mut waiting);
                say(&Answer::Ready(identify(args, sessions, &recorder).await?))?;
            }
            Command::Reset | Command::Stats => {
                let mut recorder = recorder.borrow_mut();
                let counts = recorder.counts();
                if command == Command::Reset {
                    recorder.reset();
                }
                say(&Answer::Stats(Box::new(counts)))?;
            }
        }
    }
    Ok(())
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
    for (number, session) in sessions.into_iter().enumerate() {
        let identify = session.identify(&args.token, args.shards);
        tokio::task::spawn_local(session.run(identify, number));
    }
    all_ready(recorder, expected).await?;
    let (guilds, guild_bytes) = recorder.borrow().guilds();
    Ok(Readiness { milliseconds: started.elapsed().as_secs_f64() * 1e3, guilds, guild_bytes })
}

/// Waits until so many connections have READY and every guild.
pub(crate) async fn all_ready(recorder: &RefCell<Recorder>, expected: usize) -> Result<()> {
    let became_ready = recorder.borrow().became_ready();
    let all = async {
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
    timeout(SETUP, all).await.with_context(|| recorder.borrow().missing(expected))?
}
