// SPDX-License-Identifier: AGPL-3.0-only
//! The bot's shards in this process alone. In: who asks for another count of shards. Out: shards that run until the
//! process ends. One task: while it reshards, it does nothing else.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use holdfast_cluster::{Seen, ShardId, Store};
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Records, Running, Starter, count,
    reshard::{
        Ask, Desk, Phase, Progress, RECOMMENDED_EVERY, Refused, above, admit, carry_over, is_warm,
        may_be_cut, open, recommended, remove, seen_by,
    },
};
use crate::{log::Position, shard::Hub, start::WsError};

/// Shards that gather are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See the module's documentation.
pub(crate) struct Alone {
    pub(crate) starter: Arc<Starter>,
    pub(crate) store: Store,
    pub(crate) running: Vec<Running>,
    pub(crate) desk: Desk,
    /// Whether all of the bot's shards are here.
    pub(crate) whole: bool,
    /// What stopping all shards may take.
    pub(crate) within: Duration,
    pub(crate) stop: CancellationToken,
}

impl Alone {
    /// Starts shards, of the current count or of one that is yet to come.
    ///
    /// # Errors
    /// The log's files can't be opened.
    pub(crate) fn start(
        starter: &Starter,
        store: &Store,
        shards: impl Iterator<Item = ShardId>,
        gathers: Option<Position>,
    ) -> Result<Vec<Running>, WsError> {
        let start = |id: ShardId| starter.start(id, Records::local(store.shard(id.shard, id.total)), gathers);
        shards.map(start).collect()
    }

