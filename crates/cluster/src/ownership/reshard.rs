// SPDX-License-Identifier: AGPL-3.0-only
//! A change of the count of shards within one process. In: what replicas have done. Out: how far it is, and what is
//! news. Pure; the model of the scripts `valkey/lua/reshard_*.lua`. It goes with the process, so it needs no expiry.

use std::collections::{BTreeSet, HashMap};

use super::Ownership;
use crate::{Reshard, ReshardBegun, ReshardPhase, Seen, ShardId};

/// A change that is under way.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) from: u32,
    to: u32,
    phase: ReshardPhase,
    begun_unix_ms: u64,
    warm: BTreeSet<u32>,
    cut: BTreeSet<u32>,
    open: BTreeSet<u32>,
    /// By new shard.
    seen: HashMap<u32, Vec<Seen>>,
}

impl Course {
    fn new(from: u32, to: u32, begun_unix_ms: u64) -> Course {
        Course {
            from,
            to,
            phase: ReshardPhase::Warming,
            begun_unix_ms,
            warm: BTreeSet::new(),
            cut: BTreeSet::new(),
            open: BTreeSet::new(),
            seen: HashMap::new(),
        }
    }

    fn shown(&self) -> Reshard {
        Reshard {
            from: self.from,
            to: self.to,
            phase: self.phase,
            begun_unix_ms: self.begun_unix_ms,
            warm: count(&self.warm),
            cut: count(&self.cut),
            opened: count(&self.open),
        }
    }

    /// Those of the new shards, while it is in this phase.
    fn new_ones(&self, shards: &[ShardId], phase: ReshardPhase) -> Vec<u32> {
        let its = |shard: &&ShardId| shard.total == self.to && self.phase == phase;
        shards.iter().filter(its).map(|shard| shard.shard).collect()
    }
}

impl Ownership {
    pub(crate) fn begin_reshard(
        &mut self,
        (from, to): (u32, u32),
        fleet: Option<u32>,
        unix_ms: u64,
    ) -> ReshardBegun {
        if let Some(course) = &self.course {
            return ReshardBegun::UnderWay(course.shown());
        }
        if fleet != Some(from) || to == from || to == 0 {
            return ReshardBegun::Count(fleet.unwrap_or(0));
        }
        ReshardBegun::Begun(self.course.insert(Course::new(from, to, unix_ms)).shown())
    }

    pub(crate) fn reshard(&self) -> Option<Reshard> {
        self.course.as_ref().map(Course::shown)
    }

    /// Whether there was one that could be given up.
    pub(crate) fn abandon_reshard(&mut self) -> bool {
        self.course.take_if(|course| course.phase == ReshardPhase::Warming).is_some()
    }

    /// Whether all are warm with these.
    pub(crate) fn warmed(&mut self, shards: &[ShardId]) -> bool {
        let Some(course) = &mut self.course else { return false };
        let new_ones = course.new_ones(shards, ReshardPhase::Warming);
        course.warm.extend(new_ones);
        let turns = course.phase == ReshardPhase::Warming && count(&course.warm) == course.to;
        if turns {
            course.phase = ReshardPhase::Cutting;
        }
        turns
    }

    pub(crate) fn cooled(&mut self, shards: &[ShardId]) {
        let Some(course) = &mut self.course else { return };
        for shard in course.new_ones(shards, ReshardPhase::Warming) {
            course.warm.remove(&shard);
        }
    }

    /// Whether all are cut with this one.
    pub(crate) fn cut(&mut self, shard: ShardId, seen: &[(u32, Vec<Seen>)]) -> bool {
        let Some(course) = &mut self.course else { return false };
        let its = course.from == shard.total && course.phase == ReshardPhase::Cutting;
        if !its || !course.cut.insert(shard.shard) {
            return false;
        }
        for (new, seen) in seen {
            course.seen.entry(*new).or_default().extend(seen);
        }
        count(&course.cut) == course.from
    }

    pub(crate) fn seen(&self, shard: ShardId) -> Option<Vec<Seen>> {
        let course = self.course.as_ref()?;
        let all = course.to == shard.total && count(&course.cut) == course.from;
        all.then(|| course.seen.get(&shard.shard).cloned().unwrap_or_default())
    }

    pub(crate) fn opened(&mut self, shards: &[ShardId]) {
        let Some(course) = &mut self.course else { return };
        let new_ones = course.new_ones(shards, ReshardPhase::Cutting);
        course.open.extend(new_ones);
    }

    /// Ends the change if all new shards are open; whether it did. Without a fleet there is no count to be changed:
    /// whoever comes back with the old one must find it.
    pub(crate) fn settle(&mut self) -> bool {
        let Some(done) = self.reshard().filter(Reshard::is_done) else { return false };
        let settled = self.replace_total(done.from, done.to).is_some();
        if settled {
            self.course = None;
        }
        settled
    }
}

fn count(shards: &BTreeSet<u32>) -> u32 {
    u32::try_from(shards.len()).unwrap_or(u32::MAX)
}
