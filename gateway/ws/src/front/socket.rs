// SPDX-License-Identifier: AGPL-3.0-only
//! A client's socket in two halves: what frames are read from, and what we write to.
//!
//! What answers a client at once (the library's response to the upgrade, pongs, the answer to a close) is gathered in
//! [`Control`], so that our writer puts it between whole frames. Frames of events go from the log to the [`Writer`].

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tokio_util::io::poll_read_buf;

use crate::frames::FrameReader;

/// Pongs and a close that wait to be written: a client that floods us with pings and doesn't read is cut off.
const MAX_CONTROL: usize = 16 * 1024;

/// What Discord takes of a client at most, and a frame's header.
const READ: usize = 4096 + 14;

/// The reading side: the library's up to the upgrade, then that of our frames.
pub(crate) struct Incoming {
    side: ReadSide,
    /// The request's head, which was read before the library took over.
    head: Vec<u8>,
    head_at: usize,
    control: Control,
}

/// What the reading side wants written: the upgrade's response, pongs, the answer to a close. Shared by the two halves,
/// which one task owns.
#[derive(Clone, Default)]
pub(crate) struct Control(Arc<Mutex<Vec<u8>>>);

impl Control {
    /// Takes what is waiting.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds what is to be written; an error if too much is waiting already.
    pub(crate) fn add(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() + bytes.len() > MAX_CONTROL {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "the client doesn't read its pongs"));
        }
        waiting.extend_from_slice(bytes);
        Ok(bytes.len())
    }
}

enum ReadSide {
    Plain(Arc<TcpStream>),
    Tls(ReadHalf<TlsStream<TcpStream>>),
}

/// Our side: writes to the socket, as much as it takes.
pub(crate) enum Writer {
    /// A TCP connection, shared with the reading side.
    Plain(Arc<TcpStream>),
    /// The writing half of a TLS connection.
    Tls(WriteHalf<TlsStream<TcpStream>>),
}

/// Splits a plain connection.
pub(crate) fn plain(tcp: TcpStream) -> (Incoming, Writer) {
    let tcp = Arc::new(tcp);
    (Incoming::new(ReadSide::Plain(Arc::clone(&tcp))), Writer::Plain(tcp))
}

/// Splits a TLS connection.
pub(crate) fn tls(stream: TlsStream<TcpStream>) -> (Incoming, Writer) {
    let (read, write) = tokio::io::split(stream);
    (Incoming::new(ReadSide::Tls(read)), Writer::Tls(write))
}

impl Incoming {
    fn new(side: ReadSide) -> Self {
        Self { side, head: Vec::new(), head_at: 0, control: Control::default() }
    }

    /// What the reading side writes.
    pub(crate) fn control(&self) -> Control {
        self.control.clone()
    }

    /// Gives the request's head back: the next reads see it first.
    pub(crate) fn unread(&mut self, head: Vec<u8>) {
        self.head = head;
        self.head_at = 0;
    }

    /// Reads what has come, as one read takes it. Holds no memory while nothing comes. 0: the client has ended.
    pub(crate) fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut FrameReader,
    ) -> Poll<io::Result<usize>> {
        match &mut self.side {
            ReadSide::Tls(tls) => {
                let read = poll_read_buf(Pin::new(tls), cx, frames.space(READ));
                if read.is_pending() {
                    frames.rest(0);
                }
                read
            }
            ReadSide::Plain(tcp) => loop {
                ready!(tcp.poll_read_ready(cx))?;
                match tcp.try_read_buf(frames.space(READ)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => frames.rest(0),
                    read => return Poll::Ready(read),
                }
            },
        }
    }
}

impl AsyncRead for Incoming {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.head_at < this.head.len() {
            let rest = &this.head[this.head_at..];
            let take = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..take]);
            this.head_at += take;
            if this.head_at == this.head.len() {
                this.head = Vec::new();
                this.head_at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        match &mut this.side {
            ReadSide::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            ReadSide::Plain(tcp) => loop {
                ready!(tcp.poll_read_ready(cx))?;
                match tcp.try_read(buf.initialize_unfilled()) {
                    Ok(read) => {
                        buf.advance(read);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            },
        }
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.control.add(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Writer {
    /// Writes what the socket takes; pending when it takes nothing.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => loop {
                ready!(tcp.poll_write_ready(cx))?;
                match tcp.try_write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    written => return Poll::Ready(written),
                }
            },
            Self::Tls(tls) => {
                let written = ready!(Pin::new(&mut *tls).poll_write(cx, bytes))?;
                // What TLS keeps in its own buffer goes out now; what doesn't will with the next write.
                if let Poll::Ready(Err(error)) = Pin::new(tls).poll_flush(cx) {
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(written))
            }
        }
    }

    /// Pushes out what lies in TLS's own buffer.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = std::future::poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Tells the other side that nothing more comes, after all that was written.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => socket2::SockRef::from(&**tcp).shutdown(std::net::Shutdown::Write),
            Self::Tls(tls) => tokio::io::AsyncWriteExt::shutdown(tls).await,
        }
    }
}
