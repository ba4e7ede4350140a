// SPDX-License-Identifier: AGPL-3.0-only
//! Transport compression as a client sees it.
//! In: the messages of one connection, in order. Out: their payloads. Owned by the connection's reader.

use anyhow::{Context, Result, bail};
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress};
use serde::{Deserialize, Serialize};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// Largest payload that is taken: far above a GUILD_CREATE of the worlds that are measured.
const MAX_PAYLOAD: usize = 64 << 20;
/// Room that is made for output at a time.
const STEP: usize = 64 << 10;

/// Transport compression, by its name in the connection's query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Compression {
    /// Plain text frames.
    None,
    /// One zlib context per connection.
    ZlibStream,
    /// One zstd frame per connection.
    ZstdStream,
}

impl Compression {
    /// The name that Discord and our settings use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ZlibStream => "zlib-stream",
            Self::ZstdStream => "zstd-stream",
        }
    }

    /// What the connection's query asks for.
    pub(super) fn query(self) -> String {
        match self {
            Self::None => String::new(),
            compressed => format!("&compress={}", compressed.name()),
        }
    }
}

/// The state of one connection's compression.
pub(super) enum Inflater {
    None,
    Zlib(Decompress),
    Zstd(Decoder<'static>),
}

impl Inflater {
    pub(super) fn new(compression: Compression) -> Result<Self> {
        Ok(match compression {
            Compression::None => Self::None,
            Compression::ZlibStream => Self::Zlib(Decompress::new(true)),
            Compression::ZstdStream => Self::Zstd(Decoder::new()?),
        })
    }

    /// The payload of the next message: itself, or inflated into `out`, which is emptied first.
    pub(super) fn payload<'a>(&mut self, message: &'a [u8], out: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        out.clear();
        match self {
            Self::None => return Ok(message),
            Self::Zlib(zlib) => inflate_zlib(zlib, message, out)?,
            Self::Zstd(zstd) => inflate_zstd(zstd, message, out)?,
        }
        Ok(out)
    }
}

fn inflate_zlib(zlib: &mut Decompress, mut message: &[u8], out: &mut Vec<u8>) -> Result<()> {
    loop {
        make_room(out)?;
        let before = zlib.total_in();
        zlib.decompress_vec(message, out, FlushDecompress::Sync).context("zlib")?;
        message = &message[(zlib.total_in() - before) as usize..];
        if message.is_empty() && out.len() < out.capacity() {
            return Ok(());
        }
    }
}

fn inflate_zstd(zstd: &mut Decoder<'static>, message: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut input = InBuffer::around(message);
    loop {
        make_room(out)?;
        let written = out.len();
        let mut output = OutBuffer::around_pos(out, written);
        zstd.run(&mut input, &mut output).context("zstd")?;
        if input.pos() == message.len() && out.len() < out.capacity() {
            return Ok(());
        }
    }
}

fn make_room(out: &mut Vec<u8>) -> Result<()> {
    if out.len() == out.capacity() {
        if out.len() >= MAX_PAYLOAD {
            bail!("a payload of more than {MAX_PAYLOAD} bytes");
        }
        out.reserve(STEP.max(out.len()));
    }
    Ok(())
}

/// Bytes that the same payloads take as a zlib-stream of level 1: what the output is judged by.
pub(super) fn level_one(payloads: &[Vec<u8>]) -> u64 {
    let mut zlib = Compress::new(flate2::Compression::new(1), true);
    let mut out = Vec::with_capacity(STEP);
    for payload in payloads {
        let start = zlib.total_in();
        loop {
            out.clear();
            let done = (zlib.total_in() - start) as usize;
            // Compression into a vector with room cannot fail.
            if zlib.compress_vec(&payload[done..], &mut out, FlushCompress::Sync).is_err() {
                break;
            }
            if out.len() < out.capacity() {
                break;
            }
        }
    }
    zlib.total_out()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads() -> Vec<Vec<u8>> {
        (0..50)
            .map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}", "abc ".repeat(n * 400)).into_bytes())
            .collect()
    }

    #[test]
    fn messages_of_a_zlib_stream_come_back_one_by_one() {
        let mut zlib = Compress::new(flate2::Compression::new(1), true);
        let mut inflater = Inflater::new(Compression::ZlibStream).unwrap();
        let mut out = Vec::new();
        for payload in payloads() {
            let mut message = Vec::with_capacity(1 << 20);
            zlib.compress_vec(&payload, &mut message, FlushCompress::Sync).unwrap();
            assert_eq!(inflater.payload(&message, &mut out).unwrap(), payload);
        }
    }

    #[test]
    fn messages_of_a_zstd_stream_come_back_one_by_one() {
        let mut zstd = zstd::stream::raw::Encoder::new(1).unwrap();
        let mut inflater = Inflater::new(Compression::ZstdStream).unwrap();
        let mut out = Vec::new();
        for payload in payloads() {
            let mut message = vec![0; 1 << 20];
            let mut output = OutBuffer::around(&mut message);
            zstd.run(&mut InBuffer::around(&payload), &mut output).unwrap();
            assert_eq!(zstd.flush(&mut output).unwrap(), 0);
            let length = output.pos();
            assert_eq!(inflater.payload(&message[..length], &mut out).unwrap(), payload);
        }
    }

    #[test]
    fn the_reference_counts_what_level_one_writes() {
        let payloads = payloads();
        let mut zlib = Compress::new(flate2::Compression::new(1), true);
        let mut expected = Vec::with_capacity(4 << 20);
        for payload in &payloads {
            zlib.compress_vec(payload, &mut expected, FlushCompress::Sync).unwrap();
        }
        assert_eq!(level_one(&payloads), expected.len() as u64);
    }

    #[test]
    fn damaged_streams_are_errors() {
        let mut out = Vec::new();
        for compression in [Compression::ZlibStream, Compression::ZstdStream] {
            assert!(Inflater::new(compression).unwrap().payload(&[0xff; 64], &mut out).is_err());
        }
    }
}
