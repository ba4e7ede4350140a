// SPDX-License-Identifier: AGPL-3.0-only
//! The simulator as a test holds it.
//!
//! In: options, then wishes. Out: listeners for gateway and HTTP, and everything that clients did. `Simulator` owns
//! all tasks: dropping it ends them. `Control` is the part that the HTTP routes share.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::connection;
use crate::faults::{Cut, Fault, FaultKind};
use crate::hub::{Command, Hub, lock};
use crate::limits::Limits;
use crate::records::{Record, Request, Violation};
use crate::traffic::{Emit, Generators, Sent, Traffic};
use crate::view::View;
use crate::world::{BOT_USER, World, WorldSpec};

/// How long the `wait_for_…` methods wait before they say what didn't happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port of the gateway; 0 takes a free one. RESUMEs are told to come to a port of their own.
    pub gateway_port: u16,
    /// Port of REST and control routes; 0 takes a free one.
    pub http_port: u16,
    /// Tokens that are accepted.
    pub tokens: Vec<String>,
    /// The guilds.
    pub world: WorldSpec,
    /// Limits and knobs.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            gateway_port: 0,
            http_port: 0,
            tokens: vec!["sim-token".to_owned()],
            world: WorldSpec::default(),
            limits: Limits::default(),
        }
    }
}

/// Why it didn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener couldn't be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Something that a test waited for didn't happen in time.
#[derive(Debug, thiserror::Error)]
#[error("within {waited:?} there was no {what}")]
pub struct TimedOut {
    what: String,
    waited: Duration,
}

/// A running simulated Discord.
pub struct Simulator {
    control: Control,
    api_url: String,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// What tests and control routes can do.
#[derive(Clone)]
pub struct Control {
    hub: Arc<Hub>,
    generators: Arc<Generators>,
    stop: CancellationToken,
}

impl Deref for Simulator {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Simulator {
    /// Listens and serves until dropped.
    ///
    /// # Errors
    /// When a port can't be had.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let gateway = listen(options.host, options.gateway_port).await?;
        let resume = listen(options.host, 0).await?;
        let http = listen(options.host, options.http_port).await?;
        let url = |listener: &(TcpListener, SocketAddr), scheme| format!("{scheme}://{}", listener.1);
        let hub = Arc::new(Hub::new(
            options.tokens,
            url(&gateway, "ws"),
            url(&resume, "ws"),
            options.limits,
            World::new(options.world),
        ));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let control = Control { hub: Arc::clone(&hub), generators: Arc::default(), stop: stop.clone() };
        let api_url = format!("{}/api/v10", url(&http, "http"));
        tasks.spawn(accept(Arc::clone(&hub), gateway.0, false, tasks.clone(), stop.clone()));
        tasks.spawn(accept(Arc::clone(&hub), resume.0, true, tasks.clone(), stop.clone()));
        tasks.spawn(sweep(Arc::clone(&hub), stop.clone()));
        let app = crate::rest::routes(hub).merge(crate::control::routes(control.clone()));
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            // Serving ends with the token; an error of accept is retried by axum itself.
            let _ = axum::serve(http.0, app).with_graceful_shutdown(stopped).await;
        });
        let drop_guard = stop.clone().drop_guard();
        Ok(Self { control, api_url, tasks, stop, _stop_on_drop: drop_guard })
    }

    /// Base of the REST API: `http://127.0.0.1:P/api/v10`.
    #[must_use]
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// Where the control routes are: `http://127.0.0.1:P/control`.
    #[must_use]
    pub fn control_url(&self) -> String {
        self.api_url.replace("/api/v10", "/control")
    }

    /// `ws://127.0.0.1:P`, as `/gateway/bot` gives it.
    #[must_use]
    pub fn gateway_url(&self) -> &str {
        &self.control.hub.gateway_url
    }

    /// As READY gives it.
    #[must_use]
    pub fn resume_url(&self) -> &str {
        &self.control.hub.resume_url
    }

    /// Closes everything and waits until all tasks are over.
    pub async fn shut_down(self) {
        self.stop.cancel();
        self.tasks.close();
        // An HTTP client that keeps its connection open doesn't hold us up.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.tasks.wait()).await;
    }
}

