// SPDX-License-Identifier: AGPL-3.0-only
//! This replica's part of the bot's shards: takes what it should own, keeps what it owns, hands over what others should.
//!
//! In: who lives, from the store; leases granted, lost, released. Out: shards started and stopped. One task; what takes
//! long (starting, handing over) runs beside it, so that leases are renewed in time. While the store is away everything
//! stays as it is.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_cluster::{
    Acquired, Change, Cluster, HeartbeatError, Lease, Renewed, ShardId, Standing, Store, StoreState, Times,
    place,
};
use holdfast_service::Condition;
use tokio::{
    select,
    sync::broadcast::error::RecvError,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Running, Starter, Tenure,
    handover::{Takeover, hand_over, save, take_over},
    metrics::Metrics,
};
use crate::start::WsError;

/// Records are brought to the store this often: what a crash takes is replayed by Discord.
const SAVE_EVERY: Duration = Duration::from_millis(250);
/// Who lives is looked at this often, or with each renewal, if that is oftener: nobody tells of a replica that was killed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// This process among the replicas.
pub(crate) struct Member {
    pub(crate) cluster: Cluster,
    pub(crate) standing: Standing,
    pub(crate) times: Times,
    /// What a shard's hand-over may take.
    pub(crate) within: Duration,
    /// Of `/readyz`.
    pub(crate) condition: Condition,
}

/// See the module's documentation.
pub(crate) struct Replica {
    member: Member,
    starter: Arc<Starter>,
    store: Store,
    metrics: Metrics,
    tenure: Arc<Tenure>,
    /// When leases were renewed last.
    renewed: Instant,
    live: Vec<holdfast_cluster::Replica>,
    /// Shards that this replica should own and couldn't get yet.
    missing: usize,
    stop: CancellationToken,
    slots: BTreeMap<u32, Slot>,
    jobs: JoinSet<Done>,
}

/// What this replica does with a shard that it has a lease on.
struct Slot {
    lease: Lease,
    state: State,
    /// It is another's by now.
    lost: bool,
}

enum State {
    Starting,
    Running(Arc<Running>),
    Stopping,
}

/// What ran beside the task has ended.
enum Done {
    Started(u32, Result<Running, WsError>),
    Stopped(u32),
}

impl Replica {
    pub(crate) fn new(
        member: Member,
        starter: Arc<Starter>,
        store: Store,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        Self {
            tenure: Arc::new(Tenure::new(member.times.expiry)),
            member,
            starter,
            store,
            metrics,
            renewed: Instant::now(),
            live: Vec::new(),
            missing: 0,
            stop,
            slots: BTreeMap::new(),
            jobs: JoinSet::new(),
        }
    }

    /// Registers this replica. To be called before [`Replica::run`]: nothing may begin beside another fleet.
    ///
    /// # Errors
    /// Another bot, or another count of shards, works under the prefix; or the store refuses us.
    pub(crate) async fn register(&mut self, stop: &CancellationToken) -> Result<(), WsError> {
        loop {
            match self.member.cluster.heartbeat(&self.member.standing).await {
                Ok(live) => {
                    self.live = live;
                    return Ok(());
                }
                Err(HeartbeatError::Conflict(conflict)) if conflict.lapses_in().is_none() => {
                    return Err(conflict.into());
                }
                Err(HeartbeatError::Unavailable(unavailable)) if unavailable.is_refused() => {
                    return Err(unavailable.into());
                }
                Err(error) => {
                    warn!(%error, "not registered among the replicas yet");
                    self.member.condition.waiting(error.to_string());
                }
            }
            let pause = tokio::time::sleep(self.member.times.renew.min(LOOK_EVERY));
            if stop.run_until_cancelled(pause).await.is_none() {
                return Err(WsError::Stopped);
            }
        }
    }

