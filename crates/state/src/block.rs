// SPDX-License-Identifier: AGPL-3.0-only
//! How a guild's base lies in memory. In: the payload of GUILD_CREATE, or entities after a compaction. Out: blocks,
//! each a zstd frame; inside, per list, the entities' bytes as Discord sent them, joined by commas, behind two
//! columns: their lengths, and where their ids stand. An untouched list is written out by one copy.

use std::cell::RefCell;
use std::sync::Arc;

use zstd::bulk::{Compressor, Decompressor};

use crate::ReadError;
use crate::json::{self, Traits};

/// A compressed block. Stored as it is when compression gains nothing.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) raw_len: u32,
}

/// What entities look like, so that the first of its kind in a block compresses like the second. Blocks can only be
/// read with the dictionary that they were written with: a change of it is a change of the checkpoints' format.
const DICTIONARY: &[u8] = include_bytes!("dictionary.txt");

struct Codec {
    compressor: Option<(i32, Compressor<'static>)>,
    decompressor: Option<Decompressor<'static>>,
}

thread_local! {
    /// A compression context is hundreds of KiB: one per thread, not one per guild.
    static CODEC: RefCell<Codec> = const { RefCell::new(Codec { compressor: None, decompressor: None }) };
}

/// Blocks larger than this are refused: a checkpoint that claims more is damaged.
const MAX_BLOCK: u32 = 1 << 30;

impl Packed {
    pub(crate) fn new(raw: &[u8], level: i32) -> Packed {
        let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        let bytes = compress(raw, level).filter(|bytes| bytes.len() < raw.len());
        Packed { bytes: bytes.map_or_else(|| Arc::from(raw), Arc::from), raw_len }
    }

    /// The block's bytes, in `out` instead of what was there.
    pub(crate) fn unpack(&self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        out.clear();
        if self.bytes.len() == self.raw_len as usize {
            out.extend_from_slice(&self.bytes);
            return Ok(());
        }
        if self.raw_len > MAX_BLOCK {
            return Err(ReadError::Damaged);
        }
        out.reserve(self.raw_len as usize);
        CODEC.with_borrow_mut(|codec| {
            if codec.decompressor.is_none() {
                codec.decompressor = Decompressor::with_dictionary(DICTIONARY).ok();
            }
            let decompressor = codec.decompressor.as_mut().ok_or(ReadError::Damaged)?;
            let size = decompressor.decompress_to_buffer(&self.bytes, out).map_err(|_| ReadError::Damaged)?;
            if size == self.raw_len as usize { Ok(()) } else { Err(ReadError::Damaged) }
        })
    }
}

fn compress(raw: &[u8], level: i32) -> Option<Vec<u8>> {
    CODEC.with_borrow_mut(|codec| {
        if codec.compressor.as_ref().is_none_or(|(its, _)| *its != level) {
            codec.compressor = Some((level, Compressor::with_dictionary(level, DICTIONARY).ok()?));
        }
        codec.compressor.as_mut()?.1.compress(raw).ok()
    })
}

/// A list as it was in GUILD_CREATE.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored<'a> {
    /// The payload didn't have it.
    Absent,
    /// `null`
    Null,
    List(List<'a>),
}

/// The entities of a list, in Discord's order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct List<'a> {
    pub(crate) count: usize,
    lengths: &'a [u8],
    codes: &'a [u8],
    /// All entities, joined by commas.
    pub(crate) joined: &'a [u8],
}

/// One entity of the base.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entity<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) traits: Traits,
}

impl<'a> List<'a> {
    pub(crate) fn entities(&self) -> Entities<'a> {
        Entities { list: *self, at: 0, left: self.count }
    }
}

/// Iterates over a list; ends early where the bytes are damaged.
pub(crate) struct Entities<'a> {
    list: List<'a>,
    at: usize,
    left: usize,
}

impl<'a> Iterator for Entities<'a> {
    type Item = Entity<'a>;

    fn next(&mut self) -> Option<Entity<'a>> {
        self.left = self.left.checked_sub(1)?;
        let length = read_varint(&mut self.list.lengths)? as usize;
        let code = read_varint(&mut self.list.codes)? as usize;
        let bytes = self.list.joined.get(self.at..self.at.checked_add(length)?)?;
        self.at += length + 1;
        let id_at = (code >> 1).checked_sub(1);
        let id = id_at.and_then(|at| json::digits(bytes, at));
        Some(Entity { bytes, traits: Traits { id_at, id, notable: code & 1 == 1 } })
    }
}

/// Puts a list together.
#[derive(Default)]
pub(crate) struct ListWriter {
    count: usize,
    lengths: Vec<u8>,
    codes: Vec<u8>,
    joined: Vec<u8>,
}

impl ListWriter {
    pub(crate) fn push(&mut self, bytes: &[u8], traits: Traits) {
        if self.count > 0 {
            self.joined.push(b',');
        }
        self.count += 1;
        write_varint(bytes.len() as u64, &mut self.lengths);
        let code = (traits.id_at.map_or(0, |at| at + 1) << 1) | usize::from(traits.notable);
        write_varint(code as u64, &mut self.codes);
        self.joined.extend_from_slice(bytes);
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(LIST);
        for size in [self.count, self.lengths.len(), self.codes.len(), self.joined.len()] {
            write_varint(size as u64, out);
        }
        for part in [&self.lengths, &self.codes, &self.joined] {
            out.extend_from_slice(part);
        }
    }
}

const ABSENT: u8 = 0;
const NULL: u8 = 1;
const LIST: u8 = 2;

pub(crate) fn write_absent(out: &mut Vec<u8>) {
    out.push(ABSENT);
}

pub(crate) fn write_null(out: &mut Vec<u8>) {
    out.push(NULL);
}

/// Copies a list as it is.
pub(crate) fn write_stored(stored: &Stored<'_>, out: &mut Vec<u8>) {
    match stored {
        Stored::Absent => write_absent(out),
        Stored::Null => write_null(out),
        Stored::List(list) => {
            out.push(LIST);
            for size in [list.count, list.lengths.len(), list.codes.len(), list.joined.len()] {
                write_varint(size as u64, out);
            }
            for part in [list.lengths, list.codes, list.joined] {
                out.extend_from_slice(part);
            }
        }
    }
}

/// Takes the next list from a block.
pub(crate) fn read_stored<'a>(bytes: &mut &'a [u8]) -> Result<Stored<'a>, ReadError> {
    match take(bytes, 1)? {
        [ABSENT] => Ok(Stored::Absent),
        [NULL] => Ok(Stored::Null),
        [LIST] => {
            let mut size = || read_varint(bytes).map(|size| size as usize).ok_or(ReadError::Damaged);
            let (count, lengths, codes, joined) = (size()?, size()?, size()?, size()?);
            Ok(Stored::List(List {
                count,
                lengths: take(bytes, lengths)?,
                codes: take(bytes, codes)?,
                joined: take(bytes, joined)?,
            }))
        }
        _ => Err(ReadError::Damaged),
    }
}

/// Takes bytes with their length before them.
pub(crate) fn read_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], ReadError> {
    let length = read_varint(bytes).ok_or(ReadError::Damaged)?;
    take(bytes, usize::try_from(length).map_err(|_| ReadError::Damaged)?)
}

/// Bytes with their length before them.
pub(crate) fn write_bytes(value: &[u8], out: &mut Vec<u8>) {
    write_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

pub(crate) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], ReadError> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(ReadError::Damaged)?;
    *bytes = rest;
    Ok(taken)
}

pub(crate) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
