// SPDX-License-Identifier: AGPL-3.0-only
//! This replica's part of the bot's shards: takes what it should own, keeps what it owns, hands over what others should.
//!
//! In: who lives, from the store; leases granted, lost, released. Out: shards started and stopped. One task; what takes
//! long (starting, handing over) runs beside it, so that leases are renewed in time. While the store is away everything
//! stays as it is.

mod leases;
mod reshard;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_cluster::{Change, Cluster, HeartbeatError, Lease, ShardId, Standing, Store, StoreState, Times};
use holdfast_service::Condition;
use tokio::{
    select,
    sync::broadcast::error::RecvError,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::reshard::Next;
use super::{
    Desk, Running, Starter, Tenure,
    handover::{Handovers, save},
    metrics::Metrics,
    reshard::RECOMMENDED_EVERY,
    takeover::{Takeover, take_over},
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
    handovers: Arc<Handovers>,
    /// When leases were renewed last.
    renewed: Instant,
    live: Vec<holdfast_cluster::Replica>,
    /// Shards that this replica should own and couldn't get yet.
    missing: usize,
    stop: CancellationToken,
    slots: BTreeMap<ShardId, Slot>,
    jobs: JoinSet<Done>,
    desk: Desk,
    /// The bot is being resharded.
    next: Option<Next>,
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
    /// Of the former count, and cut: nobody else is to begin it again.
    Cut,
}

/// What ran beside the task has ended.
enum Done {
    Started(ShardId, Result<Running, WsError>),
    Stopped(ShardId),
    Cut(ShardId),
    /// Nothing that anybody waits for.
    Over,
}

impl Replica {
    pub(crate) fn new(
        member: Member,
        starter: Arc<Starter>,
        store: Store,
        metrics: Metrics,
        desk: Desk,
        stop: CancellationToken,
    ) -> Self {
        Self {
            tenure: Arc::new(Tenure::new(member.times.expiry)),
            handovers: Arc::default(),
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
            desk,
            next: None,
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
        let (stop, urgent) = (self.stop.clone(), Arc::clone(&self.handovers.urgent));
        let mut changes = self.member.cluster.changes();
        let mut state = self.member.cluster.state();
        let mut looks = interval(self.member.times.renew.min(LOOK_EVERY));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saves = interval(SAVE_EVERY);
        saves.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut steps = interval(reshard::STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut recommendations = interval(RECOMMENDED_EVERY);
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
                    Ok(Change::Released(shard)) => self.released(shard, &mut changes).await,
                    Ok(Change::Replicas | Change::Missed | Change::Reshard) | Err(RecvError::Lagged(_)) => {
                        self.look().await;
                    }
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                () = urgent.notified() => self.save().await,
                _ = saves.tick() => self.save().await,
                _ = steps.tick(), if self.next.is_some() => self.reshard().await,
                Some(ask) = self.desk.asks.recv() => self.asked(ask).await,
                _ = recommendations.tick(), if self.starter.config.reshard.automatic => self.follow_discord().await,
            }
            self.tell(&state.borrow());
        }
        self.drain().await;
    }

    fn start(&mut self, lease: Lease) {
        let shard = lease.shard;
        info!(shard = shard.shard, total = shard.total, generation = lease.generation, "taking the shard");
        self.metrics.takeovers.inc();
        self.taken(shard);
        self.slots.insert(shard, Slot { lease, state: State::Starting, lost: false });
        let takeover = Takeover {
            cluster: self.member.cluster.clone(),
            store: self.store.clone(),
            starter: Arc::clone(&self.starter),
            tenure: Arc::clone(&self.tenure),
            handovers: Arc::clone(&self.handovers),
            lease,
            gathers_beside: self.gathers(shard).then_some(self.member.standing.total),
        };
        let stop = self.stop.clone();
        self.jobs.spawn(async move { Done::Started(shard, take_over(takeover, stop).await) });
    }

    /// Stops a shard that runs. The next owner gets the records, unless the shard is its already.
    fn stop(&mut self, shard: ShardId) {
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
        let (handovers, within) = (Arc::clone(&self.handovers), self.member.within);
        self.jobs.spawn(async move {
            starter.stop(&running, within).await;
            if !lost {
                handovers.hand_over(&cluster, lease, running).await;
            }
            Done::Stopped(shard)
        });
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Started(shard, Ok(running))) => {
                let running = Arc::new(running);
                self.started(shard, &running);
                let ours = self.totals().contains(&shard.total) && !self.stop.is_cancelled();
                if let Some(slot) = self.slots.get_mut(&shard) {
                    slot.state = State::Running(running);
                    if slot.lost || !ours {
                        self.stop(shard);
                    }
                }
            }
            Ok(Done::Started(shard, Err(WsError::Stopped)) | Done::Stopped(shard)) => {
                self.slots.remove(&shard);
            }
            Ok(Done::Started(shard, Err(error))) => {
                self.slots.remove(&shard);
                let _ = self.starter.fatal.try_send(error);
            }
            Ok(Done::Cut(shard)) => self.was_cut(shard),
            Ok(Done::Over) => {}
            // The shard would be nobody's for as long as we renew its lease.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => warn!(%error, "a shard's start or stop was cut short"),
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
        let (begun, all) = (Instant::now(), self.slots.len());
        let running: Vec<ShardId> = self.running().collect();
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

    fn running(&self) -> impl Iterator<Item = ShardId> + '_ {
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
