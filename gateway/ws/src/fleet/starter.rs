// SPDX-License-Identifier: AGPL-3.0-only
//! Starts shards, and stops them one by one. In: a shard's number and its records. Out: its tasks and its hub.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_service::Tasks;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use holdfast_cluster::ShardId;

use super::{Hubs, Records};
use crate::{
    amqp::{Amqp, READER},
    log::{self, FIRST, Position, Writer},
    metrics::Metrics,
    settings::Config,
    shard::{
        Gateway, Hub, Identity, Keeper, Keeping, LEAVE_WITHIN, Outbox, Recovered, Recovery, SessionLimits,
        ShardTask, reconnect_backoff, recover,
    },
    start::WsError,
};

/// How old a guild's changes may grow before other replicas can have them.
const SHARED_WITHIN: Duration = Duration::from_secs(30);

/// The intent with which Discord sends guilds.
const GUILDS: u64 = 1;

/// What all shards are started with.
pub(crate) struct Starter {
    pub(crate) config: Arc<Config>,
    /// Woken when a shard has changed its phase.
    pub(crate) phases: Arc<Notify>,
    /// The most shards that run here at first: each has its share of the bounds on all logs.
    pub(crate) shards: usize,
    pub(crate) hubs: Arc<Hubs>,
    pub(crate) runtimes: Vec<Handle>,
    pub(crate) writer: Writer,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: Tasks,
    /// Ends all clients.
    pub(crate) clients: CancellationToken,
    pub(crate) fatal: mpsc::Sender<WsError>,
    pub(crate) amqp: Option<Arc<Amqp>>,
}

/// A shard that runs.
pub(crate) struct Running {
    pub(crate) hub: Arc<Hub>,
    pub(crate) records: Records,
    shard: Tasks,
    publishing: Option<Tasks>,
}

impl Starter {
    /// Whether the shards' events are published by AMQP.
    pub(crate) fn publishes(&self) -> bool {
        self.amqp.as_ref().is_some_and(|amqp| amqp.publishes())
    }

    /// Recovers a shard and starts its tasks; one of a count that is yet to come `gathers`, above a position, and is seen
    /// by nobody. Blocks while it reads what is stored.
    ///
    /// # Errors
    /// The log's files can't be opened.
    pub(crate) fn start(
        &self,
        id: ShardId,
        records: Records,
        gathers: Option<Position>,
    ) -> Result<Running, WsError> {
        let config = &self.config;
        let ShardId { shard, total } = id;
        // While there are two counts, each has the bounds: the logs of one of them are short.
        let shards = self.shards.max(if gathers.is_some() { total as usize } else { 0 });
        let disk_pressure = log_settings(config, shards).disk_bytes / 2;
        let settings = self.identity.settings();
        let Recovered { core, session, stream_began } = self.recover(id, &records, shards, gathers)?;
        let runtime = self.runtimes[shard as usize % self.runtimes.len()].clone();
        let (hub, commands) = Hub::new(
            (shard, total),
            records.generation(),
            core,
            runtime.clone(),
            self.clients.child_token(),
            Arc::clone(&self.phases),
        );
        let hub = Arc::new(hub);
        let keeping = Keeping {
            settings,
            tick: config.log.batch_interval,
            checkpoint_age: if records.is_shared() {
                // Another replica has what is younger replayed by Discord, which holds a few minutes.
                config.checkpoint_age.min(SHARED_WITHIN)
            } else {
                config.checkpoint_age
            },
            memory_age: config.log.memory_age,
            disk_pressure,
            stream_began,
            confirm_within: config.confirm_timeout,
        };
        let publishing = self.amqp.as_ref().map(|amqp| {
            let tasks = self.tasks.child();
            amqp.follow(&hub, &records, shards, &tasks);
            tasks
        });
        let tasks = self.tasks.child();
        let task = ShardTask {
            hub: Arc::clone(&hub),
            commands,
            session,
            outbox: Outbox::new(),
            gateway: Arc::clone(&self.gateway),
            identity: Arc::clone(&self.identity),
            keeper: Keeper::new(records.clone(), Arc::clone(&self.metrics), &keeping),
            backoff: reconnect_backoff(),
            metrics: Arc::clone(&self.metrics),
            tasks: self.tasks.clone(),
            // Within what a hand-over gives it: see `Starter::stop`.
            leave_within: LEAVE_WITHIN.min(config.drain_timeout / 6),
            shutdown: tasks.token().clone(),
            turn: None,
            pressed: false,
            unknown_opcode: None,
        };
        let (fatal, refused) = (self.fatal.clone(), Arc::clone(&hub));
        let run = async move {
            if let Err(error) = task.run().await
                && !refused.core().refuse(error.to_string())
            {
                // One is enough: the service ends with it.
                let _ = fatal.try_send(error.into());
            }
        };
        tasks.spawn_on(&runtime, "shard", run.instrument(info_span!("shard", shard)));
        self.hubs.insert(Arc::clone(&hub));
        Ok(Running { hub, records, shard: tasks, publishing })
    }

