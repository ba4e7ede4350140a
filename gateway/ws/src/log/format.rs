// SPDX-License-Identifier: AGPL-3.0-only
//! How segments look on disk: a header, then batches. Pure: bytes in, bytes out; little-endian throughout.
//! Every header and every batch's body carries a CRC-32, so that a torn or damaged one is told from a whole one.
//! A change of the form gets a new [`VERSION`] and an arm in [`segment_header`]; the version before stays readable.

use holdfast_discord::EventKind;

use super::StreamId;
use super::batch::Batch;
use super::entry::{Meta, OwnedRun, Position};

/// The form that is written.
pub(super) const VERSION: u32 = 1;
/// Length of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 32;
/// Length of a batch's header.
pub(super) const BATCH_HEADER: usize = 64;
/// Marks the beginning of a batch.
pub(super) const BATCH_MAGIC: &[u8; 4] = b"HFb1";

const SEGMENT_MAGIC: &[u8; 8] = b"HOLDFLOG";
const META: usize = 44;
const NO_SEQUENCE: u64 = u64::MAX;

/// Why bytes aren't what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    #[error("it is not a segment of a log, or its header is damaged")]
    Foreign,
    #[error("it has format version {0}, which this version of Holdfast can't read")]
    Version(u32),
    #[error("a batch is damaged")]
    Damaged,
}

/// The header of a batch, read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) first: Position,
    pub(super) stream: StreamId,
    pub(super) last_sequence: Option<u64>,
    pub(super) newest_ms: u64,
    count: u32,
    data_len: u32,
    body_crc: u32,
}

impl BatchHeader {
    pub(super) fn last(&self) -> Position {
        self.first + u64::from(self.count) - 1
    }

    pub(super) fn body_len(&self) -> usize {
        self.count as usize * META + self.data_len as usize
    }

    /// Length of the whole batch.
    pub(super) fn len(&self) -> u64 {
        (BATCH_HEADER + self.body_len()) as u64
    }
}

/// The header of a segment whose first entry has this position.
pub(super) fn write_segment_header(first: Position) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(SEGMENT_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&first.to_le_bytes());
    let crc = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Reads a segment's header: its first position.
pub(super) fn segment_header(bytes: &[u8]) -> Result<Position, FormatError> {
    if bytes.len() < SEGMENT_HEADER || &bytes[..8] != SEGMENT_MAGIC {
        return Err(FormatError::Foreign);
    }
    match u32_at(bytes, 8) {
        VERSION if crc32fast::hash(&bytes[..28]) == u32_at(bytes, 28) => Ok(u64_at(bytes, 16)),
        VERSION => Err(FormatError::Foreign),
        other => Err(FormatError::Version(other)),
    }
}

