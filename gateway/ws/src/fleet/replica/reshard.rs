// SPDX-License-Identifier: AGPL-3.0-only
//! This replica's part in changing the bot's count of shards. In: how far all replicas are, from the store. Out: shards
//! of the next count that gather, old ones that are cut, new ones that go on. A step is taken whenever the store shows
//! that it is due, and is told until the store has heard it: any replica may die at any of them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use holdfast_cluster::{Lease, Reshard, ReshardBegun, ReshardPhase, ShardId};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Done, Replica, State};
use crate::{
    fleet::{
        Running, count, handover,
        reshard::{
            Ask, Phase, Progress, Refused, admit, carry_over, is_warm, may_be_cut, open, recommended, remove,
            seen_by,
        },
    },
    shard::Wishes,
};

/// How often a replica looks what is due.
pub(super) const STEP: Duration = Duration::from_millis(100);
/// How often the store is asked while the new shards gather.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A change of the count that is under way.
pub(super) struct Next {
    to: u32,
    cutting: bool,
    /// New shards here that the store takes for warm.
    warm: BTreeSet<ShardId>,
    asked: Instant,
}

impl Replica {
    /// The counts whose shards replicas have: one, or two while the bot is resharded.
    pub(super) fn totals(&self) -> Vec<u32> {
        let next = self.next.as_ref().map(|next| next.to);
        std::iter::once(self.member.standing.total).chain(next).collect()
    }

    /// Whether a shard is to gather unseen.
    pub(super) fn gathers(&self, shard: ShardId) -> bool {
        self.next.as_ref().is_some_and(|next| next.to == shard.total)
    }

    /// A shard is taken: what the store knows of it is from its owner before.
    pub(super) fn taken(&mut self, shard: ShardId) {
        if let Some(next) = self.next.as_mut().filter(|next| next.to == shard.total) {
            // Until it has gathered here, the next look takes that back.
            next.warm.insert(shard);
        }
    }

    /// A shard has started. What has changed since it was begun is made up for.
    pub(super) fn started(&mut self, shard: ShardId, running: &Arc<Running>) {
        if self.next.as_ref().is_some_and(|next| next.cutting && next.to == shard.total) {
            running.hub.core().seal();
        }
        if !self.gathers(shard) && running.hub.core().is_warming() {
            let (running, publishes) = (Arc::clone(running), self.starter.publishes());
            self.jobs.spawn(async move {
                open(&running.hub, Vec::new(), publishes).await;
                Done::Over
            });
        }
    }

    /// Somebody wants another count, or doesn't any more.
    pub(super) async fn asked(&mut self, ask: Ask) {
        let (reply, answer) = match ask {
            Ask::Begin { to, reply } => (reply, self.begin(to).await),
            Ask::Abandon { reply } => (reply, self.abandon().await),
        };
        let _ = reply.send(answer);
    }

    async fn begin(&mut self, to: u32) -> Result<(), Refused> {
        if let Some(next) = &self.next {
            return if next.to == to { Ok(()) } else { Err(Refused::UnderWay(next.to)) };
        }
        let admitted = admit(&self.starter.gateway, &self.starter.hubs, to);
        timeout(self.patience(), admitted).await.unwrap_or(Err(Refused::Silent))?;
        let (cluster, from) = (&self.member.cluster, self.member.standing.total);
        if cluster.reshard().await?.is_none() && cluster.fleet_total().await? == Some(from) {
            // Of an earlier time with this count.
            cluster.forget(to).await?;
        }
        match cluster.begin_reshard(from, to).await? {
            ReshardBegun::Begun(known) => {
                info!(from, to, "resharding: the new shards gather");
                self.follow(known).await;
                Ok(())
            }
            ReshardBegun::UnderWay(known) if known.to == to => {
                self.follow(known).await;
                Ok(())
            }
            ReshardBegun::UnderWay(known) => Err(Refused::UnderWay(known.to)),
            ReshardBegun::Count(total) => Err(Refused::Same(total)),
        }
    }