    /// Runs until it is told to stop; then hands everything over, and leaves.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut changes = self.member.cluster.changes();
        let mut state = self.member.cluster.state();
        let mut looks = interval(self.member.times.renew.min(LOOK_EVERY));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saves = interval(SAVE_EVERY);
        saves.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! { biased;
                () = stop.cancelled() => break,
                _ = looks.tick() => self.look().await,
                changed = state.changed() => {
                    let connected = state.borrow_and_update().is_connected();
                    if changed.is_ok() && connected {
                        self.renew().await;
                        self.look().await;
                    }
                }
                Some(done) = self.jobs.join_next() => self.done(done),
                change = changes.recv() => match change {
                    Ok(Change::Released(shard)) => self.released(shard).await,
                    Ok(Change::Replicas | Change::Missed) | Err(RecvError::Lagged(_)) => self.look().await,
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                _ = saves.tick() => self.save().await,
            }
            self.tell(&state.borrow());
        }
        self.drain().await;
    }

    /// Renews the registration, and leases when they are due, then looks who should own what.
    async fn look(&mut self) {
        match self.member.cluster.heartbeat(&self.member.standing).await {
            Ok(live) => self.live = live,
            Err(HeartbeatError::Unavailable(error)) => {
                debug!(%error, "the store is away: going on with what we have");
                self.tenure.unanswered();
                return;
            }
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
    async fn renew(&mut self) -> bool {
        let leases: Vec<Lease> = self.slots.values().map(|slot| slot.lease).collect();
        let sent = Instant::now();
        let Ok(renewed) = self.member.cluster.renew(&leases).await else {
            self.tenure.unanswered();
            return false;
        };
        for (lease, renewed) in leases.iter().zip(renewed) {
            if let Renewed::Lost(owner) = renewed {
                let owner = owner.map(|owner| owner.address);
                self.lose(lease.shard.shard, owner.as_deref());
            }
        }
        self.renewed = sent;
        // After those that are lost know it.
        self.tenure.renewed(sent);
        true
    }

    fn lose(&mut self, shard: u32, owner: Option<&str>) {
        let Some(slot) = self.slots.get_mut(&shard).filter(|slot| !slot.lost) else { return };
        warn!(shard, owner, "the shard is another's by now");
        slot.lost = true;
        self.metrics.lost.inc();
        self.stop(shard);
    }

    /// Takes what this replica should own, and hands over what others should.
    async fn rebalance(&mut self) {
        let total = self.member.standing.total;
        let own = self.member.cluster.identity().id;
        let owners = place(total, &self.live);
        let should = |shard: u32| owners.get(shard as usize).copied().flatten();
        let theirs: Vec<u32> =
            self.running().filter(|shard| should(*shard).is_some_and(|owner| owner != own)).collect();
        theirs.into_iter().for_each(|shard| self.stop(shard));
        let wanted: Vec<ShardId> = (0..total)
            .filter(|shard| should(*shard) == Some(own) && !self.slots.contains_key(shard))
            .map(|shard| ShardId::new(shard, total))
            .collect();
        self.acquire(&wanted).await;
        self.missing = wanted.iter().filter(|shard| !self.slots.contains_key(&shard.shard)).count();
    }

    async fn released(&mut self, shard: ShardId) {
        let own = self.member.cluster.identity().id;
        let owner =
            place(self.member.standing.total, &self.live).get(shard.shard as usize).copied().flatten();
        if owner == Some(own) && !self.slots.contains_key(&shard.shard) {
            self.acquire(&[shard]).await;
            self.missing = self.missing.saturating_sub(usize::from(self.slots.contains_key(&shard.shard)));
        }
    }

    async fn acquire(&mut self, shards: &[ShardId]) {
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
                    debug!(
                        shard = shard.shard,
                        owner = owner.address,
                        "waiting for the shard to be handed over"
                    );
                }
                Acquired::Reserved(left) => {
                    debug!(
                        shard = shard.shard,
                        left_ms = left.as_millis(),
                        "its last owner may come back for it"
                    );
                }
            }
        }
    }

    fn start(&mut self, lease: Lease) {
        let shard = lease.shard.shard;
        info!(shard, generation = lease.generation, "taking the shard");
        self.metrics.takeovers.inc();
        self.slots.insert(shard, Slot { lease, state: State::Starting, lost: false });
        let takeover = Takeover {
            cluster: self.member.cluster.clone(),
            store: self.store.clone(),
            starter: Arc::clone(&self.starter),
            tenure: Arc::clone(&self.tenure),
            lease,
        };
        let stop = self.stop.clone();
        self.jobs.spawn(async move { Done::Started(shard, take_over(takeover, stop).await) });
    }

    /// Stops a shard that runs. The next owner gets the records, unless the shard is its already.
    fn stop(&mut self, shard: u32) {
        let Some(slot) = self.slots.get_mut(&shard) else { return };
        let State::Running(running) = &slot.state else { return };
        let (running, lease, lost) = (Arc::clone(running), slot.lease, slot.lost);
        slot.state = State::Stopping;
        if lost {
            running.records.lose();
        } else {
            self.metrics.handovers.inc();
        }
        let (cluster, starter) = (self.member.cluster.clone(), Arc::clone(&self.starter));
        let within = self.member.within;
        self.jobs.spawn(async move {
            starter.stop(&running, within).await;
            if !lost {
                hand_over(&cluster, lease, &running).await;
            }
            Done::Stopped(shard)
        });
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Started(shard, Ok(running))) => {
                if let Some(slot) = self.slots.get_mut(&shard) {
                    slot.state = State::Running(Arc::new(running));
                    if slot.lost || self.stop.is_cancelled() {
                        self.stop(shard);
                    }
                }
            }
            Ok(Done::Started(shard, Err(WsError::Stopped))) => {
                self.slots.remove(&shard);
            }
            Ok(Done::Started(shard, Err(error))) => {
                self.slots.remove(&shard);
                let _ = self.starter.fatal.try_send(error);
            }
            Ok(Done::Stopped(shard)) => {
                self.slots.remove(&shard);
            }
            Err(error) => warn!(%error, "a shard's start or stop has failed"),
        }
    }

    async fn save(&mut self) {
        let running: Vec<_> = self
            .slots
            .values()
            .filter_map(|slot| match &slot.state {
                State::Running(running) => Some(Arc::clone(running)),
                _ => None,
            })
            .collect();
        if let Err(error) = save(&self.member.cluster, &running).await {
            debug!(%error, "records wait for the store");
        }
    }

    /// Hands all shards over, side by side, and leaves.
    async fn drain(&mut self) {
        self.member.standing.draining = true;
        let _ = self.member.cluster.heartbeat(&self.member.standing).await;
        let begun = Instant::now();
        let all = self.slots.len();
        let running: Vec<u32> = self.running().collect();
        running.into_iter().for_each(|shard| self.stop(shard));
        let mut renewals = interval(self.member.times.renew);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renewals.reset();
        loop {
            select! { biased;
                _ = renewals.tick() => { self.renew().await; }
                done = self.jobs.join_next() => match done {
                    Some(done) => self.done(done),
                    None => break,
                },
            }
        }
        info!(shards = all, within_ms = begun.elapsed().as_millis(), "handed over");
        let _ = self.member.cluster.leave().await;
    }

    fn running(&self) -> impl Iterator<Item = u32> + '_ {
        let runs = |slot: &Slot| matches!(slot.state, State::Running(_));
        self.slots.iter().filter(move |(_, slot)| runs(slot)).map(|(shard, _)| *shard)
    }

    /// What `/readyz` and metrics say.
    fn tell(&self, store: &StoreState) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.owned.set(gauge(self.slots.len()));
        self.metrics.replicas.set(gauge(self.live.len()));
        self.metrics.connected.set(i64::from(store.is_connected()));
        match (store, self.missing) {
            (StoreState::Down { why, .. }, _) => self.member.condition.waiting(why.to_string()),
            (StoreState::Connected, 0) => self.member.condition.ready(),
            (StoreState::Connected, missing) => {
                self.member.condition.waiting(format!("{missing} shards that should be ours aren't yet"));
            }
        }
    }
}
