// SPDX-License-Identifier: AGPL-3.0-only
//! Writing side of a compressed connection.
//! In: payloads. Out: one complete message for each, appended to a buffer of the caller's.
//! Owned by the task that writes the connection.

use flate2::{Compress, Compression, FlushCompress};
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

use super::fast::FastDeflate;

/// A connection's compressor.
pub struct Deflater {
    kind: Kind,
}

enum Kind {
    Plain,
    ZlibPayload(Compress),
    ZlibStream(Box<FastDeflate>),
    ZlibStored { started: bool },
    ZstdStream(Encoder<'static>),
}

impl Deflater {
    /// Window of a zstd stream: 2^17 is 128 KiB, some hundred events to refer back to.
    const ZSTD_WINDOW_LOG: u32 = 17;
    /// A stored block holds 65,535 bytes at most (RFC 1951, 3.2.4).
    const STORED: usize = 65_535;

    /// No compression: a message is the payload.
    #[must_use]
    pub fn none() -> Self {
        Deflater { kind: Kind::Plain }
    }

    /// Payload compression: every message is a zlib stream of its own. `level`: 0 to 9.
    #[must_use]
    pub fn zlib_payload(level: u32) -> Self {
        Deflater { kind: Kind::ZlibPayload(Compress::new(Compression::new(level.min(9)), true)) }
    }

    /// `compress=zlib-stream`, about as small as zlib's level 1.
    #[must_use]
    pub fn zlib_stream() -> Self {
        Deflater { kind: Kind::ZlibStream(Box::new(FastDeflate::new())) }
    }

    /// `compress=zlib-stream` for a client on the same host: a legal stream of stored blocks, next to free of cost.
    #[must_use]
    pub fn zlib_stored() -> Self {
        Deflater { kind: Kind::ZlibStored { started: false } }
    }

    /// `compress=zstd-stream`. `level`: zstd's own, negative ones included.
    #[must_use]
    pub fn zstd_stream(level: i32) -> Self {
        let mut encoder = Encoder::new(level).expect("zstd refuses a context only for want of memory");
        encoder
            .set_parameter(CParameter::WindowLog(Self::ZSTD_WINDOW_LOG))
            .expect("zstd allows windows of 2^10 to 2^27");
        Deflater { kind: Kind::ZstdStream(encoder) }
    }

    /// Appends the message that carries `payload`, which is not empty (no payload of the gateway's is).
    pub fn message(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        match &mut self.kind {
            Kind::Plain => out.extend_from_slice(payload),
            Kind::ZlibPayload(context) => {
                context.reset();
                zlib(context, payload, out);
            }
            Kind::ZlibStream(stream) => stream.message(payload, out),
            Kind::ZlibStored { started } => {
                if !*started {
                    *started = true;
                    // deflate with a window of 32 KiB, fastest (RFC 1950, 2.2).
                    out.extend_from_slice(&[0x78, 0x01]);
                }
                stored(payload, out);
            }
            Kind::ZstdStream(encoder) => zstd(encoder, payload, out),
        }
    }
}

fn zlib(context: &mut Compress, payload: &[u8], out: &mut Vec<u8>) {
    let mut rest = payload;
    // Room for what does not compress at all, so that one turn is nearly always enough.
    out.reserve(payload.len() + payload.len() / 1000 + 64);
    loop {
        let before = context.total_in();
        let status = context
            .compress_vec(rest, out, FlushCompress::Finish)
            .expect("deflate fails only on a broken context");
        if matches!(status, flate2::Status::StreamEnd) {
            return;
        }
        let taken = usize::try_from(context.total_in() - before).unwrap_or(rest.len());
        rest = &rest[taken.min(rest.len())..];
        out.reserve(rest.len() + 64);
    }
}

/// Stored blocks are whole bytes: a header of three bits, padded; length; its complement; the bytes.
fn stored(payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(payload.len() + 5 * (payload.len() / Deflater::STORED + 2));
    for chunk in payload.chunks(Deflater::STORED) {
        let length = u16::try_from(chunk.len()).expect("chunks are at most 65,535 bytes");
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(chunk);
    }
    // An empty one is what a sync flush leaves at the end.
    out.extend_from_slice(&[0, 0x00, 0x00, 0xff, 0xff]);
}

const WORKS: &str = "zstd compresses whatever fits its buffers";

fn zstd(encoder: &mut Encoder<'static>, payload: &[u8], out: &mut Vec<u8>) {
    let mut input = InBuffer::around(payload);
    out.reserve(payload.len() / 2 + 256);
    while input.pos() < payload.len() {
        room(out);
        let start = out.len();
        encoder.run(&mut input, &mut OutBuffer::around_pos(out, start)).expect(WORKS);
    }
    loop {
        room(out);
        let start = out.len();
        if encoder.flush(&mut OutBuffer::around_pos(out, start)).expect(WORKS) == 0 {
            return;
        }
    }
}

fn room(out: &mut Vec<u8>) {
    if out.capacity() - out.len() < 64 {
        out.reserve(4096);
    }
}