    /// What Discord's answer may take: leases are renewed by this task.
    fn patience(&self) -> Duration {
        self.member.times.renew / 2
    }

    async fn abandon(&mut self) -> Result<(), Refused> {
        match self.member.cluster.abandon_reshard().await? {
            true => Ok(()),
            false if self.next.is_some() => Err(Refused::TooLate),
            false => Err(Refused::NotUnderWay),
        }
    }

    /// Begins to reshard, if Discord recommends more shards.
    pub(super) async fn follow_discord(&mut self) {
        let asked = recommended(&self.starter.gateway, &self.starter.hubs);
        let Ok(Some(to)) = timeout(self.patience(), asked).await else { return };
        info!(to, "Discord recommends more shards");
        if let Err(refused) = self.begin(to).await {
            warn!(%refused, to, "the bot can't be resharded");
        }
    }

    /// Looks how far it is, and does what is due.
    pub(super) async fn reshard(&mut self) {
        if self.next.as_ref().is_some_and(|next| !next.cutting && next.asked.elapsed() < ASK_EVERY) {
            return;
        }
        let Ok(known) = self.member.cluster.reshard().await else { return };
        let ours = |next: &Next| known.is_some_and(|known| known.to == next.to);
        if self.next.as_ref().is_some_and(|next| !ours(next)) {
            self.over().await;
        }
        if let Some(known) = known.filter(|known| known.from == self.member.standing.total) {
            self.follow(known).await;
        }
    }

    async fn follow(&mut self, known: Reshard) {
        self.show(&known);
        if self.next.is_none() {
            self.starter.hubs.expect(known.to);
            let (to, asked) = (known.to, Instant::now());
            self.next = Some(Next { to, cutting: false, warm: BTreeSet::new(), asked });
            self.rebalance().await;
        }
        if let Some(why) = self.of_count(known.to).iter().find_map(|(_, new)| new.hub.core().refused()) {
            warn!(why, to = known.to, "Discord won't have the new shards: resharding is given up");
            // It is tried again with the next step, and seen by all.
            let _ = self.member.cluster.abandon_reshard().await;
            return;
        }
        self.tell_warm().await;
        let Some(next) = &mut self.next else { return };
        next.asked = Instant::now();
        if known.phase != ReshardPhase::Cutting {
            return;
        }
        if !std::mem::replace(&mut next.cutting, true) {
            info!(from = known.from, to = known.to, "resharding: the new shards take over");
            // From here on clients are served by the new shards, which wait until they are open.
            self.starter.hubs.switch();
        }
        self.of_count(known.to).iter().for_each(|(_, running)| running.hub.core().seal());
        self.cut_old(known);
        self.open_new(known).await;
    }

    /// Tells which of our new shards have gathered enough, and which haven't any more.
    async fn tell_warm(&mut self) {
        let Some(next) = &self.next else { return };
        let old = self.of_count(self.member.standing.total);
        let may_be_cut = next.cutting || old.iter().all(|(_, old)| may_be_cut(&old.hub));
        let new = self.of_count(next.to);
        let warm: BTreeSet<ShardId> = new
            .iter()
            .filter(|(_, new)| is_warm(&new.hub) && may_be_cut || !new.hub.core().is_warming())
            .map(|(lease, _)| lease.shard)
            .collect();
        let begun: Vec<ShardId> = warm.difference(&next.warm).copied().collect();
        let ended: Vec<ShardId> = next.warm.difference(&warm).copied().collect();
        let cluster = self.member.cluster.clone();
        let told = begun.is_empty() || cluster.warmed(&begun).await.is_ok();
        let told = told && (ended.is_empty() || cluster.cooled(&ended).await.is_ok());
        if let Some(next) = self.next.as_mut().filter(|_| told) {
            next.warm = warm;
        }
    }

