// SPDX-License-Identifier: AGPL-3.0-only
//! A shard's bounded log of its latest events: the only queue between the shard and its readers.
//! In: whole dispatch payloads, each once. Out: ready-made WebSocket text frames, by position, from memory
//! (the ring) or from segments on disk, which a writer thread shared by all shards writes behind.
//! The shard's task owns the [`Log`]; it never touches the disk. The [`Writer`]'s thread ends with the process's
//! drain, or when the last log and the last handle on it are gone.

mod batch;
mod disk;
mod entry;
mod format;
mod handover;
mod index;
mod recover;
mod replay;
mod ring;
mod segment;
mod settings;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::time::Instant;

pub use disk::DiskRead;
pub use entry::{Entry, FIRST, Gap, Meta, OwnedRun, Position, Read, Run};
pub use handover::Flush;
pub use holdfast_cluster::StreamId;
pub use recover::{OpenError, Recovered};
pub use replay::Replayed;
pub use settings::{Settings, WriterSettings};
pub use writer::{Counts, Writer};

use handover::{Due, Handover};
use ring::Ring;

use crate::frames::{self, Opcode};

/// One shard's log. See the module's documentation.
#[derive(Debug)]
pub struct Log {
    settings: Settings,
    ring: Ring,
    last: Position,
    stream: StreamId,
    last_sequence: Option<u64>,
    handover: Option<Handover>,
}

/// How full a log is, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Bytes in memory: blocks, their entries' descriptions, batches on their way to the disk. A block that is both counts
    /// twice.
    pub memory_bytes: u64,
    /// Entries in memory.
    pub memory_entries: u64,
    /// Bytes of all segments on disk.
    pub disk_bytes: u64,
    /// Entries that were evicted from memory before they reached the disk (since start).
    pub dropped_unstored: u64,
    /// Batches on disk that turned out damaged when they were read (since start).
    pub damaged: u64,
    /// Entries not yet handed to the writer.
    pub pending: u64,
}

impl Log {
    /// An empty log that lives in memory only, with a new stream.
    #[must_use]
    pub fn in_memory(settings: Settings) -> Log {
        Log {
            ring: Ring::new(&settings),
            settings,
            last: FIRST - 1,
            stream: StreamId::random(),
            last_sequence: None,
            handover: None,
        }
    }

    /// Opens the log in `<dir>/log`, creating it where it is absent, and loads its tail into memory.
    ///
    /// Blocks: for start-up. What can't be read is set aside or left out, each with a warning in [`Recovered`].
    ///
    /// # Errors
    /// When the directory can't be created or listed, or a segment can't be opened, cut or renamed.
    pub fn open(dir: &Path, settings: Settings, writer: &Writer) -> Result<(Log, Recovered), OpenError> {
        recover::open(dir, settings, writer)
    }

    /// Appends an event and returns its position. Builds its frame once; never waits.
    ///
    /// Where the memory bound needs it, the oldest block is evicted, stored or not.
    pub fn append(&mut self, entry: Entry<'_>) -> Position {
        let position = self.last + 1;
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(position).as_bytes();
        let range = entry.sequence_range;
        let payload_len = entry.payload.len() - range.len() + digits.len();
        let (header, header_len) = frames::header(Opcode::Text, payload_len);
        let frame_len = header_len + payload_len;
        if !self.ring.fits(frame_len) {
            self.make_room(frame_len);
        }
        // What stands behind `s` moves with the length of its digits.
        let before = entry.data.start < range.end;
        let data_at = if before { entry.data.start } else { entry.data.start - range.len() + digits.len() };
        let tail = if entry.data.is_empty() { 0 } else { entry.payload.len() - entry.data.end };
        let meta = Meta {
            position,
            sequence: entry.sequence,
            guild: entry.guild,
            audience: entry.audience,
            received_ms: entry.received_ms,
            needs: Meta::needs(entry.kind, entry.guild),
            offset: 0,
            len: entry::offset(frame_len),
            digits_at: entry::offset(range.start),
            data_at: entry::offset(data_at),
            data_tail: if before { 0 } else { u8::try_from(tail).unwrap_or(0) },
            kind: entry.kind,
            payload_at: header_len as u8,
            digits: digits.len() as u8,
        };
        let parts =
            [&header[..header_len], &entry.payload[..range.start], digits, &entry.payload[range.end..]];
        self.ring.push(meta, parts);
        self.last = position;
        if entry.sequence.is_some() {
            self.last_sequence = entry.sequence;
        }
        position
    }

