// SPDX-License-Identifier: AGPL-3.0-only
//! Guilds' checkpoints of a shard, read a page at a time, so that a shard of thousands of guilds is never in memory
//! twice. In: a store. Out: pages. Owned by who reads.

use std::collections::HashSet;
use std::fmt;

use crate::memory::blocking;
use crate::valkey::Valkey;
use crate::{ShardId, ShardStore, Unavailable};

/// Guilds in a page: 64 of 25 KB are 1.6 MB, which Redis sends in some milliseconds.
pub(crate) const PAGE: usize = 64;

/// A guild and its checkpoint, `None` where that can't be read.
pub type Checkpoint = (u64, Option<Vec<u8>>);

/// Guilds' checkpoints of a shard, while they are read.
pub struct Guilds {
    source: Source,
}

enum Source {
    Stored(Option<Box<dyn Iterator<Item = Checkpoint> + Send>>),
    Shared { valkey: Valkey, shard: ShardId, cursor: Option<u64>, seen: HashSet<u64> },
}

impl Guilds {
    pub(crate) fn stored(store: ShardStore) -> Guilds {
        // The directory itself is read with the first page.
        let guilds = std::iter::once(store).flat_map(|store| store.load_guilds());
        Guilds { source: Source::Stored(Some(Box::new(guilds))) }
    }

    pub(crate) fn shared(valkey: Valkey, shard: ShardId) -> Guilds {
        Guilds { source: Source::Shared { valkey, shard, cursor: Some(0), seen: HashSet::new() } }
    }

    /// The next guilds, each once; `None` after the last ones. After an error, the same page can be asked for again.
    ///
    /// # Errors
    /// The store is away.
    pub async fn next(&mut self) -> Result<Option<Vec<Checkpoint>>, Unavailable> {
        match &mut self.source {
            Source::Stored(guilds) => {
                let Some(mut reading) = guilds.take() else { return Ok(None) };
                let (page, rest) = blocking(move || {
                    let page: Vec<Checkpoint> = reading.by_ref().take(PAGE).collect();
                    (page, reading)
                })
                .await?;
                if page.is_empty() {
                    return Ok(None);
                }
                *guilds = Some(rest);
                Ok(Some(page))
            }
            Source::Shared { valkey, shard, cursor, seen } => {
                let Some(from) = *cursor else { return Ok(None) };
                let (next, page) = valkey.guilds(*shard, from).await?;
                *cursor = Some(next).filter(|next| *next != 0);
                // Redis may give an entry more than once while it makes room for more of them.
                let new = page.into_iter().filter(|(guild, _)| seen.insert(*guild));
                Ok(Some(new.map(|(guild, checkpoint)| (guild, Some(checkpoint))).collect()))
            }
        }
    }
}

impl fmt::Debug for Guilds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guilds").finish_non_exhaustive()
    }
}
