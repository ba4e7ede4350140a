// SPDX-License-Identifier: AGPL-3.0-only
//! A change of the bot's count of shards, as replicas agree on it. In: what each of them has done. Out: how far all of
//! them are. The course is in the crate's README; who does what when is the callers' matter.

use crate::cluster::Backend;
use crate::{Cluster, ShardId, Unavailable};

/// A change of the bot's count of shards that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reshard {
    /// How many shards there are.
    pub from: u32,
    /// How many there shall be.
    pub to: u32,
    /// How far it is.
    pub phase: ReshardPhase,
    /// When it was begun, milliseconds of Unix time, by the store's clock.
    pub begun_unix_ms: u64,
    /// How many of the new shards are warm.
    pub warm: u32,
    /// How many of the old shards are cut.
    pub cut: u32,
    /// How many of the new shards are open.
    pub opened: u32,
}

/// How far a change of the count is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReshardPhase {
    /// The new shards gather, the old ones do the work. It can be given up.
    Warming,
    /// All new ones are warm: the old ones are cut, the new ones open. There is no way back.
    Cutting,
}

/// One event that an old shard has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    /// Its guild; 0: it has none.
    pub guild: u64,
    /// Of its name and content; the same in all replicas.
    pub hash: u64,
}

/// Answer to the wish to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReshardBegun {
    /// It is begun.
    Begun(Reshard),
    /// One is under way already: of the same counts, if this was asked twice.
    UnderWay(Reshard),
    /// The fleet has this count (0: there is no fleet), and there is no way from it as wished: it is another one than
    /// `from`, or the wished one already, or none was wished.
    Count(u32),
}

impl Reshard {
    /// Whether all new shards are open, so that only the fleet's count is left to be changed.
    pub(crate) fn is_done(&self) -> bool {
        self.opened >= self.to
    }
}

impl Seen {
    /// Bytes of one in the store.
    pub(crate) const BYTES: usize = 16;

    /// As it is in the store: guild, hash, big-endian.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        (u128::from(self.guild) << 64 | u128::from(self.hash)).to_be_bytes()
    }

    /// Those of the store, unless their end is missing.
    pub(crate) fn all_from(bytes: &[u8]) -> Option<Vec<Seen>> {
        let (records, []) = bytes.as_chunks::<{ Self::BYTES }>() else { return None };
        let read = |record: &[u8; Self::BYTES]| {
            let both = u128::from_be_bytes(*record);
            // The halves: nothing is cut off that belongs to them.
            Seen { guild: (both >> 64) as u64, hash: both as u64 }
        };
        Some(records.iter().map(read).collect())
    }
}

/// Resharding: every step can be told again, and should be until [`Cluster::reshard`] shows that it was heard. What is
/// told of other counts than those of the change under way, or out of its phase, is passed over.
impl Cluster {
    /// Begins to change the fleet's count of shards. Those who listen to [`Cluster::changes`] hear of it.
    ///
    /// # Errors
    /// The store is away.
    pub async fn begin_reshard(&self, from: u32, to: u32) -> Result<ReshardBegun, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, identity) => Ok(memory.begin_reshard(identity, from, to)),
            Backend::Valkey(valkey) => valkey.begin_reshard(from, to).await,
        }
    }

    /// The change that is under way. One round trip; every replica asks once a second while there is one, which also
    /// keeps it: one that nobody has asked for in an hour is forgotten. Ends one whose end was interrupted.
    ///
    /// # Errors
    /// The store is away.
    pub async fn reshard(&self) -> Result<Option<Reshard>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => Ok(memory.reshard()),
            Backend::Valkey(valkey) => valkey.reshard().await,
        }
    }

    /// Gives the change up, while its new shards gather. `false`: there is none, or it is too late.
    ///
    /// # Errors
    /// The store is away.
    pub async fn abandon_reshard(&self) -> Result<bool, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => Ok(memory.abandon_reshard()),
            Backend::Valkey(valkey) => valkey.abandon_reshard().await,
        }
    }

    /// New shards are warm. With the last of them the phase turns to [`ReshardPhase::Cutting`].
    ///
    /// # Errors
    /// The store is away.
    pub async fn warmed(&self, shards: &[ShardId]) -> Result<(), Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => {
                memory.warmed(shards);
                Ok(())
            }
            Backend::Valkey(valkey) => valkey.warmed(shards).await,
        }
    }

    /// New shards aren't warm any more: their replica died, or their session was lost. Matters only while they gather.
    ///
    /// # Errors
    /// The store is away.
    pub async fn cooled(&self, shards: &[ShardId]) -> Result<(), Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => {
                memory.cooled(shards);
                Ok(())
            }
            Backend::Valkey(valkey) => valkey.cooled(shards).await,
        }
    }

    /// An old shard is cut: it publishes nothing any more, and this is what it has had lately, by number of the new
    /// shard. If it is told twice, the first counts. It goes in one call, 16 bytes each: a mebibyte, 65,000 of them,
    /// is a good bound.
    ///
    /// # Errors
    /// The store is away.
    pub async fn cut(&self, shard: ShardId, seen: &[(u32, Vec<Seen>)]) -> Result<(), Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => {
                memory.cut(shard, seen);
                Ok(())
            }
            Backend::Valkey(valkey) => valkey.cut(shard, seen).await,
        }
    }

    /// What old shards have had of a new shard's guilds: each one's in its order, one after the other. `None` until
    /// all old ones are cut, and when the change is over.
    ///
    /// # Errors
    /// The store is away.
    pub async fn seen(&self, shard: ShardId) -> Result<Option<Vec<Seen>>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => Ok(memory.seen(shard)),
            Backend::Valkey(valkey) => valkey.seen(shard).await,
        }
    }

    /// New shards are open: they publish. With the last of them the change is over: the new count is the fleet's,
    /// heartbeats with the old one get [`HeartbeatError::Conflict`](crate::HeartbeatError::Conflict).
    ///
    /// # Errors
    /// The store is away. If it was for the last of them, the next [`Cluster::reshard`] or [`Cluster::opened`] of
    /// anybody does what is left to do.
    pub async fn opened(&self, shards: &[ShardId]) -> Result<(), Unavailable> {
        match &self.backend {
            Backend::Memory(memory, _) => {
                memory.opened(shards);
                Ok(())
            }
            Backend::Valkey(valkey) => valkey.opened(shards).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_reads_back_as_it_was_written() {
        let seen = [
            Seen { guild: 0, hash: u64::MAX },
            Seen { guild: u64::MAX, hash: 0 },
            Seen { guild: 0x0102_0304_0506_0708, hash: 9 },
        ];
        let bytes: Vec<u8> = seen.iter().flat_map(|seen| seen.to_bytes()).collect();
        assert_eq!(bytes[32..40], [1, 2, 3, 4, 5, 6, 7, 8], "the guild comes first, its highest byte first");
        assert_eq!(Seen::all_from(&bytes).unwrap(), seen);
        assert_eq!(Seen::all_from(&[]), Some(Vec::new()));
        assert_eq!(Seen::all_from(&bytes[..40]), None, "half a record");
    }
}
