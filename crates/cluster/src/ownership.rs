// SPDX-License-Identifier: AGPL-3.0-only
//! Replicas, leases and the fleet's guard within one process. In: wishes and the time. Out: answers. Pure; what the
//! scripts below `valkey/` say for a store that may go away and come back, said for one that doesn't.

mod reshard;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use self::reshard::Course;
use crate::{
    Acquired, FleetConflict, Identity, Lease, Owner, Renewed, Replica, ReplicaId, ShardId, Standing,
};

/// How long after its last heartbeat a fleet is still one to go on with.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(3600);

/// Who is there and who owns what.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    fleet: Option<Fleet>,
    course: Option<Course>,
    replicas: BTreeMap<ReplicaId, (Replica, Duration)>,
    shards: HashMap<ShardId, Shard>,
}

/// What a heartbeat found.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Who lives.
    pub(crate) replicas: Vec<Replica>,
    /// Something about the replica that was heard is new.
    pub(crate) news: bool,
    /// A change of the count that had been under way isn't any more: the fleet has another count than that is from.
    pub(crate) reshard_over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Fleet {
    application: u64,
    total: u32,
    until: Duration,
}

#[derive(Debug)]
struct Shard {
    latest: Lease,
    address: String,
    released: bool,
    until: Duration,
}

impl Shard {
    fn holder(&self, now: Duration) -> Option<Owner> {
        let holds = !self.released && now < self.until;
        holds.then(|| Owner {
            replica: self.latest.owner,
            address: self.address.clone(),
            generation: self.latest.generation,
        })
    }

    /// Whether a write under this lease is refused.
    fn fences(&self, lease: &Lease) -> bool {
        self.released && self.latest == *lease || self.latest.generation > lease.generation || {
            self.latest.generation == lease.generation && self.latest.owner != lease.owner
        }
    }
}

impl Ownership {
    /// The replicas that live, if this one belongs to their fleet.
    pub(crate) fn heartbeat(
        &mut self,
        identity: &Identity,
        standing: &Standing,
        (now, expiry): (Duration, Duration),
    ) -> Result<Heard, FleetConflict> {
        self.guard(identity, standing.total, now)?;
        self.fleet =
            Some(Fleet { application: identity.application, total: standing.total, until: now + expiry });
        self.replicas.retain(|_, (_, until)| *until > now);
        let replica = Replica::new(identity, standing);
        let before = self.replicas.insert(identity.id, (replica.clone(), now + expiry));
        let news = before.is_none_or(|(before, _)| before != replica);
        // Whoever is accepted has the fleet's count.
        let reshard_over = self.course.take_if(|course| course.from != standing.total).is_some();
        let replicas = self.replicas.values().map(|(replica, _)| replica.clone()).collect();
        Ok(Heard { replicas, news, reshard_over })
    }

    fn guard(&self, identity: &Identity, total: u32, now: Duration) -> Result<(), FleetConflict> {
        let Some(fleet) = self.fleet.filter(|fleet| fleet.until > now) else { return Ok(()) };
        let prefix = String::new();
        if fleet.application != identity.application {
            let (ours, theirs) = (identity.application, fleet.application);
            return Err(FleetConflict::Application { prefix, ours, theirs, lapses_in: None });
        }
        if fleet.total != total {
            return Err(FleetConflict::Count { prefix, ours: total, theirs: fleet.total, lapses_in: None });
        }
        Ok(())
    }

    /// Takes a replica off the list; the last one takes the fleet's record with it, and a change of its count. Whether
    /// there was one.
    pub(crate) fn leave(&mut self, replica: ReplicaId, now: Duration) -> bool {
        self.replicas.remove(&replica);
        self.replicas.retain(|_, (_, until)| *until > now);
        if !self.replicas.is_empty() {
            return false;
        }
        self.fleet = None;
        self.course.take().is_some()
    }

    /// Changes the fleet's count, if it is the one that it is thought to be. Gives the count.
    pub(crate) fn replace_total(&mut self, from: u32, to: u32) -> Option<u32> {
        let fleet = self.fleet.as_mut()?;
        if fleet.total == from {
            fleet.total = to;
        }
        Some(fleet.total)
    }

    /// The count of a bot's fleet, also of one that was heard of lately only.
    pub(crate) fn fleet_total(&self, application: u64, now: Duration) -> Option<u32> {
        let ours = self.fleet.filter(|fleet| fleet.application == application)?;
        (now < ours.until + REMEMBERED).then_some(ours.total)
    }

    /// Takes a shard, unless somebody has it. `known`: the latest generation that is stored.
    pub(crate) fn acquire(
        &mut self,
        identity: &Identity,
        shard: ShardId,
        known: Option<u64>,
        (now, expiry): (Duration, Duration),
        first: u64,
    ) -> Acquired {
        let before = self.shards.get_mut(&shard);
        if let Some(before) = before {
            match before.holder(now) {
                Some(owner) if owner.replica != identity.id => return Acquired::Held(owner),
                Some(_) => {
                    before.until = now + expiry;
                    return Acquired::Granted(before.latest);
                }
                None => {}
            }
        }
        let latest = self.shards.get(&shard).map(|before| before.latest.generation).max(known);
        let generation = latest.map_or(first, |latest| latest + 1);
        let latest = Lease { shard, owner: identity.id, generation };
        let address = identity.address.clone();
        self.shards.insert(shard, Shard { latest, address, released: false, until: now + expiry });
        Acquired::Granted(latest)
    }

    pub(crate) fn renew(
        &mut self,
        identity: &Identity,
        lease: &Lease,
        now: Duration,
        expiry: Duration,
    ) -> Renewed {
        let until = now + expiry;
        match self.shards.get_mut(&lease.shard) {
            Some(shard) if shard.fences(lease) => return Renewed::Lost(shard.holder(now)),
            Some(shard) if shard.latest == *lease => shard.until = until,
            _ => {
                let address = identity.address.clone();
                self.shards.insert(lease.shard, Shard { latest: *lease, address, released: false, until });
            }
        }
        Renewed::Held
    }

    /// Gives a shard up; whether that was news.
    pub(crate) fn release(&mut self, lease: &Lease) -> bool {
        match self.shards.get_mut(&lease.shard) {
            Some(shard) if shard.latest == *lease => !std::mem::replace(&mut shard.released, true),
            _ => false,
        }
    }

    pub(crate) fn owner(&self, shard: ShardId, now: Duration) -> Option<Owner> {
        self.shards.get(&shard)?.holder(now)
    }

    /// The latest generation, where a write under this lease is refused.
    pub(crate) fn fenced(&self, lease: &Lease) -> Option<u64> {
        let shard = self.shards.get(&lease.shard)?;
        shard.fences(lease).then_some(shard.latest.generation)
    }

    pub(crate) fn forget(&mut self, total: u32) {
        self.shards.retain(|shard, _| shard.total != total);
    }
}
