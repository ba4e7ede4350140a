// SPDX-License-Identifier: AGPL-3.0-only
//! What goes into a log and what comes out: entries, their descriptions, runs of frames, answers to a read.
//! Plain values; owned by whoever holds them.

use std::ops::Range;

use holdfast_discord::{EventKind, Intents};

use super::{DiskRead, StreamId};

/// Our number of an event in its shard's log: rises by one, is never reset.
pub type Position = u64;

/// The first event's position. 1 stays free below it: a snapshot taken of an empty log is sent with `s` = P − 1
/// and P, and Discord's sequences begin at 1 too.
pub const FIRST: Position = 2;

/// An event to append.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Discord's own sequence; `None` for an event that didn't come from there.
    pub sequence: Option<u64>,
    /// Which event.
    pub kind: EventKind,
    /// Its guild, 0 for none.
    pub guild: u64,
    /// For whom: 0 for every client, else a number that the reader gives a meaning (which client asked).
    pub audience: u64,
    /// When it came in, milliseconds of Unix time.
    pub received_ms: u64,
    /// The whole payload as JSON: `{"t":…,"s":…,"op":0,"d":…}`.
    pub payload: &'a [u8],
    /// Where the value of `s` stands in the payload: digits or `null`. They are replaced by the position.
    pub sequence_range: Range<usize>,
    /// Where the value of `d` stands in the payload; empty without one.
    pub data: Range<usize>,
}

/// What is known of an entry without looking into its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The entry's position.
    pub position: Position,
    /// Discord's sequence in the entry's stream; `None` for an event that didn't come from there.
    pub sequence: Option<u64>,
    /// Its guild, 0 for none.
    pub guild: u64,
    /// For whom; 0 for every client.
    pub audience: u64,
    /// When it came in, milliseconds of Unix time.
    pub received_ms: u64,
    /// Bits of the intents of which a reader needs any one; 0: everybody gets it.
    pub needs: u32,
    /// Where the frame begins in the run's bytes.
    pub offset: u32,
    /// Length of the frame: its header and its payload.
    pub len: u32,
    /// Where the digits of `s` begin in the payload (not in the frame).
    pub digits_at: u32,
    /// Where the value of `d` begins in the payload.
    pub data_at: u32,
    /// Bytes behind the value of `d`; Discord's payloads have one. 0: nobody knows, for what was read from disk.
    pub data_tail: u8,
    /// Which event.
    pub kind: EventKind,
    /// Length of the frame's header: 2, 4 or 10; the payload begins after it.
    pub payload_at: u8,
    /// How many digits `s` has.
    pub digits: u8,
}

/// Frames that follow each other without a gap, all of one stream, borrowed from the log.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The stream to which they belong.
    pub stream: StreamId,
    /// One per frame, positions rising by one; never empty in [`Read::Memory`].
    pub metas: &'a [Meta],
    /// The bytes into which [`Meta::offset`] points; may hold more than this run's frames.
    pub bytes: &'a [u8],
}

impl Meta {
    /// The value of `d` in the entry's payload. None: the payload has to be scanned.
    #[must_use]
    pub fn data<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        let end =
            payload.len().checked_sub(usize::from(self.data_tail)).filter(|end| *end < payload.len())?;
        payload.get(self.data_at as usize..end)
    }

    /// Bits of the intents that an event needs; see [`Meta::needs`]. Discord's fit: there are 26.
    pub(super) fn needs(kind: EventKind, guild: u64) -> u32 {
        u32::try_from(Intents::needs(kind, guild != 0).bits()).unwrap_or(u32::MAX)
    }
}

impl<'a> Run<'a> {
    /// The frame of `metas[index]`: WebSocket header and payload.
    #[must_use]
    pub fn frame(&self, index: usize) -> &'a [u8] {
        self.frames(index..index + 1)
    }

    /// The payload of `metas[index]`, JSON with the position as `s`.
    #[must_use]
    pub fn payload(&self, index: usize) -> &'a [u8] {
        &self.frame(index)[usize::from(self.metas[index].payload_at)..]
    }

    /// The frames of `metas[range]` as one piece, ready to be written; empty for an empty range.
    #[must_use]
    pub fn frames(&self, range: Range<usize>) -> &'a [u8] {
        let metas = &self.metas[range];
        match (metas.first(), metas.last()) {
            (Some(first), Some(last)) => {
                &self.bytes[first.offset as usize..(last.offset + last.len) as usize]
            }
            _ => &[],
        }
    }
}

/// A run that owns its bytes: read from disk. Empty when what was asked for has gone meanwhile; the log's
/// next [`read`](super::Log::read) then says how far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRun {
    /// The stream to which the frames belong.
    pub stream: StreamId,
    /// One per frame.
    pub metas: Vec<Meta>,
    /// The frames, and nothing else.
    pub bytes: Vec<u8>,
}

impl OwnedRun {
    /// The same, borrowed.
    #[must_use]
    pub fn as_run(&self) -> Run<'_> {
        Run { stream: self.stream, metas: &self.metas, bytes: &self.bytes }
    }

    pub(super) fn empty(stream: StreamId) -> OwnedRun {
        OwnedRun { stream, metas: Vec::new(), bytes: Vec::new() }
    }

    /// Copies frames from a run behind those that are here.
    pub(super) fn extend(&mut self, run: &Run<'_>, range: Range<usize>) {
        let bytes = run.frames(range.clone());
        let mut at = offset(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        for meta in &run.metas[range] {
            self.metas.push(Meta { offset: at, ..*meta });
            at += meta.len;
        }
    }
}

/// The answer to a read.
#[derive(Debug)]
pub enum Read<'a> {
    /// Nothing follows yet.
    End,
    /// Entries in memory; the first is the one asked for.
    Memory(Run<'a>),
    /// Entries on disk (or on their way there): to be read where blocking is allowed.
    Disk(DiskRead),
    /// The entry asked for is no longer there. The oldest one above that is.
    Gone {
        /// Where the log can be read again: a reader that goes on continues after `oldest - 1`.
        oldest: Position,
    },
}

/// Between two positions events may be missing, because Discord gave a new session instead of a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The stream that ended.
    pub stream: StreamId,
    /// Its last position.
    pub from: Position,
    /// The first position of the next stream.
    pub to: Position,
}

/// A place in a block or payload as stored. Blocks stay far below 4 GiB: payloads are bounded where they come in.
pub(super) fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("payloads and blocks are bounded far below 4 GiB")
}