    /// What follows the position `after`. Never touches the disk.
    #[must_use]
    pub fn read(&self, after: Position) -> Read<'_> {
        if after >= self.last {
            return Read::End;
        }
        if let Some(run) = self.ring.run_from(after + 1) {
            return Read::Memory(run);
        }
        let oldest = self.oldest_in_memory();
        match &self.handover {
            Some(handover) => handover.read(after, oldest),
            None => Read::Gone { oldest },
        }
    }

    /// Position of the latest entry; 1 for a log that never had one.
    #[must_use]
    pub fn last(&self) -> Position {
        self.last
    }

    /// The latest sequence of Discord's in this stream; `None` before its first.
    #[must_use]
    pub fn last_sequence(&self) -> Option<u64> {
        self.last_sequence
    }

    /// Oldest position that can still be read, from memory or from disk; `last() + 1` when none can.
    #[must_use]
    pub fn oldest(&self) -> Position {
        let memory = self.oldest_in_memory();
        self.handover.as_ref().map_or(memory, |handover| memory.min(handover.oldest()))
    }

    /// Oldest position in memory; `last() + 1` when there is none.
    #[must_use]
    pub fn oldest_in_memory(&self) -> Position {
        self.ring.oldest().unwrap_or(self.last + 1)
    }

    /// The position from which on nothing is missing up to `last()`.
    #[must_use]
    pub fn unbroken_from(&self) -> Position {
        let memory = self.oldest_in_memory();
        self.handover.as_ref().map_or(memory, |handover| handover.unbroken_from(memory))
    }

    /// Highest position that is in the file system's hands; in a log without a disk `last()`.
    #[must_use]
    pub fn stored(&self) -> Position {
        self.handover.as_ref().map_or(self.last, Handover::stored)
    }

    /// Highest sequence of this stream that a restart would find; in a log without a disk the last one.
    ///
    /// A heartbeat that acknowledges no more than this lets Discord keep what a crash here would lose.
    #[must_use]
    pub fn stored_sequence(&self) -> Option<u64> {
        match &self.handover {
            Some(handover) => handover.stored_sequence(self.stream),
            None => self.last_sequence,
        }
    }

    /// The stream to which the next entry will belong.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Begins a stream: entries from here on belong to another upstream session. Positions go on.
    pub fn start_stream(&mut self, stream: StreamId) -> Gap {
        let gap = Gap { stream: self.stream, from: self.last, to: self.last + 1 };
        self.stream = stream;
        self.last_sequence = None;
        self.ring.seal();
        if let Some(handover) = &mut self.handover {
            handover.stream_changed();
        }
        gap
    }

    /// Lets positions go on after `last`, if the log itself is behind it: when what another record knows of
    /// (a session's, a client's) is no longer here, positions must not be given twice.
    pub fn skip_to(&mut self, last: Position) {
        if last <= self.last {
            return;
        }
        if let Some(handover) = &mut self.handover {
            handover.flush(Due::All, &self.ring, self.stream);
            handover.skip(&self.ring, self.last, last);
        }
        self.ring.clear();
        self.last = last;
    }

    /// Hands a batch to the writer when one is due: enough entries, or old enough ones. Returns whether it did.
    ///
    /// To be called after each round of appends and at least at every [`Settings::batch_delay`].
    pub fn flush_due(&mut self, now: Instant) -> bool {
        let (stream, last) = (self.stream, self.last);
        let Some(handover) = &mut self.handover else { return false };
        match handover.due(now, last, &self.ring) {
            Due::Nothing => false,
            due => handover.flush(due, &self.ring, stream) == Flush::Handed,
        }
    }

    /// Hands everything to the writer that it takes now.
    pub fn flush(&mut self) -> Flush {
        let stream = self.stream;
        self.handover.as_mut().map_or(Flush::Idle, |handover| handover.flush(Due::All, &self.ring, stream))
    }

    /// The first position that is still needed (the oldest guild checkpoint's next): age doesn't remove it from
    /// disk. The bound on disk does: see [`Log::cut_above_checkpoint`].
    pub fn keep_from(&self, position: Position) {
        if let Some(handover) = &self.handover {
            handover.keep_from(position);
        }
    }

    /// Whether the bound on disk has removed entries from the position given to [`Log::keep_from`] on.
    #[must_use]
    pub fn cut_above_checkpoint(&self) -> bool {
        self.handover.as_ref().is_some_and(Handover::cut_above_checkpoint)
    }

    /// Whether the next entries would push out some that aren't on disk yet: the writer is behind. A disk that
    /// fails doesn't count: waiting wouldn't help.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        let Some(handover) = &self.handover else { return false };
        let room = self.settings.memory_bytes.saturating_sub(2 * self.settings.block_max());
        let unstored = self.ring.oldest_block_end().is_some_and(|last| last > handover.stored());
        unstored && !handover.has_failed() && self.ring.bytes() + handover.in_flight_bytes() > room
    }

    /// Gives back the memory of entries that came in before this time (milliseconds of Unix time) and can be
    /// read from disk. A log without a disk keeps them.
    pub fn forget_before(&mut self, unix_ms: u64) {
        let Some(handover) = &mut self.handover else { return };
        while let (Some(last), Some(received)) =
            (self.ring.oldest_block_end(), self.ring.oldest_block_received_ms())
            && received < unix_ms
            && last <= handover.stored()
        {
            let Some(evicted) = self.ring.evict() else { return };
            handover.evicted(evicted.first(), last);
        }
    }

    /// Bytes in memory; see [`Fill::memory_bytes`].
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let in_flight = self.handover.as_ref().map_or(0, Handover::in_flight_bytes);
        (self.ring.bytes() + in_flight) as u64
    }

    /// Bytes of all segments on disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.handover.as_ref().map_or(0, Handover::disk_bytes)
    }

    /// Bytes of what is above a position, on disk or not there yet: what a reader that stands there has before it.
    /// Within a segment the bytes are taken to be spread evenly.
    #[must_use]
    pub fn bytes_after(&self, position: Position) -> u64 {
        let on_disk = self.handover.as_ref().map_or(0, |handover| handover.disk().bytes_after(position));
        let from = if self.handover.is_some() { position.max(self.stored()) } else { position };
        on_disk + self.ring.bytes_after(from)
    }

    /// Bytes beyond which the oldest entries go: the bound on disk, or of a log without a disk the one on memory.
    #[must_use]
    pub fn bound(&self) -> u64 {
        match &self.handover {
            Some(_) => self.settings.disk_bytes,
            None => self.settings.memory_bytes as u64,
        }
    }

    /// All numbers that metrics show.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let mut fill = Fill {
            memory_bytes: self.memory_bytes(),
            memory_entries: self.ring.entries(),
            disk_bytes: self.disk_bytes(),
            ..Fill::default()
        };
        if let Some(handover) = &self.handover {
            handover.describe(&mut fill, self.last);
        }
        fill
    }

    /// Evicts until a new block for a frame of `len` bytes fits the bound, then opens it.
    fn make_room(&mut self, len: usize) {
        let size = self.ring.next_block(len);
        let mut spare = None;
        loop {
            let in_flight = self.handover.as_mut().map_or(0, Handover::settle);
            if self.ring.bytes() + in_flight + size <= self.settings.memory_bytes {
                break;
            }
            let Some(oldest_last) = self.ring.oldest_block_end() else { break };
            if let Some(handover) = &mut self.handover
                && handover.handed() < oldest_last
            {
                // The block that is still being filled may be the one that has to go.
                let due = if self.ring.is_closed(oldest_last) { Due::Many } else { Due::All };
                handover.flush(due, &self.ring, self.stream);
            }
            let Some(evicted) = self.ring.evict() else { break };
            if let Some(handover) = &mut self.handover {
                handover.evicted(evicted.first(), oldest_last);
            }
            spare = evicted.into_run();
        }
        self.ring.open(size, self.stream, spare);
    }

    fn assemble(settings: Settings, last: Position, stream: StreamId, handover: Handover) -> Log {
        let last_sequence = handover.stored_sequence(stream);
        Log { ring: Ring::new(&settings), settings, last, stream, last_sequence, handover: Some(handover) }
    }
}
