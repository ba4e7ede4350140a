// SPDX-License-Identifier: AGPL-3.0-only
//! The reading side of a connection. In: bytes, appended to the reader's buffer as they come. Out: messages, lent
//! until the next is asked for. A message in one frame, as nearly all are, is never copied; the parts of others are
//! joined. Owned by who owns the connection.

use std::ops::Range;

use super::write::xor;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
    /// To be answered with the same payload.
    Ping,
    /// The answer to a ping.
    Pong,
    /// The other side ends the connection.
    Close,
}

/// Why a connection can't be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// A message is larger than allowed.
    #[error("a payload is longer than {0} bytes")]
    TooLong(usize),
    /// What came is against RFC 6455.
    #[error("not a WebSocket frame: {0}")]
    Malformed(&'static str),
}

/// Reads one side's frames.
#[derive(Debug)]
pub(crate) struct FrameReader {
    masked: bool,
    max: usize,
    buffer: Vec<u8>,
    /// Everything before this has been read.
    at: usize,
    /// Bytes of the frame that begins at `at`, as far as is known.
    wanted: usize,
    message: Place,
    /// The parts so far of a message in several frames, how many there are, and what it is.
    parts: Vec<u8>,
    count: usize,
    begun: Option<Kind>,
}

/// Where the message that is lent lies.
#[derive(Clone, Debug)]
enum Place {
    Buffer(Range<usize>),
    Parts,
}

/// A frame in the buffer, without its mask.
struct Frame {
    is_final: bool,
    opcode: u8,
    payload: Range<usize>,
}

/// Room is made in such steps at most: a length that was only claimed costs nothing.
const STEP: usize = 1 << 20;
/// A message in more frames than this is meant to keep us busy: libraries cut at some kilobytes, or not at all.
const MAX_PARTS: usize = 1024;
/// Shorter than any header with a mask.
const SHORTEST: usize = 2;

impl FrameReader {
    /// `masked`: the other side is a client, whose frames are masked. `max`: bytes of a message. `first`: what has come
    /// behind the handshake.
    pub(crate) fn new(masked: bool, max: usize, first: Vec<u8>) -> Self {
        let message = Place::Buffer(0..0);
        let (at, wanted) = (0, SHORTEST);
        Self { masked, max, buffer: first, at, wanted, message, parts: Vec::new(), count: 0, begun: None }
    }

    /// Where what comes is to be appended; has room for `least` bytes, and for what is missing of a frame, in steps.
    pub(crate) fn space(&mut self, least: usize) -> &mut Vec<u8> {
        self.rest(usize::MAX);
        let have = self.buffer.len() - self.at;
        let missing = self.wanted.saturating_sub(have).clamp(least.min(STEP), STEP.max(least));
        if self.buffer.capacity() - self.buffer.len() < missing {
            self.buffer.drain(..self.at);
            self.at = 0;
            self.buffer.reserve(missing);
        }
        &mut self.buffer
    }

    /// Gives memory back, where nothing has begun and more than `keep` bytes of it are held.
    pub(crate) fn rest(&mut self, keep: usize) {
        self.let_go();
        if self.at < self.buffer.len() {
            return;
        }
        self.at = 0;
        self.buffer.clear();
        if self.buffer.capacity() > keep {
            self.buffer = Vec::new();
        }
    }

    /// Goes to the next message, if it is there whole.
    ///
    /// # Errors
    /// See [`FrameError`]; nothing can be read any more.
    pub(crate) fn next(&mut self) -> Result<Option<Kind>, FrameError> {
        self.let_go();
        while let Some(frame) = self.frame()? {
            let Some(kind) = self.take(frame)? else { continue };
            if kind == Kind::Text && simdutf8::basic::from_utf8(self.payload()).is_err() {
                return Err(FrameError::Malformed("text that is not UTF-8"));
            }
            return Ok(Some(kind));
        }
        Ok(None)
    }

    /// The message that [`FrameReader::next`] went to.
    pub(crate) fn payload(&self) -> &[u8] {
        match &self.message {
            Place::Buffer(range) => &self.buffer[range.clone()],
            Place::Parts => &self.parts,
        }
    }

