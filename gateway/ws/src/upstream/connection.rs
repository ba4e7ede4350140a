// SPDX-License-Identifier: AGPL-3.0-only
//! One open connection to Discord. In: WebSocket messages. Out: inflated payloads, lent until the next.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt;
use holdfast_discord::compress::Inflater;
use tokio::{io::AsyncWrite, time::timeout};
use tokio_util::io::poll_read_buf;

use super::connect::Transport;
use crate::{
    frames::{FrameReader, Kind, Opcode, close_answer, close_body, push_masked, read_close},
    settings::Compression,
};

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Closed {
    /// Discord's close code, if a close frame came.
    pub(crate) code: Option<u16>,
    /// What to say in a log.
    pub(crate) reason: String,
}

/// A send that doesn't leave in this time: the connection is as good as dead.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// How long a close handshake may take before the socket is dropped.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// A buffer is given back to the allocator when a large payload (a guild) has made it larger than this.
const KEEP_BUFFER: usize = 256 * 1024;

/// One read takes in about thirty events when many have come at once, and up to twice as many where that goes on.
const READ: usize = 32 * 1024;

/// Pongs that wait to be written: whoever pings this much and doesn't read is no gateway.
const MAX_WAITING: usize = 16 * 1024;

/// A WebSocket to Discord with its decompression.
pub(crate) struct Connection {
    transport: Transport,
    frames: FrameReader,
    /// What goes out, and how much of it has.
    out: Vec<u8>,
    written: usize,
    inflater: Inflater,
    plain: bool,
    max_payload: usize,
    payload: Vec<u8>,
    /// Whether `payload` is whole: a zlib-stream's message may come in several WebSocket messages.
    whole: bool,
    /// The payload is the frame's own.
    lent: bool,
}

impl Connection {
    /// `first`: what has come behind the handshake.
    pub(super) fn new(
        transport: Transport,
        first: Vec<u8>,
        compression: Compression,
        max_payload: usize,
    ) -> Self {
        let inflater = match compression {
            Compression::None => Inflater::none(),
            Compression::ZlibStream => Inflater::zlib_stream(),
            Compression::ZstdStream => Inflater::zstd_stream(),
        };
        Self {
            transport,
            frames: FrameReader::new(false, max_payload, first),
            out: Vec::new(),
            written: 0,
            inflater,
            plain: compression == Compression::None,
            max_payload,
            payload: Vec::new(),
            whole: true,
            lent: false,
        }
    }

    /// Waits for the next payload; read it with [`Connection::payload`]. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<(), Closed> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Takes the next payload if one is there already.
    pub(crate) fn try_next(&mut self) -> Result<bool, Closed> {
        self.next().now_or_never().transpose().map(|next| next.is_some())
    }

    /// The payload that [`Connection::next`] or [`Connection::try_next`] took.
    pub(crate) fn payload(&self) -> &[u8] {
        if self.lent { self.frames.payload() } else { &self.payload }
    }

    /// Sends one payload.
    pub(crate) async fn send(&mut self, payload: Vec<u8>) -> Result<(), Closed> {
        if std::str::from_utf8(&payload).is_err() {
            return Err(lost("a payload that is not UTF-8 was not sent"));
        }
        self.write(Opcode::Text, &payload);
        match timeout(SEND_WITHIN, poll_fn(|cx| self.poll_flush(cx))).await {
            Ok(sent) => sent.map_err(lost),
            Err(_) => Err(lost("sending took too long")),
        }
    }

    /// Closes with `code`, giving Discord a moment to answer.
    pub(crate) async fn close(mut self, code: u16) {
        self.say_close(code).await;
        self.answered().await;
    }

    /// Says that it is over; [`Connection::answered`] follows.
    pub(crate) async fn say_close(&mut self, code: u16) {
        self.write(Opcode::Close, &close_body(code, ""));
        // Who can't be told has lost the connection already.
        let _ = timeout(CLOSE_WITHIN, poll_fn(|cx| self.poll_flush(cx))).await;
    }

    /// Gives Discord a moment to answer the close.
    pub(crate) async fn answered(mut self) {
        let _ = timeout(CLOSE_WITHIN, async { while self.next().await.is_ok() {} }).await;
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        loop {
            while let Some(kind) = self.frames.next().map_err(lost)? {
                if self.take(kind, cx)? {
                    return Poll::Ready(Ok(()));
                }
            }
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(lost(error)));
            }
            self.frames.rest(KEEP_BUFFER);
            let space = self.frames.space(READ);
            if ready!(poll_read_buf(Pin::new(&mut self.transport), cx, space)).map_err(lost)? == 0 {
                return Poll::Ready(Err(lost("the connection ended")));
            }
        }
    }

    /// Takes a message; true if that made a payload whole.
    fn take(&mut self, kind: Kind, cx: &mut Context<'_>) -> Result<bool, Closed> {
        match kind {
            Kind::Text if self.plain => {
                self.lent = true;
                Ok(true)
            }
            Kind::Text | Kind::Binary => self.inflate(),
            Kind::Pong => Ok(false),
            Kind::Ping => {
                let ping = self.frames.payload();
                push_masked(&mut self.out, Opcode::Pong, ping, fastrand::u32(..).to_ne_bytes());
                if self.out.len() > MAX_WAITING { Err(lost("pongs aren't read")) } else { Ok(false) }
            }
            Kind::Close => {
                let (code, reason) = read_close(self.frames.payload());
                let closed = Closed { code, reason: format!("closed: {reason}") };
                let answer = close_answer(self.frames.payload());
                self.write(Opcode::Close, &answer);
                // The answer goes out if the socket takes it now.
                let _ = self.poll_flush(cx);
                Err(closed)
            }
        }
    }

    fn inflate(&mut self) -> Result<bool, Closed> {
        self.lent = false;
        if self.whole {
            if self.payload.capacity() > KEEP_BUFFER {
                self.payload = Vec::new();
            }
            self.payload.clear();
        }
        let whole = self.inflater.push(self.frames.payload(), &mut self.payload, self.max_payload);
        self.whole = whole.map_err(|error| lost(format!("not to be inflated: {error}")))?;
        Ok(self.whole)
    }

    fn write(&mut self, opcode: Opcode, payload: &[u8]) {
        push_masked(&mut self.out, opcode, payload, fastrand::u32(..).to_ne_bytes());
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut transport = Pin::new(&mut self.transport);
        while self.written < self.out.len() {
            match ready!(transport.as_mut().poll_write(cx, &self.out[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.out.clear();
        self.written = 0;
        transport.poll_flush(cx)
    }
}

fn lost(reason: impl ToString) -> Closed {
    Closed { code: None, reason: reason.to_string() }
}
