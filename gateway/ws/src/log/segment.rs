// SPDX-License-Identifier: AGPL-3.0-only
//! The segment that a shard's batches are appended to. In: batches. Out: bytes in the page cache.
//! A write is not followed by fsync: what `write` has taken survives `kill -9`, and after a power cut Discord's
//! session is gone or replays. Segments are synced when they are full and when the process ends.
//! Owned by the writer's thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

use super::batch::Batch;
use super::disk::{self, Disk};
use super::format::{self, SEGMENT_HEADER};
use super::index::Segment;

/// The open segment of one shard.
#[derive(Debug, Default)]
pub(super) struct Appender {
    active: Option<Active>,
    descriptions: Vec<u8>,
}

#[derive(Debug)]
struct Active {
    file: File,
    bytes: u64,
}

impl Appender {
    /// Writes a batch behind what is there, in a new segment where the last one is full. Returns its length.
    pub(super) fn append(&mut self, disk: &Disk, batch: &Batch, syncer: &Syncer) -> io::Result<u64> {
        format::write_batch(batch, &mut self.descriptions);
        let len = (self.descriptions.len() + batch.run.bytes.len()) as u64;
        let limit = disk.settings.segment_bytes();
        if self.active.is_none() {
            self.active = reopen(disk)?;
        }
        if self.active.as_ref().is_some_and(|a| a.bytes > SEGMENT_HEADER as u64 && a.bytes + len > limit) {
            if let Some(full) = self.active.take() {
                syncer.sync(full.file);
            }
            remove(disk, limit.max(len));
        }
        let active = match &mut self.active {
            Some(active) => active,
            none => none.insert(create(disk, batch)?),
        };
        let written =
            active.file.write_all(&self.descriptions).and_then(|()| active.file.write_all(&batch.run.bytes));
        if let Err(error) = written {
            // What was written in part is cut off; where even that fails, recovery does it.
            let _ = active.file.set_len(active.bytes);
            self.active = None;
            return Err(error);
        }
        active.bytes += len;
        disk.written(batch, len);
        Ok(len)
    }

    /// Brings what was written last to the storage itself.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.active.as_ref().map_or(Ok(()), |active| active.file.sync_data())
    }
}

/// Syncs full segments on a thread of its own: on a busy disk that takes long, and batches must not wait for it.
#[derive(Debug)]
pub(super) struct Syncer {
    files: SyncSender<File>,
}

impl Syncer {
    /// Files that may wait: a disk that is further behind than that has enough to do.
    const WAITING: usize = 8;

    pub(super) fn start() -> io::Result<Syncer> {
        let (files, full) = sync_channel::<File>(Self::WAITING);
        std::thread::Builder::new().name("log-sync".to_owned()).spawn(move || {
            for file in full {
                if let Err(error) = file.sync_data() {
                    tracing::warn!(%error, "a full segment of the log was not synced");
                }
            }
        })?;
        Ok(Syncer { files })
    }

    fn sync(&self, file: File) {
        // When too many wait, this one is left to the system, which writes it within seconds anyway.
        let _ = self.files.try_send(file);
    }
}

/// Removes segments beyond the bounds, making room for `room` bytes.
pub(super) fn remove(disk: &Disk, room: u64) {
    for path in disk.retire(now_ms(), room) {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a segment of the log could not be removed");
        }
    }
}

/// Goes on with the newest segment, if it is whole and known.
fn reopen(disk: &Disk) -> io::Result<Option<Active>> {
    let Some(segment) = disk.newest() else { return Ok(None) };
    let file = match OpenOptions::new().append(true).open(&segment.path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != segment.bytes {
        file.set_len(segment.bytes)?;
    }
    Ok(Some(Active { file, bytes: segment.bytes }))
}

fn create(disk: &Disk, batch: &Batch) -> io::Result<Active> {
    let path: PathBuf = disk::segment_path(&disk.dir, batch.first);
    let mut file = open_private(&path)?;
    file.write_all(&format::write_segment_header(batch.first))?;
    let bytes = SEGMENT_HEADER as u64;
    disk.change(|index| {
        // One that never got an entry has the same name.
        index.segments.retain(|segment| segment.path != path);
        index.segments.push_back(Segment::new(path, batch.first, bytes));
    });
    Ok(Active { file, bytes })
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
