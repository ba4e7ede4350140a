// SPDX-License-Identifier: AGPL-3.0-only
//! Leases in the store. In: wishes for shards. Out: who has them now. Each shard is one call, all of them one round
//! trip.

use super::reply::{Reply, strange};
use super::{Valkey, script};
use crate::{Acquired, Lease, Owner, Renewed, ShardId, Unavailable};

impl Valkey {
    pub(crate) async fn acquire(&self, shards: &[ShardId]) -> Result<Vec<Acquired>, Unavailable> {
        let Valkey { inner } = self;
        let (identity, times) = (&inner.identity, &inner.settings.times);
        let acquire = |live: super::Live| async move {
            // What is learnt here holds for the calls that follow on the same connection: another server's, or the
            // same one's after a restart, would break it.
            let contact = self.contact(&live, None).await?;
            let calls = shards.iter().map(|shard| {
                let (lease, generation) = (inner.keys.lease(*shard), inner.keys.generation(*shard));
                let mut call = script::ACQUIRE.on([&lease, &generation]);
                call.arg(identity.id.to_string()).arg(&identity.address).arg(millis(times.expiry));
                call.arg(contact.since).arg(contact.now).arg(millis(times.gap()));
                call
            });
            live.calls(calls.collect()).await
        };
        let replies = self.control(acquire).await?;
        let read = |(reply, shard): (redis::Value, &ShardId)| {
            let mut reply = Reply::list(reply)?;
            Ok(match reply.text()?.as_str() {
                "granted" => {
                    let generation = reply.parsed()?;
                    Acquired::Granted(Lease { shard: *shard, owner: identity.id, generation })
                }
                "held" => Acquired::Held(reply.owner()?.ok_or_else(strange)?),
                "reserved" => Acquired::Reserved(std::time::Duration::from_millis(reply.parsed()?)),
                _ => return Err(strange()),
            })
        };
        replies.into_iter().zip(shards).map(read).collect()
    }

    pub(crate) async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewed>, Unavailable> {
        let (identity, keys) = (&self.inner.identity, &self.inner.keys);
        let expiry = millis(self.inner.settings.times.expiry);
        let renew = |lease: &Lease| {
            let mut call = script::RENEW.on([&keys.lease(lease.shard), &keys.generation(lease.shard)]);
            call.arg(lease.owner.to_string()).arg(&identity.address).arg(expiry).arg(lease.generation);
            call
        };
        let calls = leases.iter().map(renew).collect();
        let replies = self.control(|live| async move { live.calls(calls).await }).await?;
        let read = |reply| {
            let mut reply = Reply::list(reply)?;
            match reply.text()?.as_str() {
                "held" => Ok(Renewed::Held),
                "lost" => Ok(Renewed::Lost(reply.owner()?)),
                _ => Err(strange()),
            }
        };
        replies.into_iter().map(read).collect()
    }

    pub(crate) async fn release(&self, leases: &[Lease]) -> Result<(), Unavailable> {
        let keys = &self.inner.keys;
        let release = |lease: &Lease| {
            let mut call = script::RELEASE.on([&keys.lease(lease.shard), &keys.generation(lease.shard)]);
            call.arg(lease.owner.to_string()).arg(lease.generation);
            call.arg(keys.changes()).arg(format!("released {}", lease.shard));
            call
        };
        let calls = leases.iter().map(release).collect();
        self.control(|live| async move { live.calls(calls).await }).await.map(drop)
    }

    pub(crate) async fn owners(&self, shards: &[ShardId]) -> Result<Vec<Option<Owner>>, Unavailable> {
        let look = |shard: &ShardId| {
            let mut look = redis::cmd("HMGET");
            look.arg(self.inner.keys.lease(*shard)).arg(&["owner", "address", "generation"]);
            look
        };
        let calls = shards.iter().map(look).collect();
        let replies = self.control(|live| async move { live.calls(calls).await }).await?;
        replies.into_iter().map(|reply| Reply::list(reply)?.owner()).collect()
    }
}

/// As scripts take times.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
