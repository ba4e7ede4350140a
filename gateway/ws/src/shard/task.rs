// SPDX-License-Identifier: AGPL-3.0-only
//! The task that drives one shard: its connection, its session, its core.
//!
//! In: payloads from Discord, commands from clients, time. Out: appends to the log, sends to Discord. Owns
//! the connection, the session and the outbox; ends with the service or with a fatal close.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use holdfast_discord::{
    scan,
    session::{Next, Session, Step},
};
use holdfast_service::{Backoff, Secret, Tasks};
use serde_json::{Value, json};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, mpsc},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    alarm::Alarm,
    core::Core,
    gateway::{Gateway, PermitRefused},
    hub::{Hub, Phase, unix_ms},
    keeper::Keeper,
    outbox::{Command, Outbox},
};
use crate::{
    log::StreamId,
    metrics::Metrics,
    upstream::{Closed, Connection},
};

/// At most so many payloads are taken in before clients are woken and others get their turn:
/// 256 × about 1.5 µs is well below a millisecond.
const ROUND: usize = 256;

/// Discord has closed the shard for a reason that trying again won't mend.
#[derive(Clone, Debug, thiserror::Error)]
#[error("Discord closed shard {shard} with {code}: {what_to_do}")]
pub struct FatalClose {
    /// Which shard.
    pub shard: u32,
    /// The close code.
    pub code: u16,
    /// What the operator has to do.
    pub what_to_do: &'static str,
}

/// What a shard says of itself in IDENTIFY.
pub(crate) struct Identity {
    pub(crate) token: Secret,
    pub(crate) intents: u64,
    /// Presence with `{{shard}}` in it; none: Discord's default.
    pub(crate) presence: Option<Value>,
}

/// One shard's task before it runs.
pub(crate) struct ShardTask {
    pub(crate) hub: Arc<Hub>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) session: Session,
    pub(crate) outbox: Outbox,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) keeper: Keeper,
    pub(crate) backoff: Backoff,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: CancellationToken,
    /// The right to be connected without a session; given back when IDENTIFY is sent.
    pub(crate) turn: Option<OwnedSemaphorePermit>,
    /// Opcode of the last payload of a client's whose opcode we don't know.
    pub(crate) unknown_opcode: Option<u64>,
}

/// Why a connection is over.
enum End {
    /// Connect again; whether it had been live.
    Again {
        was_live: bool,
    },
    Stop,
    Fatal(FatalClose),
}

type Permit = Pin<Box<dyn Future<Output = Result<(), PermitRefused>> + Send>>;

impl ShardTask {
    /// Runs until the service stops.
    ///
    /// # Errors
    /// A fatal close.
    pub(crate) async fn run(mut self) -> Result<(), FatalClose> {
        let outcome = loop {
            self.set_phase(Phase::Connecting);
            let Some(connection) = self.connect().await else { break Ok(()) };
            match self.live(connection).await {
                End::Stop => break Ok(()),
                End::Fatal(fatal) => break Err(fatal),
                End::Again { was_live } => {
                    if was_live {
                        self.backoff.succeeded();
                    }
                    let pause = self.backoff.failed();
                    debug!(pause_ms = pause.as_millis(), "reconnecting");
                    if self.waiting(tokio::time::sleep(pause)).await.is_none() {
                        break Ok(());
                    }
                }
            }
        };
        self.set_phase(Phase::Stopped);
        let hub = Arc::clone(&self.hub);
        self.keeper.stop(&hub, &mut self.session).await;
        outcome
    }

