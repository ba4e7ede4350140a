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

use holdfast_discord::session::{Next, Session, Step};
use holdfast_service::{Backoff, Tasks};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, mpsc},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    alarm::Alarm,
    awaited::Said,
    gateway::{Gateway, PermitRefused},
    hub::{Hub, Phase},
    identify::{Identity, UNKNOWN_OPCODE, unknown_opcode},
    keeper::Keeper,
    leaving::Leaving,
    outbox::{Command, Outbox, Priority},
    pressure::{Pressure, is_backed_up, relieved},
};
use crate::{
    metrics::Metrics,
    upstream::{Closed, Connection},
};

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
    /// Of the process: what nobody waits for when the shard ends.
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: CancellationToken,
    /// How long it may take to leave Discord once it is told to stop.
    pub(crate) leave_within: Duration,
    /// The right to be connected without a session; given back when IDENTIFY is sent.
    pub(crate) turn: Option<OwnedSemaphorePermit>,
    /// The log had no room for what isn't stored yet, after the last round.
    pub(crate) pressed: bool,
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
            self.hub.set_phase(Phase::Connecting);
            if self.waits_for_broker().await.is_none() {
                break Ok(());
            }
            let Some(connection) = self.connect().await else { break Ok(()) };
            let end = self.live(connection).await;
            self.hub.core().awaited.interrupt();
            match end {
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
        self.hub.set_phase(Phase::Stopped);
        let hub = Arc::clone(&self.hub);
        self.keeper.stop(&hub, &mut self.session).await;
        outcome
    }

    /// Waits while Discord is to hold the backlog, which it does for a session only. None: the service stops.
    async fn waits_for_broker(&mut self) -> Option<()> {
        if self.session.resumable().is_none() || !is_backed_up(&self.hub.core()) {
            return Some(());
        }
        let hub = Arc::clone(&self.hub);
        self.waiting(relieved(&hub)).await?;
        info!("coming back to Discord: the broker takes events again, or a client has come");
        Some(())
    }

    /// Connects, however often it takes. None: the service stops.
    async fn connect(&mut self) -> Option<Connection> {
        self.turn = None;
        let records = self.keeper.records();
        self.waiting(records.may_resume()).await?;
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
        self.unknown_opcode = None;
        let (mut heartbeat, mut sends) = (Alarm::new(), Alarm::new());
        let (mut pressure, mut leaving) = (Pressure::default(), Leaving::default());
        let mut permit: Option<Permit> = None;
        let mut was_live = false;
        loop {
            let now = Instant::now();
            heartbeat.set(self.session.timeout());
            sends.set(if self.session.is_live() { self.outbox.due(now) } else { None });
            // Heartbeats first, Discord's payloads last: what comes before them is bounded and cheap.
            let step = select! { biased;
                () = self.shutdown.cancelled(), if !leaving.has_begun() => self.begin_leaving(&mut leaving),
                () = leaving.is_due(self.session.awaits_ready()) => {
                    connection.say_close(RESUMABLY).await;
                    self.tasks.spawn("closing a connection", connection.answered());
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
                // Better that Discord holds events back for a while than that clients miss them.
                () = pressure.passes(&self.hub) => Step::Nothing,
                next = connection.next(), if !pressure.is_on() => match next {
                    Ok(()) => {
                        let step = self.take_round(&mut connection).await;
                        pressure.look(self.pressed, now);
                        step
                    }
                    Err(closed) => self.lost(&closed),
                },
            };
            match step {
                Step::Nothing | Step::Dispatch => {}
                Step::Identify => {
                    self.hub.set_phase(Phase::Identifying);
                    permit = Some(Box::pin(Arc::clone(&self.gateway).permit(self.hub.shard)));
                }
                Step::Send(payload) => {
                    if let Some(next) = self.send_now(&mut connection, payload).await {
                        return self.end(next, was_live);
                    }
                }
                Step::Ready | Step::Resumed => {
                    was_live = true;
                    self.established(step == Step::Ready).await;
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

    fn begin_leaving(&mut self, leaving: &mut Leaving) -> Step {
        // A session beside another owner's is worth nothing.
        let lost = self.keeper.records().is_lost();
        let within = if lost { Duration::ZERO } else { self.leave_within };
        leaving.begin(within, self.keeper.prepare(&self.hub));
        Step::Nothing
    }

    async fn established(&mut self, new_session: bool) {
        if new_session {
            let records = self.keeper.records();
            let _ = self.shutdown.run_until_cancelled(records.is_kept()).await;
        }
        self.hub.set_phase(Phase::Live);
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
            self.push(Command::new(0, Priority::High, payload));
        }
    }

    async fn identify(&mut self, connection: &mut Connection, granted: Result<(), PermitRefused>) -> Step {
        if let Err(error) = granted {
            warn!(%error, "not identifying");
            self.session.closed(None);
            return Step::Reconnect { close: Some(RESUMABLY), next: Next::NewSession };
        }
        let presence = self.hub.core().presence.clone();
        let payload = self.identity.payload((self.hub.shard, self.hub.total), presence.as_deref());
        self.outbox.count(Instant::now());
        match connection.send(payload).await {
            Ok(()) => {
                self.turn = None;
                self.session.identified();
                Step::Nothing
            }
            Err(closed) => self.lost(&closed),
        }
    }

    /// Sends what the session itself has to say. Some: the connection is gone, and what follows.
    async fn send_now(&mut self, connection: &mut Connection, payload: Vec<u8>) -> Option<Next> {
        if self.session.is_live() {
            self.after_heartbeat();
        }
        self.outbox.count(Instant::now());
        if self.session.is_resuming() {
            self.hub.set_phase(Phase::Resuming);
        }
        let closed = connection.send(payload).await.err()?;
        match self.lost(&closed) {
            Step::Reconnect { next, .. } => Some(next),
            _ => None,
        }
    }

    async fn send_next(&mut self, connection: &mut Connection) -> Step {
        let Some(Command { payload, ticket, .. }) = self.outbox.pop(Instant::now()) else {
            return Step::Nothing;
        };
        if let Some(ticket) = &ticket {
            self.hub.core().awaited.taken(ticket.number);
        }
        self.unknown_opcode = unknown_opcode(&payload).or(self.unknown_opcode);
        self.metrics.commands_sent.inc();
        self.note_waiting();
        if let Err(closed) = connection.send(payload).await {
            return self.lost(&closed);
        }
        if let Some(ticket) = ticket {
            self.hub.core().awaited.tell(ticket.number, Said::Written);
        }
        Step::Nothing
    }

    fn push(&mut self, command: Command) {
        if let Err(dropped) = self.outbox.push(command) {
            self.metrics.commands_dropped.inc();
            if let Some(ticket) = dropped.ticket {
                self.hub.core().awaited.tell(ticket.number, Said::Dropped);
            }
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

    pub(super) fn lost(&mut self, closed: &Closed) -> Step {
        self.metrics.disconnects.inc();
        info!(code = closed.code, reason = closed.reason, "connection lost");
        if let (Some(UNKNOWN_OPCODE), Some(opcode)) = (closed.code, self.unknown_opcode.take()) {
            warn!(opcode, "Discord doesn't know this opcode: clients that send it are closed from now on");
            self.hub.core().refused_opcodes.insert(opcode);
        }
        self.session.closed(closed.code)
    }

    fn after_heartbeat(&self) {
        self.metrics.heartbeat_lateness.observe(self.session.lateness().as_secs_f64());
    }

    fn note_waiting(&self) {
        for (gauge, waiting) in self.hub.gauges.waiting.iter().zip(self.outbox.waiting()) {
            gauge.store(waiting, Ordering::Relaxed);
        }
    }
}

/// 1000 and 1001 would end the session; this code keeps it for a resume.
pub(super) const RESUMABLY: u16 = 4000;

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
