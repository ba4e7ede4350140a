// SPDX-License-Identifier: AGPL-3.0-only
//! Which shard, of how many. In and out: `3/16`. A plain value.

use std::fmt;
use std::str::FromStr;

/// A shard of a fleet. Shards of one number in fleets of different counts are different shards: while a bot is
/// resharded, both stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId {
    /// Its number, from 0.
    pub shard: u32,
    /// How many there are.
    pub total: u32,
}

/// A text that isn't a shard's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a shard is named by its number and the count, such as 3/16")]
pub struct NotAShard;

impl ShardId {
    /// Shard number `shard` of `total`.
    #[must_use]
    pub const fn new(shard: u32, total: u32) -> ShardId {
        ShardId { shard, total }
    }

    /// All shards of a fleet.
    pub fn all(total: u32) -> impl Iterator<Item = ShardId> {
        (0..total).map(move |shard| ShardId { shard, total })
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.shard, self.total)
    }
}

impl FromStr for ShardId {
    type Err = NotAShard;

    fn from_str(text: &str) -> Result<ShardId, NotAShard> {
        let (shard, total) = text.split_once('/').ok_or(NotAShard)?;
        let shard = shard.parse().map_err(|_| NotAShard)?;
        let total = total.parse().map_err(|_| NotAShard)?;
        if shard < total { Ok(ShardId { shard, total }) } else { Err(NotAShard) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_reads_back_what_it_shows() {
        assert_eq!(ShardId::new(3, 16).to_string(), "3/16");
        for shard in ShardId::all(20) {
            assert_eq!(shard.to_string().parse(), Ok(shard));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "3", "3/", "/16", "16/16", "-1/4", "3/16/1"] {
            assert_eq!(text.parse::<ShardId>(), Err(NotAShard), "{text}");
        }
    }
}
