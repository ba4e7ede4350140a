// SPDX-License-Identifier: AGPL-3.0-only
//! What the WebSocket library sees of a connection: the response's head, and not a byte behind it. In: a transport.
//! Out: the same, with what was read too early, once the library is done with the handshake.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// See the module's documentation.
pub(super) struct Handshake<T> {
    transport: T,
    read: Vec<u8>,
    /// So much of `read` was given to the library.
    given: usize,
    /// Where the head ends in `read`.
    end: Option<usize>,
}

/// A response's head is a few hundred bytes; with what a proxy adds, still well below this.
const MAX_HEAD: usize = 16 * 1024;
const END: &[u8] = b"\r\n\r\n";

impl<T> Handshake<T> {
    pub(super) fn new(transport: T) -> Self {
        Self { transport, read: Vec::new(), given: 0, end: None }
    }

    /// The transport, and what came behind the head.
    pub(super) fn into_parts(mut self) -> (T, Vec<u8>) {
        let first = self.read.split_off(self.end.unwrap_or(self.read.len()));
        (self.transport, first)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Handshake<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end.is_none() && this.given == this.read.len() {
            if this.read.len() >= MAX_HEAD {
                return Poll::Ready(Err(io::Error::other("the answer to the upgrade is too long")));
            }
            this.read.reserve(4096);
            ready!(poll_read_buf(Pin::new(&mut this.transport), cx, &mut this.read))?;
            let from = this.given.saturating_sub(END.len() - 1);
            let found = memchr::memmem::find(&this.read[from..], END);
            this.end = found.map(|at| from + at + END.len());
        }
        let until = this.end.unwrap_or(this.read.len());
        let count = buf.remaining().min(until - this.given);
        buf.put_slice(&this.read[this.given..this.given + count]);
        this.given += count;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Handshake<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn nothing_behind_the_head_is_given_out_however_it_comes() {
        let bytes = b"HTTP/1.1 101 Switching Protocols\r\na: b\r\n\r\n\x81\x02{}";
        let head = bytes.len() - 4;
        for cut in 1..bytes.len() {
            let (mut far, near) = tokio::io::duplex(256);
            let mut handshake = Handshake::new(near);
            let mut seen = vec![0; head];
            let reading = handshake.read_exact(&mut seen);
            let writing = async {
                far.write_all(&bytes[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                far.write_all(&bytes[cut..]).await.unwrap();
            };
            let (read, ()) = tokio::join!(reading, writing);
            read.unwrap();
            assert_eq!(seen, bytes[..head]);
            let (mut near, mut first) = handshake.into_parts();
            drop(far);
            near.read_to_end(&mut first).await.unwrap();
            assert_eq!(first, b"\x81\x02{}");
        }
    }
}