    /// What an earlier time has left of a shard. `shards`: how many have the bounds on all logs.
    fn recover(
        &self,
        id: ShardId,
        records: &Records,
        shards: usize,
        gathers: Option<Position>,
    ) -> Result<Recovered, WsError> {
        let config = &self.config;
        let mut recovered = recover(Recovery {
            settings: &self.identity.settings(),
            guilds: self.identity.intents & GUILDS != 0,
            shard: (id.shard, id.total),
            store: records,
            log: log_settings(config, shards),
            writer: &self.writer,
            state: state_options(config),
            sessions: SessionLimits { expiry: config.session_expiry, max: config.max_clients_per_shard * 4 },
        })?;
        recovered.core.overlap = config.reshard.overlap;
        if let Some(above) = gathers {
            if recovered.core.log.last() < FIRST {
                recovered.core.log.skip_to(above);
            }
            recovered.core.gather(records.load_cursor(READER).map(|cursor| cursor.position));
        }
        Ok(recovered)
    }

    /// Ends a shard, resumably: it prepares while events still come; then the connection ends, so that nothing more
    /// does; then clients and publishing, which have a moment to get to the log's end.
    pub(crate) async fn stop(&self, running: &Running, within: Duration) {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        let number = running.hub.shard;
        finish(&running.shard, left() * 2 / 3, number).await;
        running.hub.leave();
        if let Some(publishing) = &running.publishing {
            finish(publishing, left(), number).await;
        }
        running.hub.left(left()).await;
        self.hubs.remove(&running.hub);
        self.metrics.status(number, 0);
        self.phases.notify_one();
    }
}

async fn finish(tasks: &Tasks, within: Duration, shard: u32) {
    if let Err(unfinished) = tasks.finish(within).await {
        warn!(shard, %unfinished, "not everything of the shard ended in time");
    }
}

/// Each shard's share of the bounds on all logs.
fn log_settings(config: &Config, shards: usize) -> log::Settings {
    let shards = u64::try_from(shards.max(1)).unwrap_or(1);
    log::Settings {
        memory_bytes: usize::try_from(config.log.memory / shards).unwrap_or(usize::MAX).max(64 * 1024),
        disk_bytes: (config.log.disk / shards).max(1 << 20),
        max_age: config.log.age,
        batch_events: config.log.batch_events as u64,
        batch_delay: config.log.batch_interval,
    }
}

fn state_options(config: &Config) -> holdfast_state::Options {
    let cache = config.cache;
    holdfast_state::Options {
        channels: cache.channels,
        threads: cache.threads,
        roles: cache.roles,
        emojis: cache.emojis,
        stickers: cache.stickers,
        members: cache.members,
        presences: cache.presences,
        voice_states: cache.voice_states,
        stage_instances: cache.stage_instances,
        scheduled_events: cache.scheduled_events,
        soundboard_sounds: cache.soundboard_sounds,
        ..holdfast_state::Options::default()
    }
}
