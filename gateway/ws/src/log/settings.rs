// SPDX-License-Identifier: AGPL-3.0-only
//! Bounds of the log. Passed in as values by the service's settings; nothing here reads a file.

use std::time::Duration;

/// Bounds of one shard's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes in memory: 8 MiB are about 6,500 events of 1.2 KiB, so a burst of 5,000 stays in memory;
    /// 16 shards take 128 MiB at most. Allocated as it fills, in blocks of at most an eighth.
    pub memory_bytes: usize,
    /// Bytes on disk: 256 MiB are about 210,000 events, over an hour at 50 events/s and shard.
    pub disk_bytes: u64,
    /// Segments whose newest entry is older are removed, unless a checkpoint still needs them.
    pub max_age: Duration,
    /// A batch is due at this number of entries: 256 × 1.2 KiB = 307 KiB, in pieces of at most 256 KiB per write.
    pub batch_events: u64,
    /// A batch is due when its oldest entry is this old: what `kill -9` can take, and Discord replays.
    pub batch_delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            memory_bytes: 8 << 20,
            disk_bytes: 256 << 20,
            max_age: Duration::from_secs(24 * 60 * 60),
            batch_events: 256,
            batch_delay: Duration::from_millis(250),
        }
    }
}

impl Settings {
    /// A new segment begins at a sixteenth of the bound on disk, 16 MiB of 256: retention removes whole ones,
    /// so at least 15/16 of the bound hold entries.
    pub(super) fn segment_bytes(&self) -> u64 {
        (self.disk_bytes / 16).max(1)
    }

    /// Blocks grow up to 256 KiB, so that a shard with little traffic takes little, but not beyond an eighth
    /// of the bound: eviction removes whole ones.
    pub(super) fn block_max(&self) -> usize {
        (self.memory_bytes / 8).clamp(256, 256 << 10)
    }

    /// The first block of a log: 64 KiB are about 50 events.
    pub(super) fn block_first(&self) -> usize {
        self.block_max().min(64 << 10)
    }

    /// A batch copies at most this much at once (or a single larger entry).
    pub(super) fn batch_bytes(&self) -> usize {
        (self.memory_bytes / 8).clamp(256, 256 << 10)
    }

    /// Batches on their way to the disk hold at most a quarter of the bound on memory, which they count into.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.memory_bytes / 4
    }
}

/// Bounds of the writer thread that all shards share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterSettings {
    /// Batches in its queue. A full queue holds nobody up: logs keep their entries and try again. In bytes it
    /// is bounded by each log's own share, a quarter of [`Settings::memory_bytes`].
    pub queue: usize,
    /// How often segments are looked through for age.
    pub housekeeping: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        WriterSettings { queue: 1024, housekeeping: Duration::from_secs(10) }
    }
}
