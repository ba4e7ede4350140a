// SPDX-License-Identifier: AGPL-3.0-only
//! Reads what an earlier process left: in, a directory of segments; out, an index and where to go on.
//! A torn tail (the end of a write that was cut off) is truncated; a damaged part becomes a hole, and what follows
//! it is kept; what isn't a segment is renamed. Nothing that can't be read is deleted. Blocks: for start-up.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::disk::Disk;
use super::entry::{FIRST, Position};
use super::format::{self, BATCH_HEADER, BATCH_MAGIC, BatchHeader, FormatError, SEGMENT_HEADER};
use super::handover::Handover;
use super::index::{Index, Segment};
use super::{Log, Settings, StreamId, Writer};

/// What was found when a log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The last position; 1 for a new log.
    pub last_position: Position,
    /// Discord's latest sequence in `stream`.
    pub last_sequence: Option<u64>,
    /// The stream of the last entry; a new one for a new log.
    pub stream: StreamId,
    /// What could not be used, in words for the operator.
    pub warnings: Vec<String>,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the log at {} can't be opened", path.display())]
pub struct OpenError {
    /// The file or directory concerned.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

trait At<T> {
    fn at(self, path: &Path) -> Result<T, OpenError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, OpenError> {
        self.map_err(|source| OpenError { path: path.to_owned(), source })
    }
}

pub(super) fn open(dir: &Path, settings: Settings, writer: &Writer) -> Result<(Log, Recovered), OpenError> {
    let dir = dir.join("log");
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).at(&dir)?;
    let mut scan = Scan::default();
    let mut files = list(&dir)?;
    let newest = files.len().saturating_sub(1);
    for (at, path) in files.drain(..).enumerate() {
        scan.segment(path, at == newest)?;
    }
    let last = scan.last.max(FIRST - 1);
    let stream = scan.newest.map_or_else(StreamId::random, |header| header.stream);
    let last_sequence = scan.newest.and_then(|header| header.last_sequence);
    let tail = scan.tail_start(settings.memory_bytes / 2);
    let disk = Arc::new(Disk::new(dir.clone(), settings.clone(), scan.index, last));
    let handover = Handover::new(disk, writer.queue(), last, stream, last_sequence);
    let mut log = Log::assemble(settings, last, stream, handover);
    if let Some(first) = tail {
        log.load_tail(first - 1).at(&dir)?;
    }
    let recovered = Recovered { last_position: last, last_sequence, stream, warnings: scan.warnings };
    Ok((log, recovered))
}

/// The segments in order of their names.
fn list(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).at(dir)? {
        let path = entry.at(dir)?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Default)]
struct Scan {
    index: Index,
    last: Position,
    newest: Option<BatchHeader>,
    warnings: Vec<String>,
}

impl Scan {
    fn segment(&mut self, path: PathBuf, newest: bool) -> Result<(), OpenError> {
        let mut file = File::open(&path).at(&path)?;
        let len = file.metadata().at(&path)?.len();
        let mut header = Vec::with_capacity(SEGMENT_HEADER);
        (&mut file).take(SEGMENT_HEADER as u64).read_to_end(&mut header).at(&path)?;
        if newest && header.len() < SEGMENT_HEADER && is_beginning(&header) {
            // Cut off while it was created: it never had an entry.
            return std::fs::remove_file(&path).at(&path);
        }
        let named = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let first = match format::segment_header(&header) {
            Ok(first) if named == Some(first) && first >= FIRST => first,
            Ok(_) => return self.set_aside(&path, FormatError::Foreign),
            Err(error) => return self.set_aside(&path, error),
        };
        if first <= self.last {
            // Only a file from elsewhere begins before the end of the one before it.
            return self.set_aside(&path, FormatError::Foreign);
        }
        let segment = Segment::new(path.clone(), first, SEGMENT_HEADER as u64);
        self.batches(file, len, segment, newest).at(&path)
    }

