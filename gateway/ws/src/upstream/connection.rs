// SPDX-License-Identifier: AGPL-3.0-only
//! One open connection to Discord. In: WebSocket messages. Out: inflated payloads, lent until the next.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use holdfast_discord::compress::Inflater;
use tokio::{io::BufReader, time::timeout};
use tokio_websockets::{CloseCode, Message, WebSocketStream};

use super::connect::Transport;
use crate::settings::Compression;

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

/// A payload's buffer is given back to the allocator when a large payload (a guild) has made it larger
/// than this.
const KEEP_BUFFER: usize = 256 * 1024;

/// A WebSocket to Discord with its decompression.
pub(crate) struct Connection {
    socket: WebSocketStream<BufReader<Transport>>,
    inflater: Inflater,
    plain: bool,
    max_payload: usize,
    payload: Vec<u8>,
    /// Whether `payload` is whole: a zlib-stream's message may come in several WebSocket messages.
    whole: bool,
    message: Option<Message>,
}

impl Connection {
    pub(super) fn new(
        socket: WebSocketStream<BufReader<Transport>>,
        compression: Compression,
        max_payload: usize,
    ) -> Self {
        let inflater = match compression {
            Compression::None => Inflater::none(),
            Compression::ZlibStream => Inflater::zlib_stream(),
            Compression::ZstdStream => Inflater::zstd_stream(),
        };
        let plain = compression == Compression::None;
        Self { socket, inflater, plain, max_payload, payload: Vec::new(), whole: true, message: None }
    }

    /// Waits for the next payload; read it with [`Connection::payload`]. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<(), Closed> {
        loop {
            let message = self.socket.next().await;
            if self.take(message)? {
                return Ok(());
            }
        }
    }

    /// Takes the next payload if one is there already.
    pub(crate) fn try_next(&mut self) -> Result<bool, Closed> {
        while let Some(message) = self.socket.next().now_or_never() {
            if self.take(message)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The payload that [`Connection::next`] or [`Connection::try_next`] took.
    pub(crate) fn payload(&self) -> &[u8] {
        match &self.message {
            Some(message) => message.as_payload(),
            None => &self.payload,
        }
    }

    /// Sends one payload.
    pub(crate) async fn send(&mut self, payload: Vec<u8>) -> Result<(), Closed> {
        let text = String::from_utf8(payload)
            .map_err(|_| Closed { code: None, reason: "a payload that is not UTF-8 was not sent".into() })?;
        match timeout(SEND_WITHIN, self.socket.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(lost(&error)),
            Err(_) => Err(Closed { code: None, reason: "sending took too long".into() }),
        }
    }

    /// Closes with `code`, giving Discord a moment to answer.
    pub(crate) async fn close(mut self, code: u16) {
        self.say_close(code).await;
        self.answered().await;
    }

    /// Says that it is over; [`Connection::answered`] follows.
    pub(crate) async fn say_close(&mut self, code: u16) {
        let Ok(code) = CloseCode::try_from(code) else { return };
        // Who can't be told has lost the connection already.
        let _ = timeout(CLOSE_WITHIN, self.socket.send(Message::close(Some(code), ""))).await;
    }

    /// Gives Discord a moment to answer the close.
    pub(crate) async fn answered(mut self) {
        let _ = timeout(CLOSE_WITHIN, async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
    }

    fn take(&mut self, message: Option<Result<Message, tokio_websockets::Error>>) -> Result<bool, Closed> {
        let message = match message {
            None => return Err(Closed { code: None, reason: "the connection ended".into() }),
            Some(Err(error)) => return Err(lost(&error)),
            Some(Ok(message)) => message,
        };
        if let Some((code, reason)) = message.as_close() {
            return Err(Closed { code: Some(code.into()), reason: format!("closed: {reason}") });
        }
        if !message.is_text() && !message.is_binary() {
            return Ok(false);
        }
        if self.plain && message.is_text() {
            self.message = Some(message);
            return Ok(true);
        }
        self.message = None;
        if self.whole {
            if self.payload.capacity() > KEEP_BUFFER {
                self.payload = Vec::new();
            }
            self.payload.clear();
        }
        self.whole = self
            .inflater
            .push(message.as_payload(), &mut self.payload, self.max_payload)
            .map_err(|error| Closed { code: None, reason: format!("not to be inflated: {error}") })?;
        Ok(self.whole)
    }
}

fn lost(error: &tokio_websockets::Error) -> Closed {
    Closed { code: None, reason: error.to_string() }
}
