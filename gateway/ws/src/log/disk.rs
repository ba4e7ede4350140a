// SPDX-License-Identifier: AGPL-3.0-only
//! What a log, its readers and the writer share about a shard's segments: the index and a few numbers.
//! In: what the writer has written. Out: places to read, and [`DiskRead`], which reads where blocking is allowed.
//! The index is locked for moments only, never across a call to the file system.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::batch::Batch;
use super::entry::{OwnedRun, Position};
use super::format::{self, BATCH_HEADER};
use super::index::{Found, Index, Place, Segment};
use super::{Settings, StreamId};

/// Shared state of one shard's segments.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) dir: PathBuf,
    pub(super) settings: Settings,
    index: Mutex<Index>,
    stored: AtomicU64,
    oldest: AtomicU64,
    bytes: AtomicU64,
    keep_from: AtomicU64,
    failed_attempt: AtomicU64,
    damaged: AtomicU64,
}

impl Disk {
    pub(super) fn new(dir: PathBuf, settings: Settings, index: Index, stored: Position) -> Disk {
        let disk = Disk {
            dir,
            settings,
            index: Mutex::new(Index::default()),
            stored: AtomicU64::new(stored),
            oldest: AtomicU64::new(u64::MAX),
            bytes: AtomicU64::new(0),
            keep_from: AtomicU64::new(u64::MAX),
            failed_attempt: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        };
        disk.change(|own| *own = index);
        disk
    }

    /// Changes the index, and what can be read without its lock along with it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        let mut index = self.lock();
        let result = change(&mut index);
        self.oldest.store(index.oldest().unwrap_or(u64::MAX), Ordering::Release);
        self.bytes.store(index.bytes(), Ordering::Release);
        result
    }

    pub(super) fn find(&self, position: Position) -> Found {
        self.lock().find(position)
    }

    pub(super) fn next_readable(&self, from: Position) -> Option<Position> {
        self.lock().readable_from(from)
    }

    pub(super) fn after_holes(&self) -> Position {
        self.lock().after_holes()
    }

    /// The newest segment.
    pub(super) fn newest(&self) -> Option<Segment> {
        self.lock().segments.back().cloned()
    }

    /// A batch of `len` bytes stands whole in the newest segment.
    pub(super) fn written(&self, batch: &Batch, len: u64) {
        let newest_ms = batch.run.metas.iter().map(|meta| meta.received_ms).max().unwrap_or(0);
        self.change(|index| {
            if let Some(segment) = index.segments.back_mut() {
                segment.grow(batch.first, batch.last(), len, newest_ms);
            }
        });
        self.stored.fetch_max(batch.last(), Ordering::AcqRel);
    }

    pub(super) fn stored(&self) -> Position {
        self.stored.load(Ordering::Acquire)
    }

    /// Oldest position on disk; `u64::MAX` while there is none.
    pub(super) fn oldest(&self) -> Position {
        self.oldest.load(Ordering::Acquire)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// See [`Index::bytes_after`].
    pub(super) fn bytes_after(&self, position: Position) -> u64 {
        self.lock().bytes_after(position)
    }

    pub(super) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// First position that a checkpoint needs; `u64::MAX` while none does.
    pub(super) fn keep_from(&self) -> Position {
        self.keep_from.load(Ordering::Acquire)
    }

    pub(super) fn set_keep_from(&self, position: Position) {
        self.keep_from.store(position, Ordering::Release);
    }

    /// The latest of the log's attempts of which a write failed.
    pub(super) fn failed_attempt(&self) -> u64 {
        self.failed_attempt.load(Ordering::Acquire)
    }

    pub(super) fn fail(&self, attempt: u64) {
        self.failed_attempt.fetch_max(attempt, Ordering::AcqRel);
    }

    pub(super) fn add_hole(&self, from: Position, to: Position) {
        self.change(|index| index.add_hole(from, to));
    }

    fn add_damage(&self, from: Position, to: Position) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(from, to, dir = %self.dir.display(), "part of the log on disk is damaged: left out");
        self.add_hole(from, to);
    }

    /// Removes segments beyond the bounds, oldest first, never the newest. `room` is what is about to be
    /// written on top. Returns the paths, for the caller to remove outside the lock.
    pub(super) fn retire(&self, now_ms: u64, room: u64) -> Vec<PathBuf> {
        let max_age = u64::try_from(self.settings.max_age.as_millis()).unwrap_or(u64::MAX);
        let keep_from = self.keep_from();
        self.change(|index| {
            let mut retired = Vec::new();
            while index.segments.len() > 1
                && let Some(oldest) = index.segments.front()
            {
                let over = index.bytes() + room > self.settings.disk_bytes;
                let aged = oldest.newest_ms.saturating_add(max_age) < now_ms && oldest.last < keep_from;
                if !over && !aged {
                    break;
                }
                retired.extend(index.segments.pop_front().map(|segment| segment.path));
            }
            index.trim();
            retired
        })
    }

    /// Nothing of the index is left half-changed by a panic: all changes end in plain stores.
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read that has to wait for the disk: owned, to be moved to where blocking is allowed.
#[derive(Clone, Debug)]
pub struct DiskRead {
    after: Position,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Disk(Arc<Disk>),
    /// Evicted from memory while on its way to the disk.
    InFlight(Arc<Batch>),
}

