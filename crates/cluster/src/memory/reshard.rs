// SPDX-License-Identifier: AGPL-3.0-only
//! A change of the count of shards among the replicas of one process. In: what each has done. Out: how far it is, and
//! the news of it to those who listen.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Memory;
use crate::{Change, Identity, Reshard, ReshardBegun, Seen, ShardId};

impl Memory {
    pub(crate) fn begin_reshard(&self, identity: &Identity, from: u32, to: u32) -> ReshardBegun {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        // One whose end is due doesn't stand in the way.
        self.reshard();
        let begun = {
            let mut ownership = self.lock();
            let fleet = ownership.fleet_total(identity.application, self.now().0);
            ownership.begin_reshard((from, to), fleet, unix_ms)
        };
        self.tell_if(matches!(begun, ReshardBegun::Begun(_)));
        begun
    }

    pub(crate) fn reshard(&self) -> Option<Reshard> {
        let settled = self.lock().settle();
        self.tell_if(settled);
        self.lock().reshard()
    }

    pub(crate) fn abandon_reshard(&self) -> bool {
        let abandoned = self.lock().abandon_reshard();
        self.tell_if(abandoned);
        abandoned
    }

    pub(crate) fn warmed(&self, shards: &[ShardId]) {
        let all = self.lock().warmed(shards);
        self.tell_if(all);
    }

    pub(crate) fn cooled(&self, shards: &[ShardId]) {
        self.lock().cooled(shards);
    }

    pub(crate) fn cut(&self, shard: ShardId, seen: &[(u32, Vec<Seen>)]) {
        let all = self.lock().cut(shard, seen);
        self.tell_if(all);
    }

    pub(crate) fn seen(&self, shard: ShardId) -> Option<Vec<Seen>> {
        self.lock().seen(shard)
    }

    pub(crate) fn opened(&self, shards: &[ShardId]) {
        let over = {
            let mut ownership = self.lock();
            ownership.opened(shards);
            ownership.settle()
        };
        self.tell_if(over);
    }

    fn tell_if(&self, news: bool) {
        if news {
            self.tell(Change::Reshard);
        }
    }
}
