// SPDX-License-Identifier: AGPL-3.0-only
//! The client's side of RFC 6455, as far as a gateway needs it, with as few copies as possible.
//! In: bytes of a TCP connection. Out: messages that borrow from the one read buffer.
//! Each connection's reader owns its buffer; frames to send are built whole.

use std::{net::SocketAddr, ops::Range};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Read buffer at the start: a burst of some two hundred events, or one large guild.
const BUFFER: usize = 256 << 10;
/// Largest frame that is taken.
const MAX_FRAME: usize = 64 << 20;
/// A read has at least this much room.
const ROOM: usize = 64 << 10;
/// Longest answer to the upgrade.
const MAX_HEAD: usize = 16 << 10;
/// Masks need not be secret between two processes of one machine.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

/// What the server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A text or binary message, and the bytes of its frames on the wire.
    Data { payload: &'a [u8], wire: usize },
    /// A ping, to be answered with the same bytes.
    Ping(&'a [u8]),
    /// The server closes: code and reason.
    Close(u16, String),
}

/// The receiving half of a connection.
pub(crate) struct Reader {
    stream: OwnedReadHalf,
    bytes: Unread,
}

impl Reader {
    /// Connects and upgrades; `query` stands behind the gateway's path.
    pub(super) async fn connect(address: SocketAddr, query: &str) -> Result<(Self, OwnedWriteHalf)> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let (stream, mut writer) = stream.into_split();
        let request = format!(
            "GET /{query} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aG9sZGZhc3QgYmVuY2ghIQ==\r\n\r\n"
        );
        writer.write_all(request.as_bytes()).await?;
        let mut reader = Self { stream, bytes: Unread::default() };
        loop {
            reader.fill().await?;
            if reader.bytes.skip_upgrade()? {
                return Ok((reader, writer));
            }
        }
    }

    /// Waits for more bytes.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        let room = self.bytes.room()?;
        let read = self.stream.read(room).await?;
        if read == 0 {
            bail!("the connection ended without a close frame");
        }
        self.bytes.end += read;
        Ok(())
    }

    /// The next message among the bytes at hand.
    pub(crate) fn next(&mut self) -> Result<Option<Message<'_>>> {
        self.bytes.message()
    }
}

/// Bytes that were received and not yet taken.
#[derive(Default)]
struct Unread {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// A fragmented message so far, and its bytes on the wire.
    partial: Vec<u8>,
    partial_wire: usize,
}

/// One frame: opcode, whether it ends its message, where its payload stands.
struct Frame {
    opcode: u8,
    last: bool,
    payload: Range<usize>,
    wire: usize,
}

impl Unread {
    /// Room for a read behind the bytes at hand, moving or growing where there is little.
    fn room(&mut self) -> Result<&mut [u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < ROOM && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() - self.end < ROOM {
            if self.buffer.len() > MAX_FRAME {
                bail!("a frame of more than {MAX_FRAME} bytes");
            }
            self.buffer.resize((self.buffer.len() * 2).max(BUFFER), 0);
        }
        Ok(&mut self.buffer[self.end..])
    }

    /// Takes the answer to the upgrade, if it is there whole.
    fn skip_upgrade(&mut self) -> Result<bool> {
        let at_hand = &self.buffer[self.start..self.end];
        let Some(length) = memchr::memmem::find(at_hand, b"\r\n\r\n") else {
            if at_hand.len() > MAX_HEAD {
                bail!("an endless answer to the upgrade");
            }
            return Ok(false);
        };
        let head = String::from_utf8_lossy(&at_hand[..length]);
        if head.split(' ').nth(1) != Some("101") {
            bail!("no upgrade: {}", head.lines().next().unwrap_or_default());
        }
        self.start += length + 4;
        Ok(true)
    }

    fn message(&mut self) -> Result<Option<Message<'_>>> {
        while let Some(frame) = self.frame()? {
            let payload = frame.payload;
            match frame.opcode {
                0x1 | 0x2 if frame.last => {
                    return Ok(Some(Message::Data { payload: &self.buffer[payload], wire: frame.wire }));
                }
                0x0..=0x2 => {
                    if frame.opcode != 0 {
                        self.partial.clear();
                        self.partial_wire = 0;
                    }
                    self.partial.extend_from_slice(&self.buffer[payload]);
                    self.partial_wire += frame.wire;
                    if frame.last {
                        return Ok(Some(Message::Data { payload: &self.partial, wire: self.partial_wire }));
                    }
                }
                0x8 => return Ok(Some(close(&self.buffer[payload]))),
                0x9 => return Ok(Some(Message::Ping(&self.buffer[payload]))),
                0xa => {}
                opcode => bail!("a frame with the unknown opcode {opcode}"),
            }
        }
        Ok(None)
    }

    /// Takes one frame, if it is there whole.
    fn frame(&mut self) -> Result<Option<Frame>> {
        let at_hand = &self.buffer[self.start..self.end];
        let [first, second, rest @ ..] = at_hand else { return Ok(None) };
        if second & 0x80 != 0 || first & 0x70 != 0 {
            bail!("a masked frame, or one of an extension, from a server");
        }
        let (length, header) = match second {
            126 => match rest.first_chunk::<2>() {
                Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(length) => (u64::from_be_bytes(*length) as usize, 10),
                None => return Ok(None),
            },
            short => (usize::from(*short), 2),
        };
        if length > MAX_FRAME {
            bail!("a frame of {length} bytes");
        }
        let wire = header + length;
        if at_hand.len() < wire {
            return Ok(None);
        }
        let payload = self.start + header..self.start + wire;
        let frame = Frame { opcode: first & 0x0f, last: first & 0x80 != 0, payload, wire };
        self.start += wire;
        Ok(Some(frame))
    }
}

