// SPDX-License-Identifier: AGPL-3.0-only
//! One client's connection after the upgrade: payloads in, frames out, the close.
//!
//! In: WebSocket frames. Out: decoded payloads with their opcode, or why the client is to be closed. Owned
//! by the client's task.

use std::{
    future::poll_fn,
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::Duration,
};

use holdfast_cluster::ShardId;
use holdfast_discord::{etf, limits::SendBudget};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout},
};

use super::{
    outgoing::{Encoding, Outgoing},
    query::{Query, Refused},
    socket::{Control, Incoming, Writer},
};
use crate::frames::{FrameError, FrameReader, Kind, Opcode, close_answer, push, read_close};

/// How long a client may take to read its close frame and answer it. Ending the socket earlier, with input
/// unread, would reset the connection and take the frame from a client that is busy.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// Nothing that a client sends is nested deeper.
const MAX_DEPTH: usize = 32;
/// Pings are no payloads to Discord; this many in a minute are no keepalive either.
const MAX_PINGS: usize = 600;

/// A payload from a client.
#[derive(Debug, PartialEq)]
pub(crate) struct Payload {
    pub(crate) op: u64,
    pub(crate) data: Value,
}

/// How reading ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client closed with this code, or went away without one.
    Gone(Option<u16>),
    /// It did something that it is to be closed for.
    Refused(Refused),
}

/// The reading half: everything the client sends passes here.
pub(crate) struct Reading {
    socket: Incoming,
    frames: FrameReader,
    encoding: Encoding,
    payloads: SendBudget,
    pings: SendBudget,
    since: Instant,
}

/// The writing half.
pub(crate) struct Writing {
    pub(crate) writer: Writer,
    pub(crate) out: Outgoing,
    pub(crate) control: Control,
}

/// A client's connection: both halves and what is known of the client.
pub(crate) struct Link {
    pub(crate) reading: Reading,
    pub(crate) writing: Writing,
    pub(crate) about: About,
}

/// What is known of a client before it identifies.
#[derive(Clone)]
pub(crate) struct About {
    pub(crate) query: Query,
    pub(crate) peer: SocketAddr,
    /// Number of the connection within this process.
    pub(crate) number: u64,
    /// INVALID_SESSION was sent: the next IDENTIFY is paced.
    pub(crate) invalidated: bool,
    /// Another replica brings it.
    pub(crate) spliced: bool,
    /// The shard of ours that another replica wants for one leg of a client.
    pub(crate) leg: Option<ShardId>,
}

impl Reading {
    /// `limit`: payloads a minute, as Discord allows them.
    pub(crate) fn new(socket: Incoming, frames: FrameReader, encoding: Encoding, limit: usize) -> Self {
        const WINDOW: Duration = Duration::from_secs(60);
        Self {
            socket,
            frames,
            encoding,
            payloads: SendBudget::new(limit, 0, WINDOW),
            pings: SendBudget::new(MAX_PINGS, 0, WINDOW),
            since: Instant::now(),
        }
    }

    /// The next payload. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Payload, Ended> {
        loop {
            let kind = self.message().await?;
            let is_payload = matches!(kind, Kind::Text | Kind::Binary);
            let budget = if is_payload { &mut self.payloads } else { &mut self.pings };
            if budget.try_take(self.since.elapsed(), true).is_err() {
                let reason = "more payloads in a minute than Discord allows";
                return Err(Ended::Refused(Refused::new(4008, reason)));
            }
            if is_payload {
                return decode(self.frames.payload(), self.encoding).map_err(Ended::Refused);
            }
        }
    }

    /// The next message that isn't the last. Pings are answered.
    async fn message(&mut self) -> Result<Kind, Ended> {
        let kind = poll_fn(|cx| self.poll_message(cx)).await?;
        let gone = |_| Ended::Gone(None);
        let mut answer = Vec::new();
        match kind {
            Kind::Ping => {
                push(&mut answer, Opcode::Pong, self.frames.payload());
                self.socket.control().add(&answer).map_err(gone)?;
            }
            Kind::Close => {
                let body = self.frames.payload();
                push(&mut answer, Opcode::Close, &close_answer(body));
                self.socket.control().add(&answer).map_err(gone)?;
                return Err(Ended::Gone(read_close(body).0));
            }
            _ => {}
        }
        Ok(kind)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Kind, Ended>> {
        loop {
            if let Some(kind) = self.frames.next().map_err(broken)? {
                return Poll::Ready(Ok(kind));
            }
            self.frames.rest(0);
            match ready!(self.socket.poll_frames(cx, &mut self.frames)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(Ended::Gone(None))),
            }
        }
    }

    /// Reads on until the client is gone, so that what we wrote last isn't lost to a reset.
    async fn drain(&mut self) {
        loop {
            match self.message().await {
                Ok(_) => {}
                Err(Ended::Gone(_)) => return,
                Err(Ended::Refused(_)) => break,
            }
        }
        // What comes now is no WebSocket any more.
        let mut rest = vec![0; 4096];
        while matches!(self.socket.read(&mut rest).await, Ok(read) if read > 0) {}
    }
}

impl Writing {
    /// Writes what is waiting, as much as the socket takes; pending until that is everything. Adds what it has
    /// written to `turn`.
    pub(crate) fn poll_out(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> Poll<std::io::Result<()>> {
        let control = self.control.take();
        self.out.raw(&control);
        while !self.out.is_empty() {
            match ready!(self.writer.poll_write(cx, self.out.rest()))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                count => {
                    self.out.advance(count);
                    *turn += count;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything that is waiting.
    pub(crate) async fn flush(&mut self) -> std::io::Result<()> {
        self.out.raw(&self.control.take());
        while !self.out.is_empty() {
            let (writer, rest) = (&mut self.writer, self.out.rest());
            let written = std::future::poll_fn(|cx| writer.poll_write(cx, rest)).await?;
            self.out.advance(written);
        }
        std::future::poll_fn(|cx| self.writer.poll_flush(cx)).await
    }

    /// Writes one payload and everything before it.
    pub(crate) async fn send(&mut self, json: &[u8]) -> std::io::Result<()> {
        self.out.payload(json);
        self.flush().await
    }
}

impl Link {
    /// Closes with Discord's code: the frame is written before TCP closes, and the client gets a moment to
    /// read it.
    pub(crate) async fn close(mut self, refused: &Refused) {
        self.writing.out.close(refused.code, &refused.reason);
        let _ = timeout(CLOSE_WITHIN, async {
            self.writing.flush().await?;
            self.writing.writer.shutdown().await?;
            self.reading.drain().await;
            Ok::<_, std::io::Error>(())
        })
        .await;
    }
}

fn broken(error: FrameError) -> Ended {
    Ended::Refused(Refused::new(4002, error.to_string()))
}

fn decode(bytes: &[u8], encoding: Encoding) -> Result<Payload, Refused> {
    let wrong = |what: &str| Refused::new(4002, what);
    let mut value: Value = match encoding {
        Encoding::Json => serde_json::from_slice(bytes).map_err(|_| wrong("not JSON"))?,
        Encoding::Etf => etf::decode(bytes, MAX_DEPTH).map_err(|_| wrong("not ETF"))?,
    };
    let fields = value.as_object_mut().ok_or_else(|| wrong("a payload is an object"))?;
    let op = fields.get("op").and_then(Value::as_u64).ok_or_else(|| wrong("op is missing"))?;
    Ok(Payload { op, data: fields.remove("d").unwrap_or(Value::Null) })
}
