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

use holdfast_broker::{Broker, BrokerSettings, Refusal};
use holdfast_cluster::{Permits, ShardId, Store};
use holdfast_rest::{GatewayBot, RestError};
use holdfast_service::{Backoff, Service, Tasks, TlsError};
use tokio::{
    net::TcpListener,
    select,
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    amqp::Amqp,
    dashboard::Dashboard,
    fleet::{self, Alone, Desk, Hubs, Member, Replica, Starter},
    front::{self, Front},
    log::{self, Writer, WriterSettings},
    metrics::Metrics,
    observer::Observer,
    pages,
    settings::Config,
    shard::{FatalClose, Gateway, Identity, limit},
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
    /// The broker refuses us.
    #[error(transparent)]
    Broker(#[from] Refusal),
    /// The shared store refuses us.
    #[error(transparent)]
    Cluster(#[from] holdfast_cluster::Unavailable),
    /// The shared store's certificates.
    #[error(transparent)]
    ClusterCertificates(#[from] holdfast_cluster::CaFileError),
    /// Another bot, or another count of shards, has the store's prefix.
    #[error(transparent)]
    Fleet(#[from] holdfast_cluster::FleetConflict),
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
            Self::Fatal(_) | Self::Broker(_) | Self::Cluster(_) | Self::Fleet(_) => true,
            Self::Rest(error) => error.is_final(),
            _ => false,
        }
    }
}

/// A running service.
pub struct Ws {
    /// All of its tasks but the clients'.
    tasks: Tasks,
    fatal: mpsc::Receiver<WsError>,
    shutdown: CancellationToken,
    clients: Tasks,
    writer: Writer,
    store: Store,
    drain: Duration,
    threads: Option<Threads>,
    owning: Owning,
}

/// How the shards end: those of this process alone, or those that other replicas take over.
struct Owning {
    /// Stops the shards, or hands them over, when it is cancelled.
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Whether other replicas take them over.
    shared: bool,
}

/// Starts the service: asks Discord for the gateway, recovers each shard, accepts clients.
///
/// # Errors
/// See [`WsError`]; what may pass by itself (Discord out of reach) is waited for.
pub async fn start(
    mut config: Config,
    listener: TcpListener,
    service: &Service,
    shutdown: CancellationToken,
) -> Result<Ws, WsError> {
    // Before anything that may be long in coming: a wrong path is to be told at once.
    let tls = config.tls.as_ref().map(|tls| tls.server_config()).transpose()?;
    // Its real port, for other replicas.
    config.listen = listener.local_addr()?;
    // Before the broker's condition, which is met as soon as it is connected: until the shards are, nothing is ready.
    let ready = service.readiness.condition("ws", "waiting for Discord's gateway");
    let broker = broker(&config, service).await?;
    let rest = holdfast_rest::Client::new(&config.discord.api_url, &config.discord.token)?;
    let answer = gateway_bot(&rest, &config, &shutdown).await?;
    // Whoever has the folder may read what is in it.
    let store = open_store(config.state_dir.clone()).await?;
    let total = fleet::choose(config.shards.total, &config.state_dir, answer.shards);
    let cluster = join(&config, total, &rest, service, &shutdown).await?;
    let total = cluster.as_ref().map_or(total, |member| member.standing.total);
    let (range, total) = shards(&config, total)?;
    let metrics = service.metrics.register(|registry| Metrics::new(registry, range.clone()));
    let writer = Writer::start(WriterSettings::default())?;
    // Clients end before shards do, and shards only when `Ws::wait` says so.
    let tasks = service.tasks.child();
    let clients = tasks.child();
    let replicas =
        cluster.as_ref().map(|member| front::Replicas::new(&config, member.cluster.clone())).transpose()?;
    let permits = match &cluster {
        Some(member) => Permits::shared(&member.cluster, limit(&answer)),
        None => Permits::new(&store, limit(&answer)),
    };
    let connector = Connector::new(config.discord.compression, config.discord.max_payload_bytes);
    let gateway = Arc::new(Gateway::new(rest, config.public_url.clone(), connector, permits, &answer));
    let threads = Threads::start(config.threads.unwrap_or_else(cores))?;
    let (fatal_sender, fatal) = mpsc::channel(1);
    let hubs = Hubs::new(total);
    let amqp = broker.map(|(broker, max_bytes)| {
        let about = (config.discord.intents.0, Arc::clone(&hubs));
        Amqp::start(broker, config.amqp.clone(), max_bytes, service, &tasks, about, fatal_sender.clone())
    });
    let config = Arc::new(config);
    let starter = Arc::new(Starter {
        identity: Arc::new(Identity {
            token: config.discord.token.clone(),
            intents: config.discord.intents.0,
            presence: config.presence.clone(),
        }),
        phases: Arc::new(Notify::new()),
        shards: range.len(),
        hubs,
        runtimes: threads.all(),
        writer: writer.clone(),
        gateway: Arc::clone(&gateway),
        metrics: Arc::clone(&metrics),
        tasks: tasks.clone(),
        clients: clients.token().clone(),
        fatal: fatal_sender,
        amqp,
        config: Arc::clone(&config),
    });
    Dashboard::start(&starter, cluster.as_ref(), service);
    let owning = begin(cluster, &starter, &store, range.clone(), service, &shutdown).await?;
    pages::add(&service.pages, &starter.hubs);
    let observer = Observer {
        hubs: Arc::clone(&starter.hubs),
        metrics: Arc::clone(&metrics),
        gateway,
        ready,
        phases: Arc::clone(&starter.phases),
        live: AtomicUsize::new(0),
    };
    tasks.spawn("observing", observer.run(tasks.token().clone()));
    info!(shards = range.len(), total, shared = owning.shared, "ws started");
    let (drain, hubs) = (config.drain_timeout, Arc::clone(&starter.hubs));
    let front =
        Front::new((*config).clone(), metrics, service.pages.clone(), hubs, replicas, clients.clone());
    clients.spawn("accepting", front::serve(Arc::new(front), listener, tls.map(TlsAcceptor::from)));
    Ok(Ws { tasks, fatal, shutdown, clients, writer, store, drain, threads: Some(threads), owning })
}

/// With a store, waits for it.
async fn join(
    config: &Config,
    total: u32,
    rest: &holdfast_rest::Client,
    service: &Service,
    shutdown: &CancellationToken,
) -> Result<Option<Member>, WsError> {
    let Some(settings) = &config.cluster else { return Ok(None) };
    let joining = fleet::join(config, settings, total, rest, service);
    shutdown.run_until_cancelled(joining).await.unwrap_or(Err(WsError::Stopped)).map(Some)
}

/// The broker, if there is to be one, and how long a message to it may be.
async fn broker(config: &Config, service: &Service) -> Result<Option<(Broker, usize)>, Refusal> {
    let max_bytes = match &config.broker {
        Some(settings) => settings.max_message_bytes,
        // Services of this process speak to this one in memory.
        None if config.embedded => BrokerSettings::at("").max_message_bytes,
        None => return Ok(None),
    };
    Ok(Some((Broker::of_process(config.broker.as_ref(), service).await?, max_bytes)))
}

/// The shards begin: all of `range`, or those that this replica gets.
async fn begin(
    member: Option<Member>,
    starter: &Arc<Starter>,
    store: &Store,
    range: Range<u32>,
    service: &Service,
    shutdown: &CancellationToken,
) -> Result<Owning, WsError> {
    let total = starter.hubs.total();
    let (stop, starter) = (CancellationToken::new(), Arc::clone(starter));
    let desk = Desk::open(&service.pages, total, &starter.config.discord.token);
    let Some(member) = member else {
        let whole = range.len() == total as usize;
        let running = Alone::start(&starter, store, range.map(|shard| ShardId::new(shard, total)), None)?;
        let (store, within) = (store.clone(), starter.config.drain_timeout / 4);
        let alone = Alone { starter, store, running, desk, whole, within, stop: stop.clone() };
        let task = service.tasks.spawn("shards", alone.run());
        return Ok(Owning { stop, task, shared: false });
    };
    let metrics = service.metrics.register(fleet::Metrics::new);
    let mut replica = Replica::new(member, starter, store.clone(), metrics, desk, stop.clone());
    replica.register(shutdown).await?;
    let task = service.tasks.spawn("replica", replica.run());
    Ok(Owning { stop, task, shared: true })
}

impl Owning {
    async fn end(&mut self, within: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(within, &mut self.task).await.is_err() {
            warn!("not all shards were left in time (ws.drain_timeout)");
        }
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
            Some(fatal) = self.fatal.recv() => Err(fatal),
        };
        // One deadline for all: clients may take half of it, shards what the writer doesn't need.
        let deadline = Instant::now() + self.drain;
        let writer_within = WRITER_WITHIN.min(self.drain / 4);
        let until = |at: Instant| at.saturating_duration_since(Instant::now());
        let clients_until = deadline - self.drain / 2;
        if self.owning.shared {
            self.owning.end(until(clients_until)).await;
        }
        finish(&self.clients, until(clients_until)).await;
        if !self.owning.shared {
            self.owning.end(until(deadline - writer_within)).await;
        }
        finish(&self.tasks, until(deadline - writer_within)).await;
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

async fn finish(tasks: &Tasks, within: Duration) {
    if let Err(unfinished) = tasks.finish(within).await {
        warn!(%unfinished, "not everything ended in time (ws.drain_timeout)");
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
fn shards(config: &Config, total: u32) -> Result<(Range<u32>, u32), WsError> {
    let end = config.shards.end.unwrap_or(total);
    if config.shards.start >= total {
        return Err(WsError::Shards { key: "start", total });
    }
    if end > total {
        return Err(WsError::Shards { key: "end", total });
    }
    Ok((config.shards.start..end, total))
}

async fn open_store(dir: std::path::PathBuf) -> Result<Store, WsError> {
    let opened = tokio::task::spawn_blocking(move || {
        // An empty path: nothing is kept.
        let dir: Option<&Path> = (!dir.as_os_str().is_empty()).then_some(&dir);
        Store::open(dir)
    });
    let (store, set_aside) = opened.await.map_err(std::io::Error::other)??;
    for set_aside in set_aside {
        let (path, to) = (set_aside.path.display(), set_aside.to.display());
        warn!(%path, %to, reason = set_aside.reason, "set aside: a fresh start");
    }
    Ok(store)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
