// SPDX-License-Identifier: AGPL-3.0-only
//! The log's tail in memory: a queue of append-only blocks of ready-made frames, evicted whole, oldest first.
//! In: frames in parts. Out: runs of frames within a block. Owned by the log.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;

use super::entry::{self, Meta, OwnedRun, Position, Run};
use super::{Settings, StreamId};

/// Holds the positions from `oldest()` to the log's last without a gap.
#[derive(Debug)]
pub(super) struct Ring {
    blocks: VecDeque<Block>,
    bytes: usize,
    next_size: usize,
    block_max: usize,
}

/// Frames of one stream that follow each other. Never reallocated: it is closed when the next doesn't fit.
#[derive(Debug)]
pub(super) struct Block {
    /// Shared with the writer once it is closed: what is on its way to the disk isn't copied.
    run: Arc<OwnedRun>,
    sealed: bool,
}

/// Why the newest block can be changed.
const UNSHARED: &str = "only closed blocks are shared";

impl Block {
    /// Position of the first entry. Blocks are opened for an entry, so there is one.
    pub(super) fn first(&self) -> Position {
        self.run.metas.first().map_or(0, |meta| meta.position)
    }

    fn end(&self) -> Position {
        self.run.metas.last().map_or(0, |meta| meta.position)
    }

    /// Bytes of the frames above a position that is below the last.
    fn bytes_after(&self, position: Position) -> u64 {
        let index = usize::try_from((position + 1).saturating_sub(self.first())).unwrap_or(usize::MAX);
        let bytes = &self.run.bytes;
        let begins = self.run.metas.get(index).map_or(bytes.len(), |meta| meta.offset as usize);
        (bytes.len() - begins) as u64
    }

    /// Bytes that still fit.
    fn room(&self) -> usize {
        self.run.bytes.capacity() - self.run.bytes.len()
    }

    /// What it holds, to be written over. None: it is still on its way to the disk.
    pub(super) fn into_run(self) -> Option<OwnedRun> {
        Arc::into_inner(self.run)
    }

    fn cost(&self) -> usize {
        self.run.bytes.capacity() + self.run.metas.capacity() * size_of::<Meta>()
    }
}

impl Ring {
    pub(super) fn new(settings: &Settings) -> Ring {
        Ring {
            blocks: VecDeque::new(),
            bytes: 0,
            next_size: settings.block_first(),
            block_max: settings.block_max(),
        }
    }

    /// Whether the next frame can be pushed as it is.
    pub(super) fn fits(&self, len: usize) -> bool {
        self.blocks.back().is_some_and(|block| !block.sealed && block.room() >= len)
    }

    /// Size of the block that a frame of `len` bytes would open: a large one gets its own.
    pub(super) fn next_block(&self, len: usize) -> usize {
        if len > self.next_size / 2 { len } else { self.next_size }
    }

    /// Opens a block of at least `size` bytes, in the place of `spare` where that has the size.
    pub(super) fn open(&mut self, size: usize, stream: StreamId, spare: Option<OwnedRun>) {
        /// Room for descriptions at first; smaller frames make it grow.
        const USUAL_FRAME: usize = 1024;
        let run = match spare.filter(|run| run.bytes.capacity() == size) {
            Some(mut run) => {
                run.metas.clear();
                run.bytes.clear();
                OwnedRun { stream, ..run }
            }
            None => OwnedRun {
                stream,
                metas: Vec::with_capacity((size / USUAL_FRAME).max(1)),
                bytes: Vec::with_capacity(size),
            },
        };
        let block = Block { run: Arc::new(run), sealed: false };
        if size == self.next_size {
            self.next_size = (size * 2).min(self.block_max);
        }
        self.bytes += block.cost();
        self.blocks.push_back(block);
    }