    /// Cuts the old shards that are here: they end, and say what they have given lately.
    fn cut_old(&mut self, known: Reshard) {
        for (lease, running) in self.of_count(known.from) {
            if !running.hub.is_live() {
                continue;
            }
            let Some(slot) = self.slots.get_mut(&lease.shard) else { continue };
            slot.state = State::Stopping;
            let (cluster, starter) = (self.member.cluster.clone(), Arc::clone(&self.starter));
            let (within, stop) = (self.member.within, self.stop.clone());
            self.jobs.spawn(async move {
                starter.stop(&running, within).await;
                handover::save_last(&cluster, &running).await;
                let seen = seen_by(Arc::clone(&running.hub), known.to).await;
                while cluster.cut(lease.shard, &seen).await.is_err() {
                    if stop.run_until_cancelled(tokio::time::sleep(STEP)).await.is_none() {
                        break;
                    }
                }
                Done::Cut(lease.shard)
            });
        }
    }

    pub(super) fn was_cut(&mut self, shard: ShardId) {
        match self.slots.get_mut(&shard) {
            Some(slot) if !slot.lost && !self.stop.is_cancelled() => slot.state = State::Cut,
            _ => {
                self.slots.remove(&shard);
            }
        }
    }

    /// Opens new shards that are here, as soon as all old ones are cut.
    async fn open_new(&mut self, known: Reshard) {
        let new = self.of_count(known.to);
        let publishes = self.starter.publishes();
        if known.cut == known.from {
            self.find_keepers(known.from).await;
        }
        let cluster = &self.member.cluster;
        let mut due = Vec::new();
        for (lease, new) in new.iter().filter(|_| known.cut == known.from) {
            if new.hub.is_live()
                && new.hub.core().is_warming()
                && let Ok(Some(seen)) = cluster.seen(lease.shard).await
            {
                due.push((new, seen));
            }
        }
        if !due.is_empty() {
            let wishes = self.wishes(known.from).await;
            let opening = due.into_iter().map(async |(new, seen)| {
                carry_over(&wishes, &new.hub);
                open(&new.hub, seen, publishes).await;
            });
            join_all(opening).await;
        }
        let is_open =
            |(lease, new): &(Lease, Arc<Running>)| (!new.hub.core().is_warming()).then_some(lease.shard);
        let open: Vec<ShardId> = new.iter().filter_map(is_open).collect();
        if open.len() == new.len() {
            self.starter.hubs.opened();
        }
        if !open.is_empty() {
            // It is told again with the next step.
            let _ = cluster.opened(&open).await;
        }
    }

    /// Finds out who has the old shards: they are kept there for clients, and nobody will have a lease on them.
    async fn find_keepers(&self, from: u32) {
        let shards: Vec<ShardId> = ShardId::all(from).collect();
        let Ok(owners) = self.member.cluster.owners(&shards).await else { return };
        let own = self.member.cluster.identity().id;
        let others = shards.into_iter().zip(owners).filter_map(|(shard, owner)| Some((shard, owner?)));
        self.starter.hubs.are_kept(others.filter(|(_, owner)| owner.replica != own));
    }

    /// What clients have set on the old shards, wherever they were.
    async fn wishes(&self, from: u32) -> Vec<Wishes> {
        let shards: Vec<ShardId> = ShardId::all(from).collect();
        let records = self.member.cluster.load_sessions(&shards).await.unwrap_or_default();
        let wishes = records.into_iter().filter_map(|record| record?.wishes);
        wishes.filter_map(|wishes| serde_json::from_str(wishes.get()).ok()).collect()
    }

