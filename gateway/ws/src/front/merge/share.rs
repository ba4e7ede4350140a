// SPDX-License-Identifier: AGPL-3.0-only
//! Which of the bot's guilds and events a client gets whose shard count isn't ours.
//!
//! In: the client's `[shard, count]` and our count. Out: which of our shards serve it, and a yes or no per event:
//! each event is for one of the clients that share a count. Pure.

use holdfast_discord::EventKind;

/// A client's part of the bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The client's shard.
    pub(super) shard: u32,
    /// Of how many.
    pub(super) count: u32,
    /// How many we have.
    pub(super) total: u32,
}

impl Share {
    /// Our shards that may hold its guilds, rising: a number `k` with `k % count == shard` and `k % total == ours`
    /// exists where both remainders agree modulo the greatest common divisor.
    pub(super) fn shards(self) -> impl Iterator<Item = u32> {
        let step = gcd(self.count, self.total);
        (self.shard % step..self.total).step_by(step as usize)
    }

    /// The client: its shard and shard count.
    pub(super) fn client(self) -> [u32; 2] {
        [self.shard, self.count]
    }

    /// The same client's, of a bot with another number of shards.
    pub(super) fn of(self, total: u32) -> Self {
        Self { total, ..self }
    }

    /// Whether a guild may be both this client's and another's, whose shard and shard count these are.
    pub(super) fn overlaps(self, [shard, count]: [u32; 2]) -> bool {
        let step = gcd(self.count, count);
        self.shard % step == shard % step
    }

    /// Whether a guild is the client's ("Sharding": `(guild_id >> 22) % num_shards == shard_id`).
    pub(super) fn holds(self, guild: u64) -> bool {
        (guild >> 22) % u64::from(self.count) == u64::from(self.shard)
    }

    /// Our shard that has a guild.
    pub(super) fn home(self, guild: u64) -> u32 {
        u32::try_from((guild >> 22) % u64::from(self.total)).unwrap_or(0)
    }

    /// Whether an event that came over our shard `ours` is for the client.
    ///
    /// Events of a guild are for the client that holds it. Others (direct messages, entitlements, subscriptions)
    /// Discord sends to shard 0: they are for the client's shard 0. In general, what isn't sent to its guild's
    /// shard, or has no guild, is for the client `ours % count`, so that exactly one gets it. USER_UPDATE comes over
    /// every shard, and every client gets it once, over the lowest of its shards.
    pub(super) fn takes(self, ours: u32, kind: EventKind, guild: u64) -> bool {
        if kind == EventKind::UserUpdate {
            return self.shards().next() == Some(ours);
        }
        if guild != 0 && self.home(guild) == ours {
            return self.holds(guild);
        }
        ours % self.count == self.shard
    }
}

fn gcd(mut one: u32, mut other: u32) -> u32 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guild_is_on_one_of_the_clients_shards() {
        for (count, total) in [(1, 16), (32, 8), (3, 8), (8, 12), (5, 1), (7, 7)] {
            for place in 0..500_u64 {
                let guild = place << 22 | 5;
                let clients: Vec<Share> =
                    shares(count, total).into_iter().filter(|share| share.holds(guild)).collect();
                let [client] = clients[..] else { panic!("{count} on {total}: {clients:?}") };
                assert!(client.shards().any(|ours| ours == client.home(guild)), "{client:?}");
            }
        }
    }

    #[test]
    fn the_fewest_shards_serve_a_client() {
        let of = |shard, count, total| Share { shard, count, total }.shards().collect::<Vec<_>>();
        assert_eq!(of(0, 1, 4), [0, 1, 2, 3]);
        assert_eq!(of(29, 32, 8), [5]);
        assert_eq!(of(1, 2, 8), [1, 3, 5, 7]);
        assert_eq!(of(2, 6, 4), [0, 2]);
        assert_eq!(of(2, 3, 4), [0, 1, 2, 3]);
    }

    #[test]
    fn clients_of_two_counts_overlap_where_a_guild_is_both_theirs() {
        for (one, other) in [(8, 4), (4, 6), (1, 5), (3, 3), (5, 7)] {
            for client in shares(one, 4) {
                for shard in 0..other {
                    let both = |place: &u64| {
                        client.holds(place << 22) && place % u64::from(other) == u64::from(shard)
                    };
                    let expected = (0..200).any(|place| both(&place));
                    assert_eq!(client.overlaps([shard, other]), expected, "{client:?}, {shard} of {other}");
                }
            }
        }
    }

    #[test]
    fn every_event_is_for_one_client() {
        for (count, total) in [(1, 16), (32, 8), (3, 8), (8, 12)] {
            for ours in 0..total {
                for guild in (0..200_u64).map(|place| place << 22) {
                    let takers = takers(count, total, ours, EventKind::MessageCreate, guild);
                    assert_eq!(takers.len(), 1, "{count} on {total}, shard {ours}, guild {guild}");
                    assert!(takers[0].shards().any(|shard| shard == ours), "{takers:?}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_guild_is_for_the_clients_shard_0() {
        for (kind, guild) in [
            (EventKind::MessageCreate, 0),
            (EventKind::SubscriptionCreate, 0),
            // Of a guild that shard 0 doesn't hold.
            (EventKind::EntitlementCreate, 5 << 22),
        ] {
            let takers = takers(32, 8, 0, kind, guild);
            assert_eq!(takers.iter().map(|share| share.shard).collect::<Vec<_>>(), [0], "{kind:?}");
        }
    }

    #[test]
    fn the_bots_own_user_is_every_clients_once() {
        for (count, total) in [(1, 16), (32, 8), (3, 8)] {
            for share in shares(count, total) {
                let over = (0..total).filter(|ours| share.takes(*ours, EventKind::UserUpdate, 0)).count();
                assert_eq!(over, 1, "{share:?}");
            }
        }
    }

    fn shares(count: u32, total: u32) -> Vec<Share> {
        (0..count).map(|shard| Share { shard, count, total }).collect()
    }

    fn takers(count: u32, total: u32, ours: u32, kind: EventKind, guild: u64) -> Vec<Share> {
        shares(count, total).into_iter().filter(|share| share.takes(ours, kind, guild)).collect()
    }
}
