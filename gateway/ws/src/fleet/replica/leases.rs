// SPDX-License-Identifier: AGPL-3.0-only
//! This replica's leases. In: who lives, what the store answers. Out: leases renewed, shards that should be ours asked for,
//! those that should be others' handed over.

use std::{collections::BTreeMap, time::Instant};

use holdfast_cluster::{Acquired, Change, HeartbeatError, Lease, Renewed, ShardId, place};
use tokio::sync::broadcast::Receiver;
use tracing::{debug, warn};

use super::{LOOK_EVERY, Replica, State};
use crate::fleet::takeover::released_with;

impl Replica {
    /// Renews the registration, and leases when they are due, then looks who should own what.
    pub(super) async fn look(&mut self) {
        self.reshard().await;
        match self.member.cluster.heartbeat(&self.member.standing).await {
            Ok(live) => {
                self.starter.hubs.live(&live);
                self.live = live;
            }
            Err(HeartbeatError::Unavailable(error)) => {
                debug!(%error, "the store is away: going on with what we have");
                self.tenure.unanswered();
                return;
            }
            // Another replica has seen the end of resharding first: the next look sees it, too.
            Err(HeartbeatError::Conflict(_)) if self.next.is_some() => return,
            Err(HeartbeatError::Conflict(conflict)) => {
                let _ = self.starter.fatal.try_send(conflict.into());
                return;
            }
        }
        let due = self.member.times.renew.saturating_sub(LOOK_EVERY / 2);
        if self.renewed.elapsed() >= due && !self.renew().await {
            return;
        }
        self.rebalance().await;
    }

    /// Renews all leases, and stops what isn't ours any more. `false`: the store is away.
    pub(super) async fn renew(&mut self) -> bool {
        let leases: Vec<Lease> = self.slots.values().map(|slot| slot.lease).collect();
        let sent = Instant::now();
        let Ok(renewed) = self.member.cluster.renew(&leases).await else {
            self.tenure.unanswered();
            return false;
        };
        for (lease, renewed) in leases.iter().zip(renewed) {
            if let Renewed::Lost(owner) = renewed {
                let owner = owner.map(|owner| owner.address);
                self.lose(lease.shard, owner.as_deref());
            }
        }
        self.renewed = sent;
        // After those that are lost know it.
        self.tenure.renewed(sent);
        true
    }

    pub(super) fn lose(&mut self, shard: ShardId, owner: Option<&str>) {
        let Some(slot) = self.slots.get_mut(&shard).filter(|slot| !slot.lost) else { return };
        warn!(shard = shard.shard, owner, "the shard is another's by now");
        slot.lost = true;
        self.metrics.lost.inc();
        if matches!(slot.state, State::Cut) {
            self.slots.remove(&shard);
        }
        self.stop(shard);
    }

    /// Takes what this replica should own, and hands over what others should.
    pub(super) async fn rebalance(&mut self) {
        let mut all = Vec::new();
        for total in self.totals() {
            let own = self.member.cluster.identity().id;
            let owners = place(total, &self.live);
            let should = |shard: ShardId| owners.get(shard.shard as usize).copied().flatten();
            let of_total = self.running().filter(|shard| shard.total == total);
            let theirs: Vec<ShardId> =
                of_total.filter(|shard| should(*shard).is_some_and(|owner| owner != own)).collect();
            theirs.into_iter().for_each(|shard| self.stop(shard));
            let wanted: Vec<ShardId> = ShardId::all(total)
                .filter(|shard| should(*shard) == Some(own) && !self.slots.contains_key(shard))
                .collect();
            self.acquire(&wanted).await;
            all.extend(wanted);
        }
        self.missing = all.iter().filter(|shard| !self.slots.contains_key(shard)).count();
    }

    /// Takes what should be ours of the shards that were released: this one, and those released with it.
    pub(super) async fn released(&mut self, shard: ShardId, changes: &mut Receiver<Change>) {
        let (mut shards, other) = released_with(shard, changes);
        let own = self.member.cluster.identity().id;
        let totals = self.totals();
        let owners: BTreeMap<u32, _> =
            totals.iter().map(|total| (*total, place(*total, &self.live))).collect();
        let owner = |shard: &ShardId| owners.get(&shard.total)?.get(shard.shard as usize).copied().flatten();
        shards.retain(|shard| owner(shard) == Some(own) && !self.slots.contains_key(shard));
        self.acquire(&shards).await;
        let got = shards.iter().filter(|shard| self.slots.contains_key(shard)).count();
        self.missing = self.missing.saturating_sub(got);
        if other {
            self.look().await;
        }
    }

    pub(super) async fn acquire(&mut self, shards: &[ShardId]) {
        if shards.is_empty() {
            return;
        }
        let acquired = match self.member.cluster.acquire(shards).await {
            Ok(acquired) => acquired,
            Err(error) => {
                debug!(%error, "no shard can be taken while the store is away");
                return;
            }
        };
        for (shard, acquired) in shards.iter().zip(acquired) {
            match acquired {
                Acquired::Granted(lease) => self.start(lease),
                Acquired::Held(owner) => {
                    let owner = owner.address;
                    debug!(shard = shard.shard, owner, "waiting for the shard to be handed over");
                }
                Acquired::Reserved(left) => {
                    let left_ms = left.as_millis();
                    debug!(shard = shard.shard, left_ms, "its last owner may come back for it");
                }
            }
        }
    }
}
