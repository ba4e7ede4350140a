// SPDX-License-Identifier: AGPL-3.0-only
//! Names of keys. In: prefix, bot, shard. Out: names as docs/contract.md has them. What is in braces decides the slot:
//! all keys of a shard share one, and a script touches those of one slot only. Pure.

use crate::ShardId;

#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
    application: u64,
}

impl Keys {
    pub(super) fn new(prefix: &str, application: u64) -> Keys {
        Keys { prefix: prefix.to_owned(), application }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Who owns the shard; expires.
    pub(super) fn lease(&self, shard: ShardId) -> String {
        self.shard(shard, "lease")
    }

    /// The fencing number, whose it was, and whether that one has released it; never expires.
    pub(super) fn generation(&self, shard: ShardId) -> String {
        self.shard(shard, "generation")
    }

    /// The session's record.
    pub(super) fn session(&self, shard: ShardId) -> String {
        self.shard(shard, "session")
    }

    /// Clients' sessions.
    pub(super) fn clients(&self, shard: ShardId) -> String {
        self.shard(shard, "clients")
    }

    /// Guilds' checkpoints.
    pub(super) fn state(&self, shard: ShardId) -> String {
        self.shard(shard, "state")
    }

    /// All keys of a shard.
    pub(super) fn all(&self, shard: ShardId) -> [String; 5] {
        ["lease", "generation", "session", "clients", "state"].map(|what| self.shard(shard, what))
    }

    /// Replicas, each with the time when it lapses.
    pub(super) fn replicas(&self) -> String {
        self.common("replicas")
    }

    /// When the store was last heard from, and since when without a pause.
    pub(super) fn contact(&self) -> String {
        self.common("contact")
    }

    /// IDENTIFYs left today.
    pub(super) fn budget(&self) -> String {
        self.common("identify:budget")
    }

    /// When a bucket was used last, and which shards wait for it.
    pub(super) fn bucket(&self, bucket: u32) -> String {
        self.common(&format!("identify:{bucket}"))
    }

    /// A change of the count of shards that is under way; expires.
    pub(super) fn reshard(&self) -> String {
        self.common("reshard")
    }

    /// What old shards have had of a new shard's guilds; expires. Scripts make this name of the one above.
    pub(super) fn seen(&self, shard: u32) -> String {
        self.common(&format!("reshard:seen:{shard}"))
    }

    /// The channel on which changes are told.
    pub(super) fn changes(&self) -> String {
        self.common("changes")
    }

    /// Which bot with how many shards works under the prefix: without the bot in its name, so that two meet there.
    pub(super) fn fleet(&self) -> String {
        format!("{}:fleet", self.prefix)
    }

    fn shard(&self, shard: ShardId, what: &str) -> String {
        format!("{}:{{{}:{shard}}}:{what}", self.prefix, self.application)
    }

    fn common(&self, what: &str) -> String {
        format!("{}:{{{}}}:{what}", self.prefix, self.application)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let keys = Keys::new("holdfast", 42);
        assert_eq!(keys.lease(ShardId::new(3, 16)), "holdfast:{42:3/16}:lease");
        assert_eq!(keys.replicas(), "holdfast:{42}:replicas");
        assert_eq!(keys.bucket(7), "holdfast:{42}:identify:7");
        assert_eq!(keys.reshard(), "holdfast:{42}:reshard");
        assert_eq!(keys.seen(7), format!("{}:seen:7", keys.reshard()));
        assert_eq!(keys.fleet(), "holdfast:fleet");
    }

    #[test]
    fn all_keys_of_a_shard_share_a_slot() {
        let keys = Keys::new("holdfast", 42);
        let shard = ShardId::new(3, 16);
        let [lease, generation, session, clients, state] = keys.all(shard);
        assert_eq!([&lease, &generation], [&keys.lease(shard), &keys.generation(shard)]);
        assert_eq!(
            [&session, &clients, &state],
            [&keys.session(shard), &keys.clients(shard), &keys.state(shard)]
        );
        for key in [lease, generation, session, clients, state] {
            assert!(key.contains("{42:3/16}"), "{key}");
        }
    }
}