fn close(payload: &[u8]) -> Message<'static> {
    // 1005: RFC 6455's name for a close frame without a code.
    let code = payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
    Message::Close(code, String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned())
}

/// A whole text frame, masked.
pub(super) fn text(payload: &[u8]) -> Vec<u8> {
    frame(0x1, payload)
}

/// A whole pong frame, masked.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    frame(0xa, payload)
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length => {
            // What a gateway takes is far below 65,536 bytes.
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let long = vec![b'x'; 70_000];
        let wire =
            [server(0x81, b"one"), server(0x82, &long), server(0x89, b"p"), server(0x81, b"two")].concat();
        for step in [1, 2, 3, 1000, 65_536, wire.len()] {
            let mut unread = Unread::default();
            let mut seen = Vec::new();
            for part in wire.chunks(step) {
                push(&mut unread, part);
                while let Some(message) = unread.message().unwrap() {
                    match message {
                        Message::Data { payload, wire } => seen.push((payload.len(), wire)),
                        other => assert_eq!(other, Message::Ping(b"p")),
                    }
                }
            }
            assert_eq!(seen, [(3, 5), (70_000, 70_010), (3, 5)], "in steps of {step}");
        }
    }

    #[test]
    fn fragments_are_joined_with_a_ping_between_them() {
        let mut unread = Unread::default();
        push(&mut unread, &[server(0x01, b"ab"), server(0x89, b""), server(0x80, b"cd")].concat());
        assert_eq!(unread.message().unwrap(), Some(Message::Ping(b"")));
        assert_eq!(unread.message().unwrap(), Some(Message::Data { payload: b"abcd", wire: 8 }));
    }

    #[test]
    fn a_close_tells_code_and_reason() {
        let mut unread = Unread::default();
        push(&mut unread, &server(0x88, b"\x0f\xa4wrong token"));
        assert_eq!(unread.message().unwrap(), Some(Message::Close(4004, "wrong token".into())));
        assert_eq!(close(b""), Message::Close(1005, String::new()));
    }

    #[test]
    fn what_a_server_may_not_send_is_an_error() {
        for wire in [&[0x81, 0x80, 0, 0, 0, 0][..], &[0xc1, 0], &[0x83, 0]] {
            let mut unread = Unread::default();
            push(&mut unread, wire);
            assert!(unread.message().is_err(), "{wire:x?}");
        }
    }

    #[test]
    fn bytes_behind_the_upgrade_belong_to_the_first_frame() {
        let mut unread = Unread::default();
        push(&mut unread, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n");
        assert!(!unread.skip_upgrade().unwrap());
        push(&mut unread, &[b"\r\n".to_vec(), server(0x81, b"hi")].concat());
        assert!(unread.skip_upgrade().unwrap());
        assert_eq!(unread.message().unwrap(), Some(Message::Data { payload: b"hi", wire: 4 }));

        let mut refused = Unread::default();
        push(&mut refused, b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
        assert!(refused.skip_upgrade().is_err());
    }

    #[test]
    fn what_is_sent_is_masked_and_has_its_length() {
        for length in [0, 125, 126, 4096] {
            let payload = vec![b'a'; length];
            let wire = text(&payload);
            let header = if length < 126 { 2 } else { 4 };
            assert_eq!(wire.len(), header + 4 + length);
            assert_eq!((wire[0], wire[1] & 0x80), (0x81, 0x80));
            let masked = wire[header + 4..].iter().zip(MASK.iter().cycle());
            assert!(masked.map(|(byte, mask)| byte ^ mask).eq(payload));
        }
    }

    fn push(unread: &mut Unread, bytes: &[u8]) {
        let room = unread.room().unwrap();
        room[..bytes.len()].copy_from_slice(bytes);
        unread.end += bytes.len();
    }

    fn server(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            length @ 0..126 => out.push(length as u8),
            length @ 126..65_536 => {
                out.push(126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                out.push(127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
        out
    }
}