impl Control {
    /// Replaces all guilds. Meant for before anybody connects: sessions aren't told.
    pub fn world(&self, spec: WorldSpec) {
        *lock(&self.hub.world) = World::new(spec);
    }

    /// Sessions, connections and budget, as `GET /control/state` gives them.
    #[must_use]
    pub fn state(&self) -> Value {
        self.hub.state()
    }

    /// The `d` that GUILD_CREATE would have now, in full.
    #[must_use]
    pub fn guild(&self, id: u64) -> Option<Value> {
        lock(&self.hub.world).guild_create(id, View::default()).and_then(|d| serde_json::from_slice(&d).ok())
    }

    /// The same for a session with these intents and threshold.
    #[must_use]
    pub fn guild_as_seen(&self, id: u64, intents: u64, large_threshold: u64) -> Option<Value> {
        let view = View::of(intents, large_threshold);
        lock(&self.hub.world).guild_create(id, view).and_then(|d| serde_json::from_slice(&d).ok())
    }

    /// The guilds of shard `id` of `count`, in rising order.
    #[must_use]
    pub fn guilds(&self, id: u32, count: u32) -> Vec<u64> {
        lock(&self.hub.world).guilds([id, count]).into()
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        self.hub.limits()
    }

    /// Other limits from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.hub.set_limits(limits);
    }

    /// Changes some limits: `discord.change_limits(|limits| limits.shards = 4)`.
    pub fn change_limits(&self, change: impl FnOnce(&mut Limits)) {
        let mut limits = (*self.hub.limits()).clone();
        change(&mut limits);
        self.hub.set_limits(limits);
    }

    // ── traffic ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// Starts a generator; the number names it.
    pub fn traffic(&self, traffic: Traffic) -> u64 {
        self.generators.start(&self.hub, traffic, &self.stop)
    }

    /// Stops all generators; when this returns nothing more is sent.
    pub async fn stop_traffic(&self) -> Sent {
        self.generators.stop_all().await;
        self.sent()
    }

    /// Waits for the generators that have an end (a burst, `seconds`).
    pub async fn finish_traffic(&self) -> Sent {
        self.generators.finish_all().await;
        self.sent()
    }

    /// The last number of a message per guild.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.generators.sent(&lock(&self.hub.world))
    }

    /// One event: applied to the world, handed to the sessions that may see it.
    pub fn emit(&self, emit: &Emit) {
        let guild = emit.guild.as_ref().and_then(|guild| guild.parse().ok());
        let limits = self.hub.limits();
        let mut world = lock(&self.hub.world);
        self.hub.emit(&mut world, &limits, &emit.t, &emit.d, guild, emit.shard);
    }

    /// One event in a guild.
    pub fn emit_in(&self, guild: u64, name: &str, data: Value) {
        self.emit(&Emit { t: name.to_owned(), d: data, shard: None, guild: Some(guild.to_string()) });
    }

    // ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Causes a fault; says how many connections it hit. What a shard did before is forgotten by `wait_for_…`.
    pub fn fault(&self, fault: &Fault) -> usize {
        for (shard, marks) in lock(&self.hub.marks).iter_mut() {
            if fault.shard.is_none_or(|hit| hit == *shard) {
                marks.identifies_told = marks.identifies;
                marks.resumes_told = marks.resumes;
            }
        }
        if fault.kind.lasts() {
            lock(&self.hub.faults).add(fault, std::time::Instant::now());
            let hit = self.hub.tell(fault.shard, &Command::Lasting);
            self.hub.tell(None, &Command::Lasting);
            return hit;
        }
        if fault.kind == FaultKind::ExpireSession {
            for session in self.hub.sessions() {
                if fault.shard.is_none_or(|shard| session.shard[0] == shard) {
                    session.forbid_resume();
                }
            }
        }
        self.hub.tell(fault.shard, &Command::Fault(fault.clone()))
    }

    /// Cuts a shard's connection without a close frame.
    pub fn cut(&self, shard: u32, cut: Cut) -> usize {
        let kind = match cut {
            Cut::Fin => FaultKind::Fin,
            Cut::Rst => FaultKind::Rst,
            Cut::FinRst => FaultKind::FinRst,
        };
        self.fault(&Fault::new(shard, kind))
    }

    /// Ends all lasting faults.
    pub fn clear_faults(&self) {
        lock(&self.hub.faults).clear();
        self.hub.tell(None, &Command::Lasting);
    }

    // ── records ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// What clients sent with this opcode.
    #[must_use]
    pub fn records(&self, op: u64) -> Vec<Record> {
        self.records_of(Some(op), None)
    }

    /// What clients sent, filtered.
    #[must_use]
    pub fn records_of(&self, op: Option<u64>, shard: Option<u32>) -> Vec<Record> {
        let records = lock(&self.hub.records);
        let wanted = |record: &&Record| {
            op.is_none_or(|op| record.op == Some(op))
                && shard.is_none_or(|shard| record.shard.is_some_and(|[id, _]| id == shard))
        };
        records.payloads.iter().filter(wanted).cloned().collect()
    }

    /// The REST requests.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.hub.records).requests.to_vec()
    }

    /// What clients did that Discord punishes.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        lock(&self.hub.records).violations.to_vec()
    }

    /// Forgets all records, requests and violations.
    pub fn clear_records(&self) {
        lock(&self.hub.records).clear();
    }

    // ── waiting ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// Waits until `condition` holds for the simulator.
    ///
    /// # Errors
    /// When it doesn't within 30 s.
    pub async fn wait_until(
        &self,
        what: &str,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<(), TimedOut> {
        let mut changes = self.hub.watch();
        let wait = async {
            while !condition(self) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let waited = PATIENCE;
        tokio::time::timeout(waited, wait).await.map_err(|_| TimedOut { what: what.to_owned(), waited })
    }

    /// Waits for a shard's IDENTIFY that started a session and that nobody waited for yet, since the last fault.
    ///
    /// # Errors
    /// When there is none within 30 s.
    pub async fn wait_for_identify(&self, shard: u32) -> Result<(), TimedOut> {
        self.wait_until(&format!("IDENTIFY of shard {shard}"), |control| {
            let mut marks = lock(&control.hub.marks);
            let marks = marks.entry(shard).or_default();
            let new = marks.identifies > marks.identifies_told;
            marks.identifies_told += u64::from(new);
            new
        })
        .await
    }

    /// Waits for a shard's RESUME that succeeded and that nobody waited for yet, since the last fault.
    ///
    /// # Errors
    /// When there is none within 30 s.
    pub async fn wait_for_resume(&self, shard: u32) -> Result<(), TimedOut> {
        self.wait_until(&format!("RESUME of shard {shard}"), |control| {
            let mut marks = lock(&control.hub.marks);
            let marks = marks.entry(shard).or_default();
            let new = marks.resumes > marks.resumes_told;
            marks.resumes_told += u64::from(new);
            new
        })
        .await
    }

    /// Waits until at least `count` payloads with this opcode were received; gives them.
    ///
    /// # Errors
    /// When there are fewer after 30 s.
    pub async fn wait_for_records(&self, op: u64, count: usize) -> Result<Vec<Record>, TimedOut> {
        self.wait_until(&format!("{count} × op {op}"), |control| control.records(op).len() >= count).await?;
        Ok(self.records(op))
    }

    /// The id of the bot's user and application.
    #[must_use]
    pub fn bot_user(&self) -> u64 {
        BOT_USER
    }
}

async fn listen(host: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = SocketAddr::new(host, port);
    let open = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open.await.map_err(|source| StartError::Listen { address, source })
}

async fn accept(
    hub: Arc<Hub>,
    listener: TcpListener,
    by_resume_url: bool,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    tasks.spawn(connection::serve(Arc::clone(&hub), tcp, by_resume_url, stop.clone()));
                }
            }
        }
    }
}

/// Ends sessions that nobody resumed in time, and lets buffered events age.
async fn sweep(hub: Arc<Hub>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => hub.end_expired_sessions(),
        }
    }
}
