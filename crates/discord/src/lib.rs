// SPDX-License-Identifier: AGPL-3.0-only
//! What Discord says, as pure code: no sockets, no clock, no tasks.
//! In: bytes of payloads, close codes, times. Out: headers, decisions, bytes to send.
//! Owned by nobody at run time: every value belongs to the connection or task that made it.

pub mod compress;
pub mod etf;
pub mod interaction;
pub mod limits;
pub mod presence;
pub mod rest;
pub mod session;
pub mod signature;

mod close;
mod event;
mod intents;
mod opcode;
mod scan;
mod structure;
mod text;

pub use close::{AfterClose, CloseCode};
pub use event::EventKind;
pub use intents::{Intents, UnknownIntent};
pub use opcode::Opcode;
pub use scan::{Header, ScanError, scan};

/// The shard, of `count`, to which Discord sends a guild's events ("Sharding": `(guild_id >> 22) % num_shards`).
///
/// A `count` of 0 is taken for 1. What belongs to no guild goes to shard 0.
#[must_use]
pub fn shard_of(guild: u64, count: u32) -> u32 {
    let shard = (guild >> 22) % u64::from(count.max(1));
    u32::try_from(shard).expect("a remainder is smaller than its u32 divisor")
}

#[cfg(test)]
mod tests {
    use super::shard_of;

    #[test]
    fn guilds_are_spread_by_the_timestamp_part_of_their_id() {
        assert_eq!(shard_of(81_384_788_765_712_384, 16), ((81_384_788_765_712_384_u64 >> 22) % 16) as u32);
        assert_eq!(shard_of((5 << 22) | 3, 4), 1);
        assert_eq!(shard_of(u64::MAX, u32::MAX), ((u64::MAX >> 22) % u64::from(u32::MAX)) as u32);
    }

    #[test]
    fn a_single_shard_gets_everything() {
        assert_eq!(shard_of(u64::MAX, 1), 0);
        assert_eq!(shard_of(u64::MAX, 0), 0);
    }
}
