// SPDX-License-Identifier: AGPL-3.0-only
//! Payloads to bytes on the wire: encoding, compression, WebSocket framing.
//!
//! In: JSON texts and dispatches. Out: complete server frames appended to a connection's buffer, so that a batch
//! of events costs one write. One encoder per connection, since compression contexts live as long as it does.
use std::io::Write as _;

use flate2::{Compress, Compression, FlushCompress};
use serde_json::Value;

use crate::etf;
use crate::limits::{Keys, Limits};

/// WebSocket opcodes that a server sends.
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;

/// Payloads below this stay plain under payload compression: Discord compresses large ones only.
const PAYLOAD_COMPRESSION_FROM: usize = 1024;

/// How payloads are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Etf,
}

/// Transport compression.
enum Transport {
    Plain,
    /// IDENTIFY asked for `compress`: single payloads as zlib, no shared context.
    Payload,
    Zlib(Compress),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Appends the header of a single unmasked server frame of `len` bytes.
pub(crate) fn frame_header(out: &mut Vec<u8>, opcode: u8, len: usize) {
    out.push(0x80 | opcode);
    match len {
        0..=125 => out.push(u8::try_from(len).unwrap_or_default()),
        126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&u16::try_from(len).unwrap_or_default().to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&u64::try_from(len).unwrap_or_default().to_be_bytes());
        }
    }
}

/// One connection's way of writing.
pub(crate) struct Encoder {
    encoding: Encoding,
    transport: Transport,
    level: u32,
    keys: Keys,
    json: Vec<u8>,
    packed: Vec<u8>,
}

impl Encoder {
    /// `compress` as in the query: `zlib-stream`, `zstd-stream` or nothing.
    pub(crate) fn new(
        encoding: Encoding,
        compress: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, std::io::Error> {
        let level = limits.zlib_level;
        let transport = match compress {
            Some("zlib-stream") => Transport::Zlib(Compress::new(Compression::new(level), true)),
            Some("zstd-stream") => Transport::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?),
            _ => Transport::Plain,
        };
        Ok(Self { encoding, transport, level, keys: limits.keys, json: Vec::new(), packed: Vec::new() })
    }

    /// Turns payload compression on, unless the transport is compressed already or the encoding is ETF.
    pub(crate) fn compress_payloads(&mut self) {
        if matches!(self.transport, Transport::Plain) && self.encoding == Encoding::Json {
            self.transport = Transport::Payload;
        }
    }

    /// The encoding in use.
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Appends one dispatch.
    pub(crate) fn dispatch(&mut self, sequence: u64, name: &[u8], data: &[u8], out: &mut Vec<u8>) {
        let mut digits = [0; 20];
        let digits = decimal(sequence, &mut digits);
        let parts: [&[u8]; 7] = match self.keys {
            Keys::Discord => [b"{\"t\":\"", name, b"\",\"s\":", digits, b",\"op\":0,\"d\":", data, b"}"],
            Keys::DataFirst => [b"{\"op\":0,\"d\":", data, b",\"s\":", digits, b",\"t\":\"", name, b"\"}"],
            Keys::Spaced => [
                b"{ \"d\" : ",
                data,
                b",\n\t\"t\" : \"",
                name,
                b"\", \"op\":\t0 , \"s\" : ",
                digits,
                b" }\r\n",
            ],
        };
        let len = parts.iter().map(|part| part.len()).sum();
        if self.encoding == Encoding::Json && matches!(self.transport, Transport::Plain) {
            frame_header(out, TEXT, len);
            parts.iter().for_each(|part| out.extend_from_slice(part));
            return;
        }
        let mut json = std::mem::take(&mut self.json);
        json.clear();
        parts.iter().for_each(|part| json.extend_from_slice(part));
        self.payload(&json, out);
        self.json = json;
    }

    /// Appends one payload, given as JSON.
    pub(crate) fn payload(&mut self, json: &[u8], out: &mut Vec<u8>) {
        let mut term = Vec::new();
        let (plain, opcode) = match self.encoding {
            Encoding::Json => (json, TEXT),
            Encoding::Etf => {
                etf::encode(&serde_json::from_slice(json).unwrap_or(Value::Null), &mut term);
                (term.as_slice(), BINARY)
            }
        };
        self.packed.clear();
        match &mut self.transport {
            Transport::Plain => return frame(out, opcode, plain),
            Transport::Payload if plain.len() < PAYLOAD_COMPRESSION_FROM => return frame(out, opcode, plain),
            Transport::Payload => {
                let mut once = Compress::new(Compression::new(self.level), true);
                deflate(&mut once, plain, FlushCompress::Finish, &mut self.packed);
            }
            Transport::Zlib(context) => deflate(context, plain, FlushCompress::Sync, &mut self.packed),
            Transport::Zstd(context) => {
                // Writing into a Vec doesn't fail.
                let _ = context.write_all(plain).and_then(|()| context.flush());
                self.packed.append(context.get_mut());
            }
        }
        frame(out, BINARY, &self.packed);
    }
}

fn frame(out: &mut Vec<u8>, opcode: u8, bytes: &[u8]) {
    frame_header(out, opcode, bytes.len());
    out.extend_from_slice(bytes);
}

/// Runs `input` through the context and flushes: a sync flush ends in 00 00 ff ff (events/gateway,
/// "zlib-stream").
fn deflate(context: &mut Compress, input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    let start = context.total_in();
    let taken = |context: &Compress| usize::try_from(context.total_in() - start).unwrap_or(usize::MAX);
    loop {
        out.reserve(input.len() / 2 + 64);
        let rest = &input[taken(context).min(input.len())..];
        if context.compress_vec(rest, out, flush).is_err() {
            return;
        }
        if taken(context) >= input.len() && out.len() < out.capacity() {
            return;
        }
    }
}

/// Writes `number` into `space` from the right; gives the digits.
pub(crate) fn decimal(mut number: u64, space: &mut [u8; 20]) -> &[u8] {
    let mut at = space.len();
    loop {
        at -= 1;
        space[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            return &space[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 1234, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn every_message_of_a_zlib_stream_ends_with_the_marker_and_inflates_with_one_context() {
        let mut encoder = Encoder::new(Encoding::Json, Some("zlib-stream"), &Limits::default()).unwrap();
        let mut inflate = flate2::Decompress::new(true);
        for size in [2, 100, 70_000, 5] {
            let payload = format!("\"{}\"", "ab1c".repeat(size));
            let mut out = Vec::new();
            encoder.payload(payload.as_bytes(), &mut out);
            assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
            let header = match out[1] {
                126 => 4,
                127 => 10,
                _ => 2,
            };
            let mut plain = Vec::with_capacity(400_000);
            inflate.decompress_vec(&out[header..], &mut plain, flate2::FlushDecompress::Sync).unwrap();
            assert_eq!(plain, payload.as_bytes());
        }
    }
}
