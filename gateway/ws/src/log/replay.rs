// SPDX-License-Identifier: AGPL-3.0-only
//! Reading a log back when the process starts: its tail into memory, its entries to whoever rebuilds the state.
//! In: segments. Out: the ring, calls. Blocks.

use std::io;
use std::sync::Arc;

use super::{DiskRead, Log, Meta, Position, Read};

/// What [`Log::replay`] has gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Entries that were given to the visitor.
    pub entries: u64,
    /// Whether entries were missing between the position asked for and the end of the log.
    pub complete: bool,
}

impl Log {
    /// Calls `visit` with every entry after `after` that is still there, in order. Blocks: for start-up.
    ///
    /// # Errors
    /// When a segment can't be read.
    pub fn replay(&self, after: Position, mut visit: impl FnMut(&Meta, &[u8])) -> io::Result<Replayed> {
        const CHUNK: usize = 1 << 20;
        let mut cursor = after;
        let mut done = Replayed { entries: 0, complete: true };
        loop {
            let owned;
            let run = match self.read(cursor) {
                Read::End => return Ok(done),
                Read::Memory(run) => run,
                Read::Gone { oldest } => {
                    done.complete = false;
                    cursor = oldest - 1;
                    continue;
                }
                Read::Disk(read) => {
                    owned = read.read(CHUNK)?;
                    owned.as_run()
                }
            };
            for (index, meta) in run.metas.iter().enumerate() {
                visit(meta, run.payload(index));
                cursor = meta.position;
                done.entries += 1;
            }
        }
    }

    /// Loads entries from the disk into the ring, from `after` on; those that don't fit push out older ones.
    pub(super) fn load_tail(&mut self, after: Position) -> io::Result<()> {
        let Some(disk) = self.handover.as_ref().map(|handover| Arc::clone(handover.disk())) else {
            return Ok(());
        };
        let mut cursor = after;
        while cursor < self.last {
            let owned = DiskRead::of_disk(&disk, cursor).read(1 << 20)?;
            if owned.metas.is_empty() {
                // A hole: the ring holds no gaps, so what is in front of it stays on disk.
                self.ring.clear();
                cursor = disk.next_readable(cursor + 1).map_or(self.last, |next| next - 1);
            }
            for (index, meta) in owned.metas.iter().enumerate() {
                self.ring.load(meta, owned.as_run().frame(index), owned.stream, self.settings.memory_bytes);
                cursor = meta.position;
            }
        }
        // The last entries may belong to a stream that ended with them.
        self.ring.seal_unless(self.stream);
        Ok(())
    }
}
