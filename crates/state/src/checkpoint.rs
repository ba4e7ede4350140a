// SPDX-License-Identifier: AGPL-3.0-only
//! A guild's record as bytes for a store, and back. In: a record. Out: a versioned, checksummed form without
//! presences, which would be stale. The compressed blocks are copied as they are; the changes follow them.

use std::sync::Arc;

use crate::ReadError;
use crate::base::{self, Base};
use crate::block::{self, Packed};
use crate::changes::{Changes, Entry, Slot};
use crate::record::Record;
use crate::section::{Block, Kept, Section};

/// A checkpoint can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Its bytes aren't what was written.
    #[error("the checkpoint is damaged")]
    Damaged,
    /// A later version of this program wrote it.
    #[error("the checkpoint has format {0}, this version knows {FORMAT}")]
    Format(u8),
    /// It is another guild's.
    #[error("the checkpoint is of another guild")]
    OtherGuild,
    /// The settings keep more than was kept when it was written.
    #[error("the checkpoint lacks lists that are kept now")]
    Lacking,
}

impl From<ReadError> for RestoreError {
    fn from(ReadError::Damaged: ReadError) -> RestoreError {
        RestoreError::Damaged
    }
}

const MAGIC: &[u8; 4] = b"hfgd";
/// The version of this form. One that is to be read by an earlier version too keeps its number.
const FORMAT: u8 = 1;
/// Blocks in a checkpoint, in this order.
const SAVED: [Block; 2] = [Block::Guild, Block::Members];

pub(crate) fn encode(guild: u64, record: &Record, kept: Kept) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.base_bytes() + record.changes.all_bytes() + 64);
    out.extend_from_slice(MAGIC);
    out.push(FORMAT);
    block::write_varint(guild, &mut out);
    block::write_varint(record.position, &mut out);
    block::write_varint(u64::from(kept.bits()), &mut out);
    block::write_varint(record.member_count.map_or(0, |count| count + 1), &mut out);
    out.push(record.large.map_or(0, |large| 1 + u8::from(large)));
    out.push(u8::from(record.base.is_some()));
    if let Some(base) = &record.base {
        for block in SAVED {
            let packed = &base[block as usize];
            block::write_varint(u64::from(packed.raw_len), &mut out);
            block::write_bytes(&packed.bytes, &mut out);
        }
        encode_changes(&record.changes, &mut out);
    }
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn encode_changes(changes: &Changes, out: &mut Vec<u8>) {
    let saved =
        |slot: &Slot| !matches!(slot, Slot::Entity(Section::Presences) | Slot::Whole(Section::Presences));
    block::write_varint(changes.entries().filter(|(slot, _, _)| saved(slot)).count() as u64, out);
    for (slot, id, entry) in changes.entries().filter(|(slot, _, _)| saved(slot)) {
        out.extend_from_slice(&slot_code(slot));
        out.push(u8::from(entry.fresh) | u8::from(entry.gone) << 1 | u8::from(entry.joined) << 2);
        block::write_varint(id, out);
        block::write_bytes(&entry.data, out);
    }
    block::write_varint(changes.notes().count() as u64, out);
    for (id, note) in changes.notes() {
        for value in [id, note.last, note.thread] {
            block::write_varint(value, out);
        }
        out.extend_from_slice(&note.count.to_le_bytes());
        out.extend_from_slice(&note.total.to_le_bytes());
    }
}

pub(crate) fn decode(bytes: &[u8], guild: u64, kept: Kept) -> Result<Record, RestoreError> {
    let mut at = bytes;
    if block::take(&mut at, MAGIC.len())? != MAGIC {
        return Err(RestoreError::Damaged);
    }
    let format = byte(&mut at)?;
    if format != FORMAT {
        return Err(RestoreError::Format(format));
    }
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(RestoreError::Damaged)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return Err(RestoreError::Damaged);
    }
    if varint(&mut at)? != guild {
        return Err(RestoreError::OtherGuild);
    }
    let position = varint(&mut at)?;
    let had = Kept::from_bits(u16::try_from(varint(&mut at)?).map_err(|_| RestoreError::Damaged)?);
    if !had.covers(kept) {
        return Err(RestoreError::Lacking);
    }
    let member_count = varint(&mut at)?.checked_sub(1);
    let large = byte(&mut at)?.checked_sub(1).map(|large| large == 1);
    let mut record = Record { position, member_count, large, ..Record::default() };
    if byte(&mut at)? == 1 {
        let [guild, members] = [read_packed(&mut at)?, read_packed(&mut at)?];
        let base: Base = [guild, members, base::empty(Block::Presences)];
        record.base = Some(base);
        record.changes = decode_changes(&mut at)?;
    }
    Ok(record)
}

fn read_packed(at: &mut &[u8]) -> Result<Packed, RestoreError> {
    let raw_len = u32::try_from(varint(at)?).map_err(|_| RestoreError::Damaged)?;
    Ok(Packed { raw_len, bytes: block::read_bytes(at)?.into() })
}

fn decode_changes(at: &mut &[u8]) -> Result<Changes, RestoreError> {
    let mut changes = Changes::default();
    for _ in 0..varint(at)? {
        let slot = slot_from(block::take(at, 2)?).ok_or(RestoreError::Damaged)?;
        let flags = byte(at)?;
        let id = varint(at)?;
        let data: Arc<[u8]> = block::read_bytes(at)?.into();
        let entry = Entry { data, fresh: flags & 1 != 0, gone: flags & 2 != 0, joined: flags & 4 != 0 };
        changes.insert(slot, id, entry);
    }
    for _ in 0..varint(at)? {
        let (id, last, thread) = (varint(at)?, varint(at)?, varint(at)?);
        let (count, total) = (number(at)?, number(at)?);
        changes.edit_note(id, |note| {
            (note.last, note.thread, note.count, note.total) = (last, thread, count, total);
        });
    }
    Ok(changes)
}

fn slot_code(slot: Slot) -> [u8; 2] {
    match slot {
        Slot::Guild => [0, 0],
        Slot::Whole(section) => [1, section as u8],
        Slot::Cleared => [2, 0],
        Slot::Entity(section) => [3, section as u8],
        Slot::Patch(section) => [4, section as u8],
        Slot::OwnUser => [5, 0],
    }
}

fn slot_from(code: &[u8]) -> Option<Slot> {
    let &[slot, section] = code else { return None };
    let section = Section::ALL.into_iter().find(|its| *its as u8 == section)?;
    match slot {
        0 => Some(Slot::Guild),
        1 => Some(Slot::Whole(section)),
        2 => Some(Slot::Cleared),
        3 => Some(Slot::Entity(section)),
        4 => Some(Slot::Patch(section)),
        5 => Some(Slot::OwnUser),
        _ => None,
    }
}

fn varint(at: &mut &[u8]) -> Result<u64, RestoreError> {
    block::read_varint(at).ok_or(RestoreError::Damaged)
}

fn byte(at: &mut &[u8]) -> Result<u8, RestoreError> {
    Ok(block::take(at, 1)?[0])
}

fn number(at: &mut &[u8]) -> Result<i32, RestoreError> {
    let bytes = block::take(at, 4)?.try_into().map_err(|_| RestoreError::Damaged)?;
    Ok(i32::from_le_bytes(bytes))
}