    /// Appends a frame to the newest block, which must have room: `fits` or `open` came before.
    pub(super) fn push(&mut self, meta: Meta, parts: [&[u8]; 4]) {
        let block = self.blocks.back_mut().expect("a block was opened when the frame did not fit");
        let run = Arc::get_mut(&mut block.run).expect(UNSHARED);
        let offset = entry::offset(run.bytes.len());
        for part in parts {
            run.bytes.extend_from_slice(part);
        }
        let before = run.metas.capacity();
        run.metas.push(Meta { offset, ..meta });
        self.bytes += (run.metas.capacity() - before) * size_of::<Meta>();
    }

    /// Takes over a frame as it was read from disk, evicting within `bound`.
    pub(super) fn load(&mut self, meta: &Meta, frame: &[u8], stream: StreamId, bound: usize) {
        let same = self.blocks.back().is_some_and(|block| block.run.stream == stream);
        if !same || !self.fits(frame.len()) {
            let size = self.next_block(frame.len());
            let mut spare = None;
            while self.bytes + size > bound && !self.blocks.is_empty() {
                spare = self.evict().and_then(Block::into_run);
            }
            self.open(size, stream, spare);
        }
        self.push(*meta, [frame, &[], &[], &[]]);
    }

    /// The next frame will open a block: another stream begins.
    pub(super) fn seal(&mut self) {
        if let Some(block) = self.blocks.back_mut() {
            block.sealed = true;
        }
    }

    /// Seals what belongs to another stream than this.
    pub(super) fn seal_unless(&mut self, stream: StreamId) {
        if self.blocks.back().is_some_and(|block| block.run.stream != stream) {
            self.seal();
        }
    }

    /// Removes the oldest block.
    pub(super) fn evict(&mut self) -> Option<Block> {
        let block = self.blocks.pop_front()?;
        self.bytes -= block.cost();
        Some(block)
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.bytes = 0;
    }

    /// The entries from `position` to the end of its block.
    pub(super) fn run_from(&self, position: Position) -> Option<Run<'_>> {
        let block = &self.blocks[self.block_of(position)?];
        let index = usize::try_from(position - block.first()).ok()?;
        let run = block.run.as_run();
        let metas = run.metas.get(index..).filter(|metas| !metas.is_empty())?;
        Some(Run { metas, ..run })
    }

    /// Whether nothing more is added to the block that holds `position`.
    pub(super) fn is_closed(&self, position: Position) -> bool {
        let Some(at) = self.block_of(position) else { return false };
        at + 1 < self.blocks.len() || self.blocks[at].sealed || self.blocks[at].room() == 0
    }

    /// The whole block that begins with `position`, if nothing more is added to it.
    pub(super) fn closed_block(&self, position: Position) -> Option<Arc<OwnedRun>> {
        let block = &self.blocks[self.block_of(position)?];
        (block.first() == position && self.is_closed(position)).then(|| Arc::clone(&block.run))
    }

    /// Which block holds `position`, if any does.
    fn block_of(&self, position: Position) -> Option<usize> {
        let newest = self.blocks.len().checked_sub(1)?;
        if self.blocks[newest].first() <= position {
            return Some(newest);
        }
        self.blocks.partition_point(|block| block.first() <= position).checked_sub(1)
    }

    pub(super) fn oldest(&self) -> Option<Position> {
        self.blocks.front().map(Block::first)
    }

    /// Last position of the oldest block.
    pub(super) fn oldest_block_end(&self) -> Option<Position> {
        self.blocks.front().map(Block::end)
    }

    /// When the newest entry of the oldest block came in, milliseconds of Unix time.
    pub(super) fn oldest_block_received_ms(&self) -> Option<u64> {
        self.blocks.front()?.run.metas.last().map(|meta| meta.received_ms)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the frames above a position.
    pub(super) fn bytes_after(&self, position: Position) -> u64 {
        let above = self.blocks.iter().rev().take_while(|block| block.end() > position);
        above.map(|block| block.bytes_after(position)).sum()
    }

    pub(super) fn entries(&self) -> u64 {
        self.blocks.iter().map(|block| block.run.metas.len() as u64).sum()
    }
}
