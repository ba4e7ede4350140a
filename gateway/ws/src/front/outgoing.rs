// SPDX-License-Identifier: AGPL-3.0-only
//! What a client gets that isn't written straight from the log: payloads in its encoding and compression.
//!
//! In: payloads as JSON. Out: whole WebSocket frames in one buffer, which its owner writes and bounds by
//! asking [`Outgoing::is_empty`] before it adds more.

use holdfast_discord::{compress::Deflater, etf};

use crate::frames::{Opcode, close_body, push};

/// How payloads are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Text.
    Json,
    /// Erlang's external term format.
    Etf,
}

/// Transport compression, as the connection's query asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// None.
    Plain,
    /// One zlib stream over the whole connection.
    ZlibStream,
    /// One zstd stream over the whole connection.
    ZstdStream,
}

/// Of payload compression. Level 1: level 2 costs three times as much for a few percent.
const ZLIB_LEVEL: u32 = 1;
/// As cheap as zlib's level 1, and smaller.
const ZSTD_LEVEL: i32 = -1;

/// A buffer larger than this is given back once it is written: idle clients are many.
const KEEP: usize = 2 * 1024;

/// Frames on their way to one client.
pub(crate) struct Outgoing {
    encoding: Encoding,
    transport: Transport,
    deflater: Option<Deflater>,
    /// Each payload deflated for itself (`compress` in IDENTIFY).
    payload_compression: Option<Deflater>,
    bytes: Vec<u8>,
    written: usize,
    scratch: Vec<u8>,
    term: Vec<u8>,
}

impl Outgoing {
    /// `stored`: zlib-stream in stored blocks, for a client on this host.
    pub(crate) fn new(encoding: Encoding, transport: Transport, stored: bool) -> Self {
        let deflater = match transport {
            Transport::Plain => None,
            Transport::ZlibStream if stored => Some(Deflater::zlib_stored()),
            Transport::ZlibStream => Some(Deflater::zlib_stream()),
            Transport::ZstdStream => Some(Deflater::zstd_stream(ZSTD_LEVEL)),
        };
        Self {
            encoding,
            transport,
            deflater,
            payload_compression: None,
            bytes: Vec::new(),
            written: 0,
            scratch: Vec::new(),
            term: Vec::new(),
        }
    }

    /// Whether frames of the log can be written as they are.
    pub(crate) fn is_direct(&self) -> bool {
        self.encoding == Encoding::Json && self.deflater.is_none() && self.payload_compression.is_none()
    }

    /// Whether the client asked for `compress` in IDENTIFY (an earlier one on this connection may have). Discord
    /// documents it for JSON, and where the transport is compressed already, asking for both leaves it at the transport's.
    pub(crate) fn compress_payloads(&mut self, asked: bool) {
        let possible = self.transport == Transport::Plain && self.encoding == Encoding::Json;
        self.payload_compression = (asked && possible).then(|| Deflater::zlib_payload(ZLIB_LEVEL));
    }

    /// Adds a payload.
    pub(crate) fn payload(&mut self, json: &[u8]) {
        let body = match self.encoding {
            Encoding::Json => json,
            Encoding::Etf => {
                self.term.clear();
                if etf::from_json_bytes(json, &mut self.term).is_err() {
                    // What isn't JSON never got into the log; there is nothing to give to the client.
                    return;
                }
                &self.term
            }
        };
        let Some(deflater) = self.deflater.as_mut().or(self.payload_compression.as_mut()) else {
            let opcode = if self.encoding == Encoding::Json { Opcode::Text } else { Opcode::Binary };
            push(&mut self.bytes, opcode, body);
            return;
        };
        self.scratch.clear();
        deflater.message(body, &mut self.scratch);
        push(&mut self.bytes, Opcode::Binary, &self.scratch);
    }

    /// Adds bytes that are frames already: the rest of one that was written in part, or the library's own.
    pub(crate) fn raw(&mut self, frames: &[u8]) {
        self.bytes.extend_from_slice(frames);
    }

    /// Adds a close frame.
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        push(&mut self.bytes, Opcode::Close, &close_body(code, reason));
    }

    /// What is still to be written.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// `count` bytes of [`Outgoing::rest`] have been written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.written += count;
        if self.written >= self.bytes.len() {
            self.written = 0;
            self.bytes.clear();
            for buffer in [&mut self.bytes, &mut self.scratch, &mut self.term] {
                if buffer.capacity() > KEEP {
                    *buffer = Vec::new();
                }
            }
        }
    }

    /// Whether everything has been written.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_three_lengths() {
        for (len, header) in [
            (5, vec![0x81, 5]),
            (300, vec![0x81, 126, 1, 44]),
            (70_000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 17, 112]),
        ] {
            let mut outgoing = Outgoing::new(Encoding::Json, Transport::Plain, false);
            outgoing.payload(&vec![b' '; len]);
            assert_eq!(&outgoing.rest()[..header.len()], header);
            assert_eq!(outgoing.rest().len(), header.len() + len);
        }
    }

    #[test]
    fn both_compressions_asked_gives_the_transports() {
        let mut outgoing = Outgoing::new(Encoding::Json, Transport::ZlibStream, false);
        outgoing.compress_payloads(true);
        outgoing.payload(b"{}");
        assert!(outgoing.rest().ends_with(&[0, 0, 0xff, 0xff]));
    }

    #[test]
    fn what_is_written_is_gone() {
        let mut outgoing = Outgoing::new(Encoding::Json, Transport::Plain, false);
        outgoing.payload(b"{}");
        outgoing.advance(1);
        assert_eq!(outgoing.rest(), [2, b'{', b'}']);
        outgoing.advance(3);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut outgoing = Outgoing::new(Encoding::Json, Transport::Plain, false);
        outgoing.close(4010, &"ä".repeat(100));
        assert_eq!(outgoing.rest()[..4], [0x88, 2 + 122, 0x0f, 0xaa]);
        assert!(std::str::from_utf8(&outgoing.rest()[4..]).is_ok());
    }
}