    /// Connects, however often it takes. None: the service stops.
    async fn connect(&mut self) -> Option<Connection> {
        self.turn = None;
        if self.session.resumable().is_none() {
            let gateway = Arc::clone(&self.gateway);
            self.turn = self.waiting(gateway.turn()).await?;
        }
        loop {
            let gateway = Arc::clone(&self.gateway);
            let resume = self.session.resumable().map(|resumable| resumable.resume_url.clone());
            // A resume URL that can't be reached twice running may be gone; the session may still be there.
            let resume = resume.filter(|_| self.backoff.failures() < 3);
            let attempt = async move { gateway.connect(resume.as_deref()).await };
            match self.waiting(attempt).await? {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    let pause = self.backoff.failed();
                    self.metrics.connect_failures.inc();
                    warn!(%error, pause_ms = pause.as_millis(), "no connection to Discord");
                    self.waiting(tokio::time::sleep(pause)).await?;
                }
            }
        }
    }

    /// Waits for something while commands and the log are looked after. None: the service stops.
    async fn waiting<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        loop {
            select! { biased;
                () = self.shutdown.cancelled() => return None,
                output = &mut future => return Some(output),
                Some(command) = self.commands.recv() => self.push(command),
                () = self.keeper.tick() => self.keep(),
            }
        }
    }

    /// One connection from HELLO to its end.
    async fn live(&mut self, mut connection: Connection) -> End {
        self.session.opened(Instant::now());
        self.outbox.new_connection();
        let (mut heartbeat, mut sends) = (Alarm::new(), Alarm::new());
        let mut permit: Option<Permit> = None;
        let mut was_live = false;
        loop {
            let now = Instant::now();
            heartbeat.set(self.session.timeout());
            sends.set(if self.session.is_live() { self.outbox.due(now) } else { None });
            // Heartbeats first, Discord's payloads last: what comes before them is bounded and cheap.
            let step = select! { biased;
                () = self.shutdown.cancelled() => {
                    connection.close(RESUMABLY).await;
                    return End::Stop;
                }
                () = heartbeat.ring() => self.session.on_timeout(Instant::now()),
                granted = granted(&mut permit) => {
                    permit = None;
                    self.identify(&mut connection, granted).await
                }
                () = self.keeper.tick() => {
                    self.keep();
                    Step::Nothing
                }
                Some(command) = self.commands.recv() => {
                    self.push(command);
                    Step::Nothing
                }
                () = sends.ring() => self.send_next(&mut connection).await,
                next = connection.next() => match next {
                    Ok(()) => self.take_round(&mut connection).await,
                    Err(closed) => self.lost(&closed),
                },
            };
            match step {
                Step::Nothing | Step::Dispatch => {}
                Step::Identify => {
                    self.set_phase(Phase::Identifying);
                    permit = Some(Box::pin(Arc::clone(&self.gateway).permit(self.hub.shard)));
                }
                Step::Send(payload) => {
                    self.after_heartbeat();
                    self.outbox.count(Instant::now());
                    if self.session.is_resuming() {
                        self.set_phase(Phase::Resuming);
                    }
                    if let Err(closed) = connection.send(payload).await
                        && let Step::Reconnect { next, .. } = self.lost(&closed)
                    {
                        return self.end(next, was_live);
                    }
                }
                Step::Ready | Step::Resumed => {
                    was_live = true;
                    self.established(step == Step::Ready);
                }
                Step::Reconnect { close, next } => {
                    if let Some(code) = close {
                        self.tasks.spawn("closing a connection", connection.close(code));
                    }
                    return self.end(next, was_live);
                }
            }
        }
    }

    /// Takes in what has come, up to a round, and wakes the readers once.
    async fn take_round(&mut self, connection: &mut Connection) -> Step {
        let hub = Arc::clone(&self.hub);
        let (step, full) = {
            let mut core = hub.core();
            let (now, now_ms) = (Instant::now(), unix_ms());
            let mut taken = 0;
            let step = loop {
                let step = self.take(&mut core, connection.payload(), now, now_ms);
                taken += 1;
                if !matches!(step, Step::Dispatch | Step::Nothing) || taken == ROUND {
                    break step;
                }
                match connection.try_next() {
                    Ok(true) => {}
                    Ok(false) => break step,
                    Err(closed) => break self.lost(&closed),
                }
            };
            core.log.flush_due(now);
            (step, taken == ROUND)
        };
        hub.changed.notify_waiters();
        if full {
            // More is there already: clients on this thread get their turn first.
            tokio::task::yield_now().await;
        }
        step
    }

    /// One payload.
    fn take(&mut self, core: &mut Core, payload: &[u8], now: Instant, now_ms: u64) -> Step {
        let header = match scan(payload) {
            Ok(header) => header,
            Err(error) => return self.unusable(&error),
        };
        let token = self.identity.token.expose();
        let step = match self.session.received(&header, payload, now, fastrand::f64(), token) {
            Ok(step) => step,
            Err(error) => return self.unusable(&error),
        };
        match step {
            Step::Dispatch => {
                core.dispatch(&header, payload, now_ms);
                self.hub.gauges.events.fetch_add(1, Ordering::Relaxed);
                self.metrics.event(self.hub.shard, header.kind);
            }
            Step::Ready => {
                let data = header.data.and_then(|range| payload.get(range)).unwrap_or_default();
                return self.begin_session(core, data);
            }
            _ if header.op == 11 => self.note_latency(),
            _ => {}
        }
        step
    }

    fn begin_session(&mut self, core: &mut Core, data: &[u8]) -> Step {
        match core.begin_session(data, StreamId::random()) {
            Ok(None) => {}
            Ok(Some(gap)) => {
                self.metrics.gaps.inc();
                warn!(
                    stream = %gap.stream, from = gap.from, to = gap.to,
                    "Discord gave a new session instead of a resume: events may be missing"
                );
                self.hub.changed.notify_waiters();
            }
            Err(error) => return self.unusable(&error),
        }
        self.keeper.session_began(core, &self.session);
        Step::Ready
    }

    fn established(&mut self, new_session: bool) {
        self.set_phase(Phase::Live);
        let gauges = &self.hub.gauges;
        if !new_session {
            gauges.resumes.fetch_add(1, Ordering::Relaxed);
            self.metrics.resumes.inc();
            info!("resumed");
            return;
        }
        gauges.identifies.fetch_add(1, Ordering::Relaxed);
        self.metrics.identifies.inc();
        info!("session begun");
        // Where clients had brought the bot stays true over a new session. Its presence is in IDENTIFY.
        let wanted: Vec<_> = self.hub.core().voice.wanted().cloned().collect();
        for payload in wanted {
            self.outbox.push(Command { client: 0, voice: true, payload });
        }
    }

    async fn identify(&mut self, connection: &mut Connection, granted: Result<(), PermitRefused>) -> Step {
        if let Err(error) = granted {
            warn!(%error, "not identifying");
            return Step::Reconnect { close: Some(RESUMABLY), next: Next::NewSession };
        }
        let presence = self.hub.core().presence.clone();
        let presence = presence.and_then(|payload| serde_json::from_slice::<Value>(&payload).ok());
        let presence = presence.and_then(|mut payload| payload.get_mut("d").map(Value::take)).or_else(|| {
            let template = self.identity.presence.as_ref()?;
            Some(holdfast_discord::presence::render(template, self.hub.shard))
        });
        let mut data = json!({
            "token": self.identity.token.expose(),
            "intents": self.identity.intents,
            "shard": [self.hub.shard, self.hub.total],
            "large_threshold": LARGE_THRESHOLD,
            "compress": false,
            "properties": { "os": std::env::consts::OS, "browser": "holdfast", "device": "holdfast" },
        });
        if let (Some(presence), Some(fields)) = (presence, data.as_object_mut()) {
            fields.insert("presence".into(), presence);
        }
        self.outbox.count(Instant::now());
        match connection.send(json!({ "op": 2, "d": data }).to_string().into_bytes()).await {
            Ok(()) => {
                self.turn = None;
                self.session.identified();
                Step::Nothing
            }
            Err(closed) => self.lost(&closed),
        }
    }

    async fn send_next(&mut self, connection: &mut Connection) -> Step {
        let Some(payload) = self.outbox.pop(Instant::now()) else { return Step::Nothing };
        self.unknown_opcode = unknown_opcode(&payload);
        self.metrics.commands_sent.inc();
        self.note_waiting();
        match connection.send(payload).await {
            Ok(()) => Step::Nothing,
            Err(closed) => self.lost(&closed),
        }
    }

    fn push(&mut self, command: Command) {
        if !self.outbox.push(command) {
            self.metrics.commands_dropped.inc();
        }
        self.note_waiting();
    }

    fn keep(&mut self) {
        let hub = Arc::clone(&self.hub);
        self.keeper.keep(&hub, &mut self.session);
    }

    fn end(&mut self, next: Next, was_live: bool) -> End {
        match next {
            Next::Fatal(code, what_to_do) => {
                End::Fatal(FatalClose { shard: self.hub.shard, code, what_to_do })
            }
            Next::NewSession => {
                if self.session.was_identifying() {
                    self.gateway.refused(self.hub.shard);
                }
                self.gateway.refresh_soon();
                End::Again { was_live }
            }
            Next::Resume => End::Again { was_live },
        }
    }

    fn lost(&mut self, closed: &Closed) -> Step {
        self.metrics.disconnects.inc();
        info!(code = closed.code, reason = closed.reason, "connection lost");
        if let (Some(UNKNOWN_OPCODE), Some(opcode)) = (closed.code, self.unknown_opcode.take()) {
            warn!(opcode, "Discord doesn't know this opcode: clients that send it are closed from now on");
            self.hub.core().refused_opcodes.insert(opcode);
        }
        self.session.closed(closed.code)
    }

    fn unusable(&mut self, error: &dyn std::error::Error) -> Step {
        self.metrics.malformed.inc();
        warn!(%error, "a payload can't be used: reconnecting");
        let Step::Reconnect { next, .. } = self.session.closed(None) else { return Step::Nothing };
        Step::Reconnect { close: Some(RESUMABLY), next }
    }

    fn set_phase(&self, phase: Phase) {
        self.hub.phase.send_if_modified(|current| std::mem::replace(current, phase) != phase);
    }

    fn note_latency(&self) {
        let Some(latency) = self.session.latency() else { return };
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.hub.gauges.latency_us.store(micros, Ordering::Relaxed);
        self.metrics.heartbeat_latency.observe(latency.as_secs_f64());
    }

    fn after_heartbeat(&self) {
        self.metrics.heartbeat_lateness.observe(self.session.lateness().as_secs_f64());
    }

    fn note_waiting(&self) {
        let waiting = u64::try_from(self.outbox.len()).unwrap_or(u64::MAX);
        self.hub.gauges.waiting_commands.store(waiting, Ordering::Relaxed);
    }
}

/// 1000 and 1001 would end the session; this code keeps it for a resume.
const RESUMABLY: u16 = 4000;

/// "Unknown opcode", of Discord's close codes.
const UNKNOWN_OPCODE: u16 = 4001;

/// A payload's opcode, if it is none of those that the documentation names.
fn unknown_opcode(payload: &[u8]) -> Option<u64> {
    let opcode = u64::from(scan(payload).ok()?.op);
    (![3, 4, 8, 31, 43].contains(&opcode)).then_some(opcode)
}

/// The most that Discord allows: members come with GUILD_CREATE for guilds up to this size ("Identify Structure").
const LARGE_THRESHOLD: u32 = 250;

async fn granted(permit: &mut Option<Permit>) -> Result<(), PermitRefused> {
    match permit {
        Some(permit) => permit.await,
        None => std::future::pending().await,
    }
}

/// Pauses between connections: half a second to half a minute; with 2,000 shards that went down together,
/// jitter spreads them over the pause.
pub(crate) fn reconnect_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(500), Duration::from_secs(30))
}
