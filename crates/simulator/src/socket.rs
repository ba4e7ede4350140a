// SPDX-License-Identifier: AGPL-3.0-only
//! The TCP side of a gateway connection: the upgrade's query, reading, and the ways to end.
//!
//! In: a stream. Out: bytes for the WebSocket library, and FIN or RST exactly as asked for.
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::connection::{End, PATIENCE};
use crate::faults::Cut;
use crate::hub::lock;

pub(crate) async fn write_all(tcp: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        tcp.writable().await?;
        match tcp.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends the TCP connection as `end` says.
pub(crate) async fn finish(tcp: Arc<TcpStream>, end: End) {
    let socket = SockRef::from(&*tcp);
    match end {
        End::Cut(Cut::Rst) => {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        End::Cut(Cut::FinRst) => {
            let _ = socket.shutdown(std::net::Shutdown::Write);
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        End::Cut(Cut::Fin) | End::Peer(_) | End::Stopped => {
            let _ = socket.shutdown(std::net::Shutdown::Write);
            if end != End::Stopped {
                // Unread bytes at close would turn our FIN into a RST.
                let _ = tokio::time::timeout(PATIENCE, drain(&tcp)).await;
            }
        }
    }
}

async fn drain(tcp: &TcpStream) {
    let mut space = [0; 4096];
    while tcp.readable().await.is_ok() {
        match tcp.try_read(&mut space) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// The reading half for the WebSocket library; what it wants to write (pongs, close frames) is collected, so that
/// it never lands inside a frame of ours.
pub(crate) struct Inbound {
    pub(crate) tcp: Arc<TcpStream>,
    pub(crate) replies: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Inbound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.tcp.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.replies).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The gateway URL's query (events/gateway, "Gateway URL Query String Params").
#[derive(Default)]
pub(crate) struct Query {
    version: Option<String>,
    pub(crate) encoding: Option<String>,
    pub(crate) compress: Option<String>,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (key, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "v" => query.version = Some(value.to_owned()),
                "encoding" => query.encoding = Some(value.to_owned()),
                "compress" => query.compress = Some(value.to_owned()),
                _ => {}
            }
        }
        query
    }

    /// The close that the query earns.
    pub(crate) fn fault(&self) -> Option<(u16, &'static str)> {
        if self.version.as_deref() != Some("10") {
            return Some((4012, "Invalid API version."));
        }
        if !matches!(self.encoding.as_deref(), None | Some("json" | "etf")) {
            return Some((4002, "Invalid encoding."));
        }
        if !matches!(self.compress.as_deref(), None | Some("" | "zlib-stream" | "zstd-stream")) {
            return Some((4002, "Invalid compression."));
        }
        None
    }
}
