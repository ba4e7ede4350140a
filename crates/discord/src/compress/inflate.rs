// SPDX-License-Identifier: AGPL-3.0-only
//! Reading side of a compressed connection.
//! In: WebSocket frames. Out: payloads, appended to a buffer of the caller's, never beyond a bound.
//! Owned by the task that reads the connection; after an error the connection is lost.

use flate2::{Decompress, FlushDecompress};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::ZLIB_SUFFIX;

/// Why a frame could not be inflated. The context is unusable afterwards: close the connection.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// The payload is larger than allowed.
    #[error("the payload is larger than {0} bytes once inflated")]
    TooLarge(usize),
    /// The frame isn't what the connection's compression makes.
    #[error("the frame is not valid {0}")]
    Corrupt(&'static str),
}

/// What stands before the first byte of a message, as far as the suffix is concerned.
const NO_SUFFIX: [u8; 4] = [0xaa; 4];

/// A connection's decompressor.
pub struct Inflater {
    kind: Kind,
    /// Bytes of the current payload in the caller's buffer.
    produced: usize,
}

enum Kind {
    Plain,
    ZlibPayload(Decompress),
    ZlibStream(ZlibStream),
    ZstdStream(Decoder<'static>),
}

impl Inflater {
    /// Largest window that a zstd stream may ask for: 2^24 is 16 MiB, 64 times what Discord is known to use,
    /// and an eighth of what zstd itself would allow.
    const ZSTD_WINDOW_LOG: u32 = 24;
    /// What a frame is taken to grow to at first.
    const RATIO: usize = 4;

    /// No compression: every frame is a payload.
    #[must_use]
    pub fn none() -> Self {
        Self::of(Kind::Plain)
    }

    /// Payload compression: a frame is a zlib stream of its own, or not compressed; its first bytes tell.
    #[must_use]
    pub fn zlib_payload() -> Self {
        Self::of(Kind::ZlibPayload(Decompress::new(true)))
    }

    /// `compress=zlib-stream`: one zlib stream per connection.
    #[must_use]
    pub fn zlib_stream() -> Self {
        let (context, last) = (Decompress::new(false), NO_SUFFIX);
        Self::of(Kind::ZlibStream(ZlibStream { context, last, header: Vec::new() }))
    }

    /// `compress=zstd-stream`: one zstd stream per connection.
    #[must_use]
    pub fn zstd_stream() -> Self {
        let mut decoder = Decoder::new().expect("zstd refuses a context only for want of memory");
        decoder
            .set_parameter(DParameter::WindowLogMax(Self::ZSTD_WINDOW_LOG))
            .expect("zstd allows windows of 2^10 to 2^27");
        Self::of(Kind::ZstdStream(decoder))
    }

    fn of(kind: Kind) -> Self {
        Inflater { kind, produced: 0 }
    }

    /// Takes one frame and appends what it holds to `out`; true when the payload is complete.
    ///
    /// Until then `out` must be left alone and given again with the next frame (a `zlib-stream` message may come
    /// in several). `max` bounds the payload in bytes; what was in `out` before it doesn't count.
    ///
    /// # Errors
    /// See [`InflateError`]; `out` then holds an undefined part of the payload, of at most `max` bytes.
    pub fn push(&mut self, frame: &[u8], out: &mut Vec<u8>, max: usize) -> Result<bool, InflateError> {
        let before = out.len();
        let max_len = before.saturating_add(max.saturating_sub(self.produced));
        let complete = self.inflate(frame, out, max_len);
        if out.len() > max_len {
            out.truncate(max_len);
            return Err(InflateError::TooLarge(max));
        }
        self.produced += out.len() - before;
        let complete = complete.map_err(|error| match error {
            InflateError::TooLarge(_) => InflateError::TooLarge(max),
            error => error,
        })?;
        if complete {
            self.produced = 0;
        }
        Ok(complete)
    }

    fn inflate(&mut self, frame: &[u8], out: &mut Vec<u8>, max_len: usize) -> Result<bool, InflateError> {
        match &mut self.kind {
            Kind::Plain => plain(frame, out, max_len),
            Kind::ZlibPayload(_) if !is_zlib(frame) => plain(frame, out, max_len),
            Kind::ZlibPayload(context) => {
                context.reset(true);
                if zlib(context, frame, out, max_len)? {
                    Ok(true)
                } else {
                    Err(InflateError::Corrupt("zlib"))
                }
            }
            Kind::ZlibStream(stream) => stream.push(frame, out, max_len),
            Kind::ZstdStream(decoder) => zstd(decoder, frame, out, max_len).map(|()| true),
        }
    }
}

/// One zlib stream over a connection. It never ends, so the sum over its bytes is never sent, and isn't made: what
/// stands between its header (RFC 1950, section 2.2) and that sum is a plain deflate stream.
struct ZlibStream {
    context: Decompress,
    /// The last bytes that came.
    last: [u8; 4],
    /// The stream's header, as far as it has come.
    header: Vec<u8>,
}

impl ZlibStream {
    /// Length of the header.
    const HEADER: usize = 2;