    /// Walks through a segment's batches. Bodies are only verified in the newest: elsewhere reads do it.
    fn batches(&mut self, mut file: File, len: u64, mut segment: Segment, verify: bool) -> io::Result<()> {
        let mut expected = segment.first;
        if self.last > 0 {
            self.index.add_hole(self.last + 1, segment.first - 1);
        }
        self.last = segment.first - 1;
        while segment.bytes < len {
            let Some(header) = whole_batch(&mut file, segment.bytes, len, verify)? else {
                let Some(next) = resync(&mut file, segment.bytes + 1, len, verify)? else {
                    self.torn(&segment, len, verify)?;
                    break;
                };
                self.warnings.push(format!(
                    "{}: bytes {} to {next} are damaged; the events in them are lost, the rest is kept",
                    segment.path.display(),
                    segment.bytes
                ));
                segment.bytes = next;
                expected = 0;
                continue;
            };
            self.index.add_hole(self.last + 1, header.first - 1);
            if expected != header.first {
                segment.mark(header.first);
            }
            segment.grow(header.first, header.last(), header.len(), header.newest_ms);
            self.last = self.last.max(header.last());
            expected = header.last() + 1;
            self.newest = Some(header);
        }
        self.index.segments.push_back(segment);
        Ok(())
    }

    /// Nothing that could be read follows: the end of a write that was cut off.
    fn torn(&mut self, segment: &Segment, len: u64, newest: bool) -> io::Result<()> {
        if !newest {
            self.warnings.push(format!(
                "{}: {} bytes at its end are damaged and were cut off",
                segment.path.display(),
                len - segment.bytes
            ));
        }
        OpenOptions::new().write(true).open(&segment.path)?.set_len(segment.bytes)
    }

    fn set_aside(&mut self, path: &Path, why: FormatError) -> Result<(), OpenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".set-aside-{now}"));
        let aside = PathBuf::from(aside);
        std::fs::rename(path, &aside).at(path)?;
        self.warnings.push(format!("{}: {why}; set aside as {}", path.display(), aside.display()));
        Ok(())
    }

    /// Where to begin loading so that about `bytes` are loaded.
    fn tail_start(&self, bytes: usize) -> Option<Position> {
        let mut sum = 0;
        let mut first = None;
        for segment in self.index.segments.iter().rev() {
            for (position, offset) in segment.marks.iter().rev() {
                first = Some(*position);
                if sum + (segment.bytes - offset) > bytes as u64 {
                    return first;
                }
            }
            sum += segment.bytes;
        }
        first
    }
}

fn is_beginning(header: &[u8]) -> bool {
    let whole = format::write_segment_header(0);
    header.iter().zip(&whole).take(16).all(|(found, expected)| found == expected)
}

/// The batch at `offset`, if it is whole.
fn whole_batch(file: &mut File, offset: u64, len: u64, verify: bool) -> io::Result<Option<BatchHeader>> {
    if offset + BATCH_HEADER as u64 > len {
        return Ok(None);
    }
    let mut header = [0; BATCH_HEADER];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut header)?;
    let Some(header) = format::batch_header(&header).filter(|h| offset + h.len() <= len) else {
        return Ok(None);
    };
    if verify {
        let mut body = vec![0; header.body_len()];
        file.read_exact(&mut body)?;
        if !format::body_is_whole(&header, &body) {
            return Ok(None);
        }
    }
    Ok(Some(header))
}

/// Looks for the next whole batch from `offset` on. Payloads are read at most once each.
fn resync(file: &mut File, offset: u64, len: u64, verify: bool) -> io::Result<Option<u64>> {
    const CHUNK: usize = 1 << 20;
    let mut at = offset;
    let mut chunk = Vec::with_capacity(CHUNK);
    while at + BATCH_HEADER as u64 <= len {
        chunk.clear();
        file.seek(SeekFrom::Start(at))?;
        file.take(CHUNK as u64).read_to_end(&mut chunk)?;
        for found in memchr::memmem::find_iter(&chunk, BATCH_MAGIC) {
            let candidate = at + found as u64;
            if whole_batch(file, candidate, len, verify)?.is_some() {
                return Ok(Some(candidate));
            }
        }
        // The next chunk begins with the last three bytes of this one, where the mark may begin.
        at += (chunk.len().max(BATCH_MAGIC.len()) - (BATCH_MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}