impl DiskRead {
    pub(super) fn of_disk(disk: &Arc<Disk>, after: Position) -> DiskRead {
        DiskRead { after, source: Source::Disk(Arc::clone(disk)) }
    }

    pub(super) fn of_batch(batch: &Arc<Batch>, after: Position) -> DiskRead {
        DiskRead { after, source: Source::InFlight(Arc::clone(batch)) }
    }

    /// Reads entries of one stream that follow each other, until `max_bytes` are reached; at least one batch's.
    ///
    /// Empty when what was there has gone meanwhile (removed, or found damaged): ask the log again.
    ///
    /// # Errors
    /// When the file system reports one.
    pub fn read(&self, max_bytes: usize) -> io::Result<OwnedRun> {
        let next = self.after + 1;
        let disk = match &self.source {
            Source::InFlight(batch) => return Ok(from(&batch.run, next)),
            Source::Disk(disk) => disk,
        };
        let nothing = OwnedRun::empty(StreamId::from_number(0));
        let Found::Here(place) = disk.find(next) else { return Ok(nothing) };
        let read = File::open(&place.path).and_then(|file| read_batches(file, &place, next, max_bytes));
        let lost_to = match read {
            Ok(Ok(run)) => return Ok(run),
            Ok(Err(lost_to)) => lost_to,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {
                place.last
            }
            Err(error) => return Err(error),
        };
        // Unless retention has removed it in this moment, the file isn't what it was when it was written.
        if disk.find(next) == Found::Here(place) {
            disk.add_damage(next, lost_to);
        }
        Ok(nothing)
    }
}

/// Reads from `next` on. The inner error: the damage begins there and ends at this position.
fn read_batches(
    mut file: File,
    place: &Place,
    mut next: Position,
    max_bytes: usize,
) -> io::Result<Result<OwnedRun, Position>> {
    let mut out: Option<OwnedRun> = None;
    let mut offset = place.offset;
    let mut lost_to = place.last;
    while offset + BATCH_HEADER as u64 <= place.end {
        let mut header = [0; BATCH_HEADER];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut header)?;
        // Behind a part that recovery left out there is a mark of its own: nothing is searched for here.
        let whole = format::batch_header(&header).filter(|header| offset + header.len() <= place.end);
        let Some(header) = whole else { break };
        offset += header.len();
        if header.last() < next {
            continue;
        }
        if header.first > next {
            lost_to = header.first - 1;
            break;
        }
        let full = out.as_ref().is_some_and(|out| {
            out.stream != header.stream || out.bytes.len() + header.body_len() > max_bytes
        });
        if full {
            break;
        }
        let mut body = vec![0; header.body_len()];
        file.read_exact(&mut body)?;
        let Ok(run) = format::batch(&header, &body) else {
            lost_to = header.last();
            break;
        };
        match &mut out {
            Some(out) => out.extend(&run.as_run(), 0..run.metas.len()),
            None => out = Some(from(&run, next)),
        }
        next = header.last() + 1;
    }
    Ok(out.ok_or(lost_to))
}

/// The part of a run from a position on.
fn from(run: &OwnedRun, position: Position) -> OwnedRun {
    let start = run.metas.partition_point(|meta| meta.position < position);
    if start == 0 {
        return run.clone();
    }
    let mut rest = OwnedRun::empty(run.stream);
    rest.extend(&run.as_run(), start..run.metas.len());
    rest
}

/// The file that holds a log's entries from `first` on.
pub(super) fn segment_path(dir: &Path, first: Position) -> PathBuf {
    dir.join(format!("{first:020}.seg"))
}
