// SPDX-License-Identifier: AGPL-3.0-only
//! One guild of a shard: base, changes, and the position of the last event that they reflect.
//! In: what the reducer made of an event. Out: what to compact, what to save. Shared with readers behind an `Arc`
//! and copied only if an event arrives while a reader holds it.

use crate::Options;
use crate::base::Base;
use crate::changes::Changes;
use crate::section::Block;

/// A guild's record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// The latest event that this reflects; events at or below it are skipped.
    pub(crate) position: u64,
    /// The first event that the stored checkpoint doesn't reflect.
    pub(crate) unsaved_since: Option<u64>,
    /// `None`: unavailable.
    pub(crate) base: Option<Base>,
    pub(crate) member_count: Option<u64>,
    pub(crate) large: Option<bool>,
    pub(crate) changes: Changes,
}

impl Record {
    /// A guild that READY lists and GUILD_CREATE hasn't brought: nothing to save yet.
    pub(crate) fn unavailable(position: u64) -> Record {
        Record { position, ..Record::default() }
    }

    /// An event was worked in. Presences are never saved, so that they leave the checkpoint as good as it was.
    pub(crate) fn moved_to(&mut self, position: u64, must_save: bool) {
        self.position = position;
        if must_save && self.unsaved_since.is_none() {
            self.unsaved_since = Some(position);
        }
    }

    /// The blocks whose changes have outgrown them.
    pub(crate) fn outgrown(&self, options: &Options) -> Vec<Block> {
        let Some(base) = &self.base else { return Vec::new() };
        let outgrown = |block: &Block| {
            let size = base[*block as usize].bytes.len();
            let allowed = size * options.compact_percent as usize / 100;
            self.changes.bytes(*block) > allowed.max(options.compact_min_bytes as usize)
        };
        Block::ALL.into_iter().filter(outgrown).collect()
    }

    pub(crate) fn base_bytes(&self) -> usize {
        self.base.iter().flatten().map(|packed| packed.bytes.len() + 16).sum()
    }
}
