// SPDX-License-Identifier: AGPL-3.0-only
//! Puts the service together, and takes it apart in order: clients first, so that they confirm what they
//! have; then shards, which leave Discord resumably; then the writer of the logs.
//!
//! In: settings, a listener, the process's handle. Out: [`Ws`], which ends when everything has.

use std::{
    ops::Range,
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use holdfast_cluster::{Permits, Store};
use holdfast_rest::{GatewayBot, RestError};
use holdfast_service::{Backoff, Page, Service, Tasks, TlsError};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    select,
    sync::{Notify, mpsc},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::{
    front::{self, Front},
    log::{self, Writer, WriterSettings},
    metrics::Metrics,
    observer::Observer,
    settings::Config,
    shard::{
        FatalClose, Gateway, Hub, Identity, Keeper, Keeping, Outbox, Recovered, Recovery, SessionLimits,
        ShardTask, limit, reconnect_backoff, recover,
    },
    threads::Threads,
    upstream::Connector,
};

/// What the log's writer gets for its last batches, at most.
const WRITER_WITHIN: Duration = Duration::from_secs(5);

/// Why the service ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum WsError {
    /// A close code that trying again won't mend.
    #[error(transparent)]
    Fatal(#[from] FatalClose),
    /// Discord's API refuses us.
    #[error("Discord can't be asked for its gateway")]
    Rest(#[from] RestError),
    /// The folder of log and sessions can't be used.
    #[error(transparent)]
    Store(#[from] holdfast_cluster::OpenError),
    /// A shard's log can't be opened.
    #[error(transparent)]
    Log(#[from] log::OpenError),
    /// Certificate or key of the front.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Threads or files that the system refuses.
    #[error("the system refuses what the service needs")]
    System(#[from] std::io::Error),
    /// `ws.shards` and what Discord says don't fit.
    #[error("ws.shards.{key}: shards are numbered from 0, and the bot has {total}")]
    Shards {
        /// Which key.
        key: &'static str,
        /// How many there are.
        total: u32,
    },
    /// Asked to stop before it had begun.
    #[error("stopped before Discord had answered")]
    Stopped,
}

impl WsError {
    /// Whether Discord refuses us: starting again won't help before something is changed.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Fatal(_) => true,
            Self::Rest(error) => error.is_final(),
            _ => false,
        }
    }
}

/// A running service.
pub struct Ws {
    /// All of its tasks but the clients'.
    tasks: Tasks,
    fatal: mpsc::Receiver<FatalClose>,
    shutdown: CancellationToken,
    clients: Tasks,
    writer: Writer,
    store: Store,
    drain: Duration,
    threads: Option<Threads>,
}

/// Starts the service: asks Discord for the gateway, recovers each shard, accepts clients.
///
/// # Errors
/// See [`WsError`]; what may pass by itself (Discord out of reach) is waited for.
pub async fn start(
    config: Config,
    listener: TcpListener,
    service: &Service,
    shutdown: CancellationToken,
) -> Result<Ws, WsError> {
    let ready = service.readiness.condition("ws", "waiting for Discord's gateway");
    let rest = holdfast_rest::Client::new(&config.discord.api_url, &config.discord.token)?;
    let answer = gateway_bot(&rest, &config, &shutdown).await?;
    let (range, total) = shards(&config, answer.shards)?;
    let tls = config.tls.as_ref().map(|tls| tls.server_config()).transpose()?;
    let metrics = service.metrics.register(|registry| Metrics::new(registry, range.clone()));

    let (store, set_aside) = open_store(config.state_dir.clone()).await?;
    for set_aside in set_aside {
        let (path, to) = (set_aside.path.display(), set_aside.to.display());
        warn!(%path, %to, reason = set_aside.reason, "set aside: a fresh start");
    }
    let writer = Writer::start(WriterSettings::default())?;
    let permits = Permits::new(&store, limit(&answer));
    let max_payload = config.discord.max_payload_bytes;
    let connector = Connector::new(config.discord.compression, max_payload);
    let gateway = Arc::new(Gateway::new(rest, config.public_url.clone(), connector, permits, &answer));
    let identity = Arc::new(Identity {
        token: config.discord.token.clone(),
        intents: config.discord.intents.0,
        presence: config.presence.clone(),
    });

    let threads = Threads::start(config.threads.unwrap_or_else(cores))?;
    // Clients end before shards do, and shards only when `Ws::wait` says so.
    let tasks = service.tasks.child();
    let clients = tasks.child();
    let (fatal_sender, fatal) = mpsc::channel(1);
    let phases = Arc::new(Notify::new());
    let shared = Shared {
        phases: &phases,
        config: &config,
        shards: range.len(),
        total,
        store: &store,
        writer: &writer,
        gateway: &gateway,
        identity: &identity,
        metrics: &metrics,
        tasks: &tasks,
        fatal: &fatal_sender,
    };
    let mut hubs = Vec::new();
    for (index, shard) in range.clone().enumerate() {
        hubs.push(shared.start_shard(shard, threads.of(index))?);
    }
    pages(service, &hubs);
    let observer = Observer {
        hubs: hubs.clone(),
        metrics: Arc::clone(&metrics),
        gateway,
        ready,
        phases,
        live: AtomicUsize::new(0),
    };
    tasks.spawn("observing", observer.run(tasks.token().clone()));
    info!(shards = range.len(), total, "ws started");
    let drain = config.drain_timeout;
    let front = Front::new(config, metrics, service.pages.clone(), hubs, total, clients.clone());
    clients.spawn("accepting", front::serve(Arc::new(front), listener, tls.map(TlsAcceptor::from)));
    Ok(Ws { tasks, fatal, shutdown, clients, writer, store, drain, threads: Some(threads) })
}

/// What all shards are started with.
struct Shared<'a> {
    phases: &'a Arc<Notify>,
    config: &'a Config,
    shards: usize,
    total: u32,
    store: &'a Store,
    writer: &'a Writer,
    gateway: &'a Arc<Gateway>,
    identity: &'a Arc<Identity>,
    metrics: &'a Arc<Metrics>,
    tasks: &'a Tasks,
    fatal: &'a mpsc::Sender<FatalClose>,
}

impl Shared<'_> {
    /// Recovers a shard and starts its task. Blocks while it reads what is stored.
    fn start_shard(&self, shard: u32, runtime: Handle) -> Result<Arc<Hub>, WsError> {
        let config = self.config;
        let records = self.store.shard(shard, self.total);
        let log = log_settings(config, self.shards);
        let disk_pressure = log.disk_bytes / 2;
        let settings = self.identity.settings();
        let recovered = recover(Recovery {
            settings: &settings,
            shard: (shard, self.total),
            store: &records,
            log,
            writer: self.writer,
            state: state_options(config),
            sessions: SessionLimits { expiry: config.session_expiry, max: config.max_clients_per_shard * 4 },
        })?;
        let Recovered { core, session, state_from, stream_began } = recovered;
        let (hub, commands) = Hub::new((shard, self.total), core, runtime.clone(), Arc::clone(self.phases));
        let hub = Arc::new(hub);
        let keeping = Keeping {
            settings,
            tick: config.log.batch_interval,
            checkpoint_age: config.checkpoint_age,
            memory_age: config.log.memory_age,
            disk_pressure,
            state_from,
            stream_began,
        };
        let task = ShardTask {
            hub: Arc::clone(&hub),
            commands,
            session,
            outbox: Outbox::new(),
            gateway: Arc::clone(self.gateway),
            identity: Arc::clone(self.identity),
            keeper: Keeper::new(records, Arc::clone(self.metrics), &keeping),
            backoff: reconnect_backoff(),
            metrics: Arc::clone(self.metrics),
            tasks: self.tasks.clone(),
            shutdown: self.tasks.token().clone(),
            turn: None,
            pressed: false,
            unknown_opcode: None,
        };
        let fatal = self.fatal.clone();
        let run = async move {
            if let Err(error) = task.run().await {
                // One is enough: the service ends with it.
                let _ = fatal.try_send(error);
            }
        };
        self.tasks.spawn_on(&runtime, "shard", run.instrument(info_span!("shard", shard)));
        Ok(hub)
    }
}

impl Ws {
    /// Waits for the end, and brings it about in order when it is asked for.
    ///
    /// # Errors
    /// A fatal close code.
    pub async fn wait(&mut self) -> Result<(), WsError> {
        let outcome = select! { biased;
            () = self.shutdown.cancelled() => Ok(()),
            // A task has panicked: the owner says so.
            () = self.tasks.token().cancelled() => Ok(()),
            Some(fatal) = self.fatal.recv() => Err(WsError::Fatal(fatal)),
        };
        // One deadline for all: clients may take half of it, shards what the writer doesn't need.
        let deadline = Instant::now() + self.drain;
        let writer_within = WRITER_WITHIN.min(self.drain / 4);
        for (tasks, until) in
            [(&self.clients, deadline - self.drain / 2), (&self.tasks, deadline - writer_within)]
        {
            if let Err(unfinished) = tasks.finish(until.saturating_duration_since(Instant::now())).await {
                warn!(%unfinished, "not everything ended in time (ws.drain_timeout)");
            }
        }
        let writer = self.writer.clone();
        let written =
            tokio::task::spawn_blocking(move || writer.flush_and_stop(Instant::now() + writer_within));
        if !written.await.unwrap_or(false) {
            warn!("the end of the log could not be written: Discord will replay it");
        }
        if let Err(error) = self.store.flush().await {
            warn!(%error, "records could not be written");
        }
        let threads = self.threads.take();
        let _ = tokio::task::spawn_blocking(move || drop(threads)).await;
        outcome
    }
}

/// Asks for the gateway until there is an answer; what can't pass by itself is an error.
async fn gateway_bot(
    rest: &holdfast_rest::Client,
    config: &Config,
    shutdown: &CancellationToken,
) -> Result<GatewayBot, WsError> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        let answer = select! { biased;
            () = shutdown.cancelled() => return Err(WsError::Stopped),
            answer = rest.gateway_bot(Some(&config.public_url)) => answer,
        };
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_final() => return Err(error.into()),
            Err(error) => error,
        };
        let pause = backoff.failed();
        warn!(%error, pause_ms = pause.as_millis(), "Discord can't be asked for its gateway yet");
        select! { biased;
            () = shutdown.cancelled() => return Err(WsError::Stopped),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Which shards are ours, and of how many.
fn shards(config: &Config, recommended: u32) -> Result<(Range<u32>, u32), WsError> {
    let total = config.shards.total.unwrap_or(recommended).max(1);
    let end = config.shards.end.unwrap_or(total);
    if config.shards.start >= total {
        return Err(WsError::Shards { key: "start", total });
    }
    if end > total {
        return Err(WsError::Shards { key: "end", total });
    }
    Ok((config.shards.start..end, total))
}

async fn open_store(dir: std::path::PathBuf) -> Result<(Store, Vec<holdfast_cluster::SetAside>), WsError> {
    let opened = tokio::task::spawn_blocking(move || {
        // An empty path: nothing is kept.
        let dir: Option<&Path> = (!dir.as_os_str().is_empty()).then_some(&dir);
        Store::open(dir)
    });
    Ok(opened.await.map_err(std::io::Error::other)??)
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

/// `/shards` and `/shard-count`.
fn pages(service: &Service, hubs: &[Arc<Hub>]) {
    let all = hubs.to_vec();
    service.pages.add("/shards", move || {
        let shards: Vec<_> = all.iter().map(|hub| hub.status()).collect();
        match serde_json::to_string(&shards) {
            Ok(json) => Page::json(json),
            Err(error) => Page::status(500, error.to_string()),
        }
    });
    let total = hubs.first().map_or(0, |hub| hub.total);
    service.pages.add("/shard-count", move || Page::text(total.to_string()));
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