    fn push(&mut self, frame: &[u8], out: &mut Vec<u8>, max_len: usize) -> Result<bool, InflateError> {
        for byte in &frame[frame.len().saturating_sub(4)..] {
            self.last.rotate_left(1);
            self.last[3] = *byte;
        }
        let (header, rest) = frame.split_at(frame.len().min(Self::HEADER - self.header.len()));
        self.header.extend_from_slice(header);
        // A dictionary that both sides would have to know, or a window beyond 32 KiB, is nobody's.
        let is_usual = |header: &[u8]| is_zlib(header) && header[0] >> 4 <= 7 && header[1] & 0x20 == 0;
        if !header.is_empty() && self.header.len() == Self::HEADER && !is_usual(&self.header) {
            return Err(InflateError::Corrupt("zlib-stream"));
        }
        if zlib(&mut self.context, rest, out, max_len)? {
            // A stream that ends would leave the rest of the connection unreadable.
            return Err(InflateError::Corrupt("zlib-stream"));
        }
        let complete = self.last == ZLIB_SUFFIX;
        if complete {
            self.last = NO_SUFFIX;
        }
        Ok(complete)
    }
}

fn plain(frame: &[u8], out: &mut Vec<u8>, max_len: usize) -> Result<bool, InflateError> {
    if frame.len() > max_len.saturating_sub(out.len()) {
        return Err(InflateError::TooLarge(max_len));
    }
    out.extend_from_slice(frame);
    Ok(true)
}

/// Whether a frame begins with zlib's header; neither JSON nor ETF does.
fn is_zlib(frame: &[u8]) -> bool {
    match frame {
        [method, flags, ..] => {
            method & 0x0f == 8 && (u16::from(*method) * 256 + u16::from(*flags)).is_multiple_of(31)
        }
        _ => false,
    }
}

/// Makes room for more output; an error when `max_len` is reached.
fn grow(out: &mut Vec<u8>, wanted: usize, max_len: usize) -> Result<(), InflateError> {
    // One byte more than allowed, to see whether there would be one.
    let room = (max_len - out.len().min(max_len)).saturating_add(1);
    if out.len() > max_len {
        return Err(InflateError::TooLarge(max_len));
    }
    if out.capacity() == out.len() {
        out.reserve(wanted.max(4096).min(room));
    }
    Ok(())
}

/// Inflates all of `frame`; true if the stream ended.
fn zlib(
    context: &mut Decompress,
    frame: &[u8],
    out: &mut Vec<u8>,
    max_len: usize,
) -> Result<bool, InflateError> {
    let mut rest = frame;
    out.reserve(first_room(frame, out, max_len));
    loop {
        grow(out, out.len(), max_len)?;
        let before = context.total_in();
        let status = context
            .decompress_vec(rest, out, FlushDecompress::Sync)
            .map_err(|_| InflateError::Corrupt("zlib"))?;
        let taken = usize::try_from(context.total_in() - before).unwrap_or(rest.len());
        rest = &rest[taken.min(rest.len())..];
        if out.len() > max_len {
            return Err(InflateError::TooLarge(max_len));
        }
        if matches!(status, flate2::Status::StreamEnd) {
            return if rest.is_empty() { Ok(true) } else { Err(InflateError::Corrupt("zlib")) };
        }
        if out.len() < out.capacity() {
            return if rest.is_empty() { Ok(false) } else { Err(InflateError::Corrupt("zlib")) };
        }
    }
}

fn zstd(
    decoder: &mut Decoder<'static>,
    frame: &[u8],
    out: &mut Vec<u8>,
    max_len: usize,
) -> Result<(), InflateError> {
    let mut input = InBuffer::around(frame);
    out.reserve(first_room(frame, out, max_len));
    loop {
        grow(out, out.len(), max_len)?;
        let (start, taken) = (out.len(), input.pos());
        let mut output = OutBuffer::around_pos(out, start);
        decoder.run(&mut input, &mut output).map_err(|_| InflateError::Corrupt("zstd-stream"))?;
        if out.len() > max_len {
            return Err(InflateError::TooLarge(max_len));
        }
        if out.len() < out.capacity() {
            if input.pos() == frame.len() {
                return Ok(());
            }
            if input.pos() == taken && out.len() == start {
                return Err(InflateError::Corrupt("zstd-stream"));
            }
        }
    }
}

fn first_room(frame: &[u8], out: &[u8], max_len: usize) -> usize {
    frame.len().saturating_mul(Inflater::RATIO).min(max_len.saturating_sub(out.len()).saturating_add(1))
}