    /// Runs until it is told to stop; then stops the shards.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut looks = interval(RECOMMENDED_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let automatic = self.starter.config.reshard.automatic && self.whole;
        loop {
            select! { biased;
                () = stop.cancelled() => break,
                Some(ask) = self.desk.asks.recv() => self.asked(ask).await,
                _ = looks.tick(), if automatic => {
                    if let Some(to) = recommended(&self.starter.gateway, &self.starter.hubs).await {
                        info!(to, "Discord recommends more shards");
                        match admit(&self.starter.gateway, &self.starter.hubs, to).await {
                            Ok(()) => self.reshard(to).await,
                            Err(refused) => warn!(%refused, to, "the bot can't be resharded"),
                        }
                    }
                }
            }
        }
        stop_all(&self.starter, &self.running, self.within).await;
    }

    async fn asked(&mut self, ask: Ask) {
        let (to, reply) = match ask {
            Ask::Begin { to, reply } => (to, reply),
            Ask::Abandon { reply } => {
                let _ = reply.send(Err(Refused::NotUnderWay));
                return;
            }
        };
        let admitted = match self.whole {
            true => admit(&self.starter.gateway, &self.starter.hubs, to).await,
            false => Err(Refused::Part),
        };
        if admitted.is_ok() {
            self.show(to, Phase::Warming, 0);
        }
        let begins = admitted.is_ok();
        // Whoever asked may have gone: it is done all the same.
        let _ = reply.send(admitted);
        if begins {
            self.reshard(to).await;
        }
    }

    async fn reshard(&mut self, to: u32) {
        let from = self.starter.hubs.total();
        info!(from, to, "resharding: the new shards gather");
        self.show(to, Phase::Warming, 0);
        let next = match self.gather(to).await {
            Ok(next) => next,
            Err(why) => {
                warn!(from, to, why, "resharding is abandoned");
                self.desk.ended(from, format!("resharding to {to} shards was abandoned: {why}"));
                return;
            }
        };
        self.cut_over(next, to).await;
        info!(from, to, "resharded");
        self.desk.ended(to, format!("resharded from {from} to {to} shards"));
    }

    /// Shards of the next count, when they have gathered enough.
    async fn gather(&mut self, to: u32) -> Result<Vec<Running>, String> {
        self.starter.hubs.expect(to);
        self.forget(to).await;
        let (starter, store) = (Arc::clone(&self.starter), self.store.clone());
        let above = above(self.running.iter().map(|running| running.hub.core().log.last()));
        let starting = move || Self::start(&starter, &store, ShardId::all(to), Some(above));
        let started = tokio::task::spawn_blocking(starting).await.map_err(std::io::Error::other);
        let why = match started.map_err(WsError::from).flatten() {
            Ok(next) => {
                let Err(why) = self.until_warm(&next, to).await else { return Ok(next) };
                stop_all(&self.starter, &next, self.within).await;
                why
            }
            Err(error) => error.to_string(),
        };
        self.starter.hubs.expect_none();
        self.forget(to).await;
        Err(why)
    }

    /// Err: it is not to be.
    async fn until_warm(&mut self, next: &[Running], to: u32) -> Result<(), String> {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! { biased;
                () = self.stop.cancelled() => return Err("the process ends".to_owned()),
                Some(ask) = self.desk.asks.recv() => match ask {
                    Ask::Begin { reply, .. } => { let _ = reply.send(Err(Refused::UnderWay(to))); }
                    Ask::Abandon { reply } => {
                        let _ = reply.send(Ok(()));
                        return Err("as it was asked".to_owned());
                    }
                },
                _ = looks.tick() => {
                    if let Some(why) = next.iter().find_map(|running| running.hub.core().refused()) {
                        return Err(why);
                    }
                    let warm = next.iter().filter(|running| is_warm(&running.hub)).count();
                    self.show(to, Phase::Warming, warm);
                    if warm == next.len() && self.running.iter().all(|running| may_be_cut(&running.hub)) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The new shards take over.
    async fn cut_over(&mut self, next: Vec<Running>, to: u32) {
        let from = self.starter.hubs.total();
        self.show(to, Phase::Cutting, next.len());
        next.iter().for_each(|running| running.hub.core().seal());
        let old = std::mem::replace(&mut self.running, next);
        // From here on clients are served by the new shards, which wait until they are open.
        self.starter.hubs.switch();
        stop_all(&self.starter, &old, self.within).await;
        let mut seen: Vec<Vec<Seen>> = vec![Vec::new(); to as usize];
        for told in join_all(old.iter().map(|running| seen_by(Arc::clone(&running.hub), to))).await {
            for (shard, of_shard) in told {
                if let Some(seen) = seen.get_mut(shard as usize) {
                    seen.extend(of_shard);
                }
            }
        }
        let wishes: Vec<_> = old.iter().map(|running| running.hub.core().wishes()).collect();
        self.running.iter().for_each(|running| carry_over(&wishes, &running.hub));
        let opening = self.running.iter().zip(seen);
        join_all(opening.map(|(running, seen)| self.open(&running.hub, seen))).await;
        count::save(&self.starter.config.state_dir, to);
        self.starter.hubs.opened();
        self.retire(old, from);
    }

    async fn open(&self, hub: &Arc<Hub>, seen: Vec<Seen>) {
        while !open(hub, seen.clone(), self.starter.publishes()).await {
            if self.stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// The old shards' logs are kept for clients that haven't read them, and their files no longer.
    fn retire(&self, old: Vec<Running>, from: u32) {
        let (starter, stop) = (Arc::clone(&self.starter), self.stop.clone());
        let after = starter.config.session_expiry;
        let forget = async move {
            if stop.run_until_cancelled(tokio::time::sleep(after)).await.is_some() {
                starter.hubs.forget_retired(from);
            }
            // The bot may have come back to that count.
            if starter.hubs.uses(from) {
                return;
            }
            let dirs: Vec<_> = old.iter().filter_map(|running| running.records.local.dir()).collect();
            drop(old);
            remove(dirs).await;
        };
        self.starter.tasks.spawn("retired shards", forget);
    }

    /// Removes what is stored of shards of a count that isn't used.
    async fn forget(&self, total: u32) {
        remove(ShardId::all(total).filter_map(|id| self.store.shard(id.shard, id.total).dir()).collect())
            .await;
    }

    fn show(&self, to: u32, phase: Phase, warm: usize) {
        let warm = u32::try_from(warm).unwrap_or(u32::MAX);
        self.desk.show(|status| {
            status.phase = Some(phase);
            status.progress = Some(Progress { to, warm, cut: 0, opened: 0 });
        });
    }
}

async fn stop_all(starter: &Starter, running: &[Running], within: Duration) {
    join_all(running.iter().map(|running| starter.stop(running, within))).await;
}