    /// The change isn't under way any more: it is done, or was abandoned.
    async fn over(&mut self) {
        let Ok(total) = self.member.cluster.fleet_total().await else { return };
        let Some(next) = self.next.take() else { return };
        let from = self.member.standing.total;
        if next.cutting && total != Some(next.to) {
            // The store has lost what we know: there is no way back from here.
            let _ = self.member.cluster.replace_total(from, next.to).await;
        }
        if next.cutting || total == Some(next.to) {
            self.done_with(from, &next).await;
        } else {
            warn!(from, to = next.to, "resharding was abandoned");
            self.desk.ended(from, format!("resharding to {} shards was abandoned", next.to));
            let new: Vec<ShardId> = self.running().filter(|shard| shard.total == next.to).collect();
            new.into_iter().for_each(|shard| self.stop(shard));
            self.starter.hubs.expect_none();
            self.forget(next.to);
        }
    }

    async fn done_with(&mut self, from: u32, next: &Next) {
        info!(from, to = next.to, "resharded");
        if !next.cutting {
            self.starter.hubs.switch();
        }
        let publishes = self.starter.publishes();
        for (_, running) in self.of_count(next.to) {
            // Opened by an owner before us, who has told.
            open(&running.hub, Vec::new(), publishes).await;
        }
        self.starter.hubs.opened();
        self.member.standing.total = next.to;
        self.desk.ended(next.to, format!("resharded from {from} to {} shards", next.to));
        count::save(&self.starter.config.state_dir, next.to);
        let old: Vec<ShardId> = self.slots.keys().filter(|shard| shard.total == from).copied().collect();
        let mut cut = Vec::new();
        for shard in old {
            match self.slots.get(&shard).map(|slot| (slot.lease, &slot.state)) {
                Some((lease, State::Cut)) => {
                    cut.push(lease);
                    self.slots.remove(&shard);
                }
                _ => self.stop(shard),
            }
        }
        let _ = self.member.cluster.release(&cut).await;
        self.forget(from);
        self.retire(from);
    }

    /// Removes from the store what it has of a count that isn't used, when nobody can renew a lease of it any more.
    fn forget(&mut self, total: u32) {
        let (cluster, stop) = (self.member.cluster.clone(), self.stop.clone());
        let after = self.member.times.expiry * 2;
        self.jobs.spawn(async move {
            let waited = stop.run_until_cancelled(tokio::time::sleep(after)).await;
            if waited.is_some()
                && let (Ok(None), Ok(Some(current))) = (cluster.reshard().await, cluster.fleet_total().await)
                && current != total
            {
                // Another replica does it, too.
                let _ = cluster.forget(total).await;
            }
            Done::Over
        });
    }

    /// The old shards' logs are kept for clients that haven't read them, and their files no longer.
    fn retire(&mut self, from: u32) {
        let (starter, store, stop) = (Arc::clone(&self.starter), self.store.clone(), self.stop.clone());
        self.jobs.spawn(async move {
            let after = starter.config.session_expiry;
            if stop.run_until_cancelled(tokio::time::sleep(after)).await.is_some() {
                starter.hubs.forget_retired(from);
            }
            // The bot may have come back to that count.
            if starter.hubs.uses(from) {
                return Done::Over;
            }
            remove(ShardId::all(from).filter_map(|id| store.shard(id.shard, id.total).dir()).collect()).await;
            Done::Over
        });
    }

    /// Shards of a count that run here.
    fn of_count(&self, total: u32) -> Vec<(Lease, Arc<Running>)> {
        let slots = self.slots.iter().filter(|(shard, _)| shard.total == total);
        slots
            .filter_map(|(_, slot)| match &slot.state {
                State::Running(running) => Some((slot.lease, Arc::clone(running))),
                _ => None,
            })
            .collect()
    }

    fn show(&self, known: &Reshard) {
        self.desk.show(|status| {
            status.shards = known.from;
            status.phase = Some(match known.phase {
                ReshardPhase::Warming => Phase::Warming,
                ReshardPhase::Cutting => Phase::Cutting,
            });
            status.progress =
                Some(Progress { to: known.to, warm: known.warm, cut: known.cut, opened: known.opened });
        });
    }
}