/// A batch as bytes: header and descriptions into `out`; the frames follow as they are.
pub(super) fn write_batch(batch: &Batch, out: &mut Vec<u8>) {
    out.clear();
    out.resize(BATCH_HEADER, 0);
    let mut newest_ms = 0;
    for meta in &batch.run.metas {
        newest_ms = newest_ms.max(meta.received_ms);
        write_meta(meta, out);
    }
    let mut body = crc32fast::Hasher::new();
    body.update(&out[BATCH_HEADER..]);
    body.update(&batch.run.bytes);
    let count = super::entry::offset(batch.run.metas.len());
    let data_len = super::entry::offset(batch.run.bytes.len());
    let header = &mut out[..BATCH_HEADER];
    header[..4].copy_from_slice(BATCH_MAGIC);
    header[8..12].copy_from_slice(&body.finalize().to_le_bytes());
    header[12..16].copy_from_slice(&count.to_le_bytes());
    header[16..20].copy_from_slice(&data_len.to_le_bytes());
    header[24..32].copy_from_slice(&batch.first.to_le_bytes());
    header[32..40].copy_from_slice(&batch.run.stream.number().to_le_bytes());
    header[40..48].copy_from_slice(&batch.last_sequence.unwrap_or(NO_SEQUENCE).to_le_bytes());
    header[48..56].copy_from_slice(&newest_ms.to_le_bytes());
    let crc = crc32fast::hash(&header[8..]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads a batch's header; `None` where there is no whole and undamaged one.
pub(super) fn batch_header(bytes: &[u8]) -> Option<BatchHeader> {
    let header = bytes.get(..BATCH_HEADER)?;
    if &header[..4] != BATCH_MAGIC || crc32fast::hash(&header[8..]) != u32_at(header, 4) {
        return None;
    }
    let found = BatchHeader {
        first: u64_at(header, 24),
        stream: StreamId::from_number(u64_at(header, 32)),
        last_sequence: sequence(u64_at(header, 40)),
        newest_ms: u64_at(header, 48),
        count: u32_at(header, 12),
        data_len: u32_at(header, 16),
        body_crc: u32_at(header, 8),
    };
    (found.first > 0).then_some(found)
}

/// Whether a body is the one that belongs to this header.
pub(super) fn body_is_whole(header: &BatchHeader, body: &[u8]) -> bool {
    body.len() == header.body_len() && crc32fast::hash(body) == header.body_crc
}

/// Reads a batch's body.
pub(super) fn batch(header: &BatchHeader, body: &[u8]) -> Result<OwnedRun, FormatError> {
    if !body_is_whole(header, body) {
        return Err(FormatError::Damaged);
    }
    let (descriptions, data) = body.split_at(header.count as usize * META);
    let mut run = OwnedRun::empty(header.stream);
    run.metas.reserve_exact(header.count as usize);
    let mut offset = 0_u32;
    for (position, bytes) in (header.first..).zip(descriptions.chunks_exact(META)) {
        let meta = read_meta(position, offset, bytes);
        let digits_end = u64::from(meta.payload_at) + u64::from(meta.digits_at) + u64::from(meta.digits);
        if digits_end > u64::from(meta.len) {
            return Err(FormatError::Damaged);
        }
        offset = offset.checked_add(meta.len).ok_or(FormatError::Damaged)?;
        run.metas.push(meta);
    }
    if offset as usize != data.len() {
        return Err(FormatError::Damaged);
    }
    run.bytes.extend_from_slice(data);
    Ok(run)
}

fn write_meta(meta: &Meta, out: &mut Vec<u8>) {
    out.extend_from_slice(&meta.sequence.unwrap_or(NO_SEQUENCE).to_le_bytes());
    out.extend_from_slice(&meta.guild.to_le_bytes());
    out.extend_from_slice(&meta.audience.to_le_bytes());
    out.extend_from_slice(&meta.received_ms.to_le_bytes());
    out.extend_from_slice(&meta.len.to_le_bytes());
    out.extend_from_slice(&meta.digits_at.to_le_bytes());
    out.extend_from_slice(&[meta.kind as u8, meta.payload_at, meta.digits, 0]);
}

fn read_meta(position: Position, offset: u32, bytes: &[u8]) -> Meta {
    let guild = u64_at(bytes, 8);
    let kind = EventKind::from_u8(bytes[40]);
    Meta {
        position,
        sequence: sequence(u64_at(bytes, 0)),
        guild,
        audience: u64_at(bytes, 16),
        received_ms: u64_at(bytes, 24),
        needs: Meta::needs(kind, guild),
        offset,
        len: u32_at(bytes, 32),
        digits_at: u32_at(bytes, 36),
        data_at: 0,
        data_tail: 0,
        kind,
        payload_at: bytes[41],
        digits: bytes[42],
    }
}

fn sequence(stored: u64) -> Option<u64> {
    (stored != NO_SEQUENCE).then_some(stored)
}

/// The caller has checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut wide = [0; 4];
    wide.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(wide)
}

/// The caller has checked the length.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(wide)
}
