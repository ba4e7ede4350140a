// SPDX-License-Identifier: AGPL-3.0-only
//! Callers: so many kept connections, each with one request after the other, as fast as answers come or at a rate. In:
//! an address and how long. Out: requests and their times. Blocks, on one thread: more would take cores from what is
//! measured.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::interactions::post::Signer;

/// Channels that requests are spread over.
const CHANNELS: usize = 1_000;

/// A message, as bots send them.
const BODY: &str =
    r#"{"content":"A message of some length, as bots send them: about a hundred bytes in all.","tts":false}"#;

/// What callers do.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Where they connect.
    pub(crate) address: SocketAddr,
    /// How many there are.
    pub(crate) connections: usize,
    /// Requests a second of all together; `None`: as fast as answers come.
    pub(crate) rate: Option<u32>,
    /// How long.
    pub(crate) seconds: f64,
    /// What they ask for.
    pub(crate) requests: Requests,
}

/// What callers ask for.
#[derive(Clone, Debug)]
pub(crate) enum Requests {
    /// To send messages, to channels in turn.
    Messages,
    /// To have interactions answered, numbered from here on.
    Interactions(Arc<Signer>, usize),
}

/// What callers saw.
pub(crate) struct Seen {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// From sending to the whole answer, in microseconds.
    pub(crate) times: Histogram<u64>,
}

/// Sends requests and waits for all answers.
pub(crate) fn send(load: Load) -> Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let until = Instant::now() + Duration::from_secs_f64(load.seconds);
        let load = Arc::new(load);
        let callers: Vec<_> = (0..load.connections)
            .map(|number| tokio::spawn(caller(Arc::clone(&load), number, until)))
            .collect();
        let mut seen = Seen { requests: 0, times: Histogram::new(3)? };
        for caller in callers {
            let times = caller.await??;
            seen.requests += times.len();
            seen.times.add(times)?;
        }
        Ok(seen)
    })
}

async fn caller(load: Arc<Load>, number: usize, until: Instant) -> Result<Histogram<u64>> {
    let mut stream = TcpStream::connect(load.address).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let (mut times, mut answer) = (Histogram::new(3)?, vec![0; 4_096]);
    let pause = load.rate.map(|rate| Duration::from_secs_f64(load.connections as f64 / f64::from(rate)));
    // Callers don't begin all at once.
    let mut due = Instant::now() + pause.unwrap_or_default().mul_f64(number as f64 / load.connections as f64);
    for sent in 0.. {
        if let Some(pause) = pause {
            tokio::time::sleep_until(due.into()).await;
            due += pause;
        }
        if Instant::now() >= until {
            break;
        }
        let request = load.requests.request(sent * load.connections + number);
        let begun = Instant::now();
        stream.write_all(&request).await?;
        let body = read(&mut stream, &mut answer).await?;
        load.requests.check(body)?;
        times.record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX))?;
    }
    Ok(times)
}

impl Requests {
    /// The one of this number.
    fn request(&self, number: usize) -> Vec<u8> {
        match self {
            Self::Messages => {
                let channel = 81_384_788_765_712_384 + number % CHANNELS;
                format!(
                    "POST /api/v10/channels/{channel}/messages HTTP/1.1\r\nhost: here\r\n\
                     authorization: Bot sim-token\r\nuser-agent: DiscordBot (bench, 1)\r\n\
                     content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
                    BODY.len()
                )
                .into_bytes()
            }
            Self::Interactions(signer, from) => signer.request(from + number),
        }
    }

    /// Whether that is what was asked for: an interaction about which one is told to wait isn't answered.
    fn check(&self, answer: &[u8]) -> Result<()> {
        match self {
            Self::Interactions(..) if answer.starts_with(b"{\"type\":5") => bail!("not answered in time"),
            _ => Ok(()),
        }
    }
}

/// The body of one answer, which has to be a success and say how long it is.
async fn read<'a>(stream: &mut TcpStream, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            bail!("the connection ended: {}", String::from_utf8_lossy(&buffer[..filled]));
        }
        filled += read;
        if let Some(end) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let length: usize = length.with_context(|| format!("an answer without a length: {head}"))?;
            if !head.starts_with("http/1.1 200") {
                bail!("{head}");
            }
            if filled >= end + 4 + length {
                return Ok(&buffer[end + 4..filled]);
            }
        }
    }
}