    /// The message that was lent is over.
    fn let_go(&mut self) {
        if matches!(self.message, Place::Parts) {
            self.parts = Vec::new();
            self.count = 0;
        }
        self.message = Place::Buffer(0..0);
    }

    /// A frame's part in its message; what the message is, once it is whole.
    fn take(&mut self, frame: Frame) -> Result<Option<Kind>, FrameError> {
        let control = match frame.opcode {
            8 => Some(Kind::Close),
            9 => Some(Kind::Ping),
            10 => Some(Kind::Pong),
            _ => None,
        };
        if control.is_some() {
            if control == Some(Kind::Close) && frame.payload.len() == 1 {
                return Err(FrameError::Malformed("a close with half a code"));
            }
            self.message = Place::Buffer(frame.payload);
            return Ok(control);
        }
        let kind = match (frame.opcode, self.begun) {
            (0, Some(kind)) => kind,
            (1, None) => Kind::Text,
            (2, None) => Kind::Binary,
            (0, None) => return Err(FrameError::Malformed("a message goes on that has not begun")),
            (1 | 2, Some(_)) => return Err(FrameError::Malformed("a message begins within another")),
            _ => return Err(FrameError::Malformed("an unknown opcode")),
        };
        if frame.is_final && self.begun.is_none() {
            self.message = Place::Buffer(frame.payload);
            return Ok(Some(kind));
        }
        self.count += 1;
        if self.count > MAX_PARTS {
            return Err(FrameError::Malformed("a message in too many parts"));
        }
        self.parts.extend_from_slice(&self.buffer[frame.payload]);
        self.begun = (!frame.is_final).then_some(kind);
        if frame.is_final {
            self.message = Place::Parts;
        }
        Ok(frame.is_final.then_some(kind))
    }

    /// The next frame, if it is there whole.
    fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((first, len, body)) = self.header()? else { return Ok(None) };
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
        let is_control = opcode >= 8;
        if is_control && (len > 125 || !is_final) {
            return Err(FrameError::Malformed("a control frame that is long or in parts"));
        }
        let room = if is_control { 125 } else { self.max.saturating_sub(self.parts.len()) };
        let len = usize::try_from(len).ok().filter(|len| *len <= room);
        let len = len.ok_or(FrameError::TooLong(self.max))?;
        let mask = if self.masked { 4 } else { 0 };
        self.wanted = body + mask + len;
        let from = self.at + body;
        let payload = from + mask..from + mask + len;
        if payload.end > self.buffer.len() {
            return Ok(None);
        }
        if let Some(key) = self.buffer[from..from + mask].first_chunk::<4>().copied() {
            xor(&mut self.buffer[payload.clone()], key);
        }
        self.at = payload.end;
        self.wanted = SHORTEST;
        Ok(Some(Frame { is_final, opcode, payload }))
    }

    /// The first byte of the next frame, its payload's length, and the header's own without a mask.
    fn header(&mut self) -> Result<Option<(u8, u64, usize)>, FrameError> {
        let bytes = &self.buffer[self.at..];
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(FrameError::Malformed("a reserved bit is set"));
        }
        if (second & 0x80 != 0) != self.masked {
            let side = if self.masked { "a frame without a mask" } else { "a frame with a mask" };
            return Err(FrameError::Malformed(side));
        }
        let (len, body, least) = match second & 0x7f {
            126 => match rest.first_chunk::<2>() {
                Some(len) => (u64::from(u16::from_be_bytes(*len)), 4, 126),
                None => {
                    self.wanted = 4;
                    return Ok(None);
                }
            },
            127 => match rest.first_chunk::<8>() {
                Some(len) => (u64::from_be_bytes(*len), 10, 1 << 16),
                None => {
                    self.wanted = 10;
                    return Ok(None);
                }
            },
            short => (u64::from(short), 2, 0),
        };
        if len < least {
            return Err(FrameError::Malformed("a length in more bytes than it needs"));
        }
        Ok(Some((*first, len, body)))
    }
}
