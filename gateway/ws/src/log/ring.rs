// SPDX-License-Identifier: AGPL-3.0-only
//! The log's tail in memory: a queue of append-only blocks of ready-made frames, evicted whole, oldest first.
//! In: frames in parts. Out: runs of frames within a block. Owned by the log.

use std::collections::VecDeque;
use std::mem::size_of;

use super::entry::{self, Meta, Position, Run};
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
    stream: StreamId,
    metas: Vec<Meta>,
    bytes: Vec<u8>,
    sealed: bool,
}

impl Block {
    /// Position of the first entry. Blocks are opened for an entry, so there is one.
    pub(super) fn first(&self) -> Position {
        self.metas.first().map_or(0, |meta| meta.position)
    }

    fn end(&self) -> Position {
        self.metas.last().map_or(0, |meta| meta.position)
    }

    /// Bytes of the frames above a position that is below the last.
    fn bytes_after(&self, position: Position) -> u64 {
        let index = usize::try_from((position + 1).saturating_sub(self.first())).unwrap_or(usize::MAX);
        let begins = self.metas.get(index).map_or(self.bytes.len(), |meta| meta.offset as usize);
        (self.bytes.len() - begins) as u64
    }

    fn cost(&self) -> usize {
        self.bytes.capacity() + self.metas.capacity() * size_of::<Meta>()
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
        self.blocks
            .back()
            .is_some_and(|block| !block.sealed && block.bytes.capacity() - block.bytes.len() >= len)
    }

    /// Size of the block that a frame of `len` bytes would open: a large one gets its own.
    pub(super) fn next_block(&self, len: usize) -> usize {
        if len > self.next_size / 2 { len } else { self.next_size }
    }

    /// Opens a block of at least `size` bytes, in the place of `spare` where that has the size.
    pub(super) fn open(&mut self, size: usize, stream: StreamId, spare: Option<Block>) {
        /// Room for descriptions at first; smaller frames make it grow.
        const USUAL_FRAME: usize = 1024;
        let block = match spare {
            Some(mut block) if block.bytes.capacity() == size => {
                block.metas.clear();
                block.bytes.clear();
                Block { stream, sealed: false, ..block }
            }
            _ => Block {
                stream,
                metas: Vec::with_capacity((size / USUAL_FRAME).max(1)),
                bytes: Vec::with_capacity(size),
                sealed: false,
            },
        };
        if size == self.next_size {
            self.next_size = (size * 2).min(self.block_max);
        }
        self.bytes += block.cost();
        self.blocks.push_back(block);
    }

    /// Appends a frame to the newest block, which must have room: `fits` or `open` came before.
    pub(super) fn push(&mut self, meta: Meta, parts: [&[u8]; 4]) {
        let block = self.blocks.back_mut().expect("a block was opened when the frame did not fit");
        let offset = entry::offset(block.bytes.len());
        for part in parts {
            block.bytes.extend_from_slice(part);
        }
        if block.metas.len() == block.metas.capacity() {
            let before = block.cost();
            block.metas.reserve(1);
            self.bytes += block.cost() - before;
        }
        block.metas.push(Meta { offset, ..meta });
    }

    /// Takes over a frame as it was read from disk, evicting within `bound`.
    pub(super) fn load(&mut self, meta: &Meta, frame: &[u8], stream: StreamId, bound: usize) {
        let same = self.blocks.back().is_some_and(|block| block.stream == stream);
        if !same || !self.fits(frame.len()) {
            let size = self.next_block(frame.len());
            let mut spare = None;
            while self.bytes + size > bound && !self.blocks.is_empty() {
                spare = self.evict();
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
        if self.blocks.back().is_some_and(|block| block.stream != stream) {
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
        let newest = self.blocks.len().checked_sub(1)?;
        let at = if self.blocks[newest].first() <= position {
            newest
        } else {
            self.blocks.partition_point(|block| block.first() <= position).checked_sub(1)?
        };
        let block = &self.blocks[at];
        let index = usize::try_from(position - block.first()).ok()?;
        let metas = block.metas.get(index..).filter(|metas| !metas.is_empty())?;
        Some(Run { stream: block.stream, metas, bytes: &block.bytes })
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
        self.blocks.front()?.metas.last().map(|meta| meta.received_ms)
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
        self.blocks.iter().map(|block| block.metas.len() as u64).sum()
    }
}
