// SPDX-License-Identifier: AGPL-3.0-only
//! The handle on a shard that everybody but its task holds: clients' tasks, the admin listener.
//!
//! In: reads, commands. Out: the core under its lock, a wake when something was appended, what is up with
//! the shard. The lock is held for copies in memory and writes that don't block, never across an await.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, watch},
};

use tokio_util::sync::CancellationToken;

use super::{
    core::Core,
    outbox::{Command, Priority},
    readers::Readers,
};

/// What a shard is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not connected yet, or waiting before the next attempt.
    Connecting,
    /// Connected, waiting for its turn to identify, or for READY.
    Identifying,
    /// Connected, Discord is replaying what was missed.
    Resuming,
    /// Receiving events.
    Live,
    /// Stopped, for good.
    Stopped,
}

/// A replay may hold the RESUMED of an earlier one, with events behind it: only when nobody has said so for this long,
/// everything is there. A replay of ten thousand events takes a fraction of it.
const REPLAYED_AFTER_MS: u64 = 2_000;

/// Commands that wait between clients' tasks and the shard's: a wake's worth. The outbox behind it bounds
/// what waits for the budget.
pub(super) const COMMANDS: usize = 256;

/// A shard as others see it.
pub(crate) struct Hub {
    pub(crate) shard: u32,
    pub(crate) total: u32,
    /// Fencing number of this process's ownership; 1 where nobody else may own the shard.
    pub(crate) generation: u64,
    /// The runtime on which the shard's task and its clients' run.
    pub(crate) runtime: Handle,
    /// The shard leaves this process: its clients are asked to go.
    pub(crate) leaving: CancellationToken,
    /// Who follows the log.
    pub(crate) readers: Readers,
    pub(super) phase: watch::Sender<Phase>,
    /// When Discord last said that it has replayed everything, milliseconds of Unix time.
    live_since_ms: AtomicU64,
    /// Woken when a shard of the process has changed its phase.
    pub(super) phases: Arc<Notify>,
    pub(super) gauges: Gauges,
    core: Mutex<Core>,
    commands: mpsc::Sender<Command>,
}

/// Numbers that the shard's task leaves for whoever looks.
#[derive(Default)]
pub(super) struct Gauges {
    pub(super) latency_us: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) resumes: AtomicU64,
    pub(super) identifies: AtomicU64,
    /// Commands in the outbox, by priority.
    pub(super) waiting: [AtomicUsize; 3],
}

/// One line of `/shards`.
#[derive(Debug, Serialize)]
pub struct ShardStatus {
    /// Its number.
    pub shard: u32,
    /// Of how many.
    pub total: u32,
    /// What it is doing.
    pub phase: Phase,
    /// Time between heartbeat and acknowledgement; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Events taken in since the process started.
    pub events: u64,
    /// Resumes and identifies since the process started.
    pub resumes: u64,
    /// See `resumes`.
    pub identifies: u64,
    /// The log's last position, and the oldest that can be read.
    pub position: u64,
    /// See `position`.
    pub oldest: u64,
    /// Guilds known.
    pub guilds: usize,
    /// Client sessions that are connected, and those waiting for their client.
    pub clients: usize,
    /// See `clients`.
    pub detached: usize,
}

impl Hub {
    pub(crate) fn new(
        (shard, total): (u32, u32),
        generation: u64,
        core: Core,
        runtime: Handle,
        leaving: CancellationToken,
        phases: Arc<Notify>,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let hub = Self {
            shard,
            total,
            generation,
            runtime,
            leaving,
            readers: Readers::default(),
            phase: watch::Sender::new(Phase::Connecting),
            live_since_ms: AtomicU64::new(0),
            phases,
            gauges: Gauges::default(),
            core: Mutex::new(core),
            commands,
        };
        (hub, receiver)
    }

    /// Asks the shard's clients to confirm what they have and to go.
    pub(crate) fn leave(&self) {
        self.leaving.cancel();
    }

    /// Waits until they have gone.
    pub(crate) async fn left(&self, within: Duration) {
        // Who hasn't gone by then loses its connection with the process, or with its next write.
        let _ = tokio::time::timeout(within, self.readers.gone()).await;
    }

    /// The core, for one read or one round of appends. A panic elsewhere doesn't lock everybody out: the task
    /// that panicked ends the service anyway.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the shard is doing, to be watched.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether events come.
    pub(crate) fn is_live(&self) -> bool {
        *self.phase.borrow() == Phase::Live
    }

    /// Whether Discord may still bring events that a client has and we don't.
    pub(crate) fn is_replaying(&self) -> bool {
        match *self.phase.borrow() {
            Phase::Live => unix_ms() < self.live_since_ms.load(Ordering::Relaxed) + REPLAYED_AFTER_MS,
            Phase::Stopped => false,
            _ => true,
        }
    }

    /// The shard does something else now: clients that wait for it are woken, too.
    pub(super) fn set_phase(&self, phase: Phase) {
        if phase == Phase::Live {
            self.live_since_ms.store(unix_ms(), Ordering::Relaxed);
        }
        if self.phase.send_if_modified(|current| std::mem::replace(current, phase) != phase) {
            self.phases.notify_one();
            self.readers.wake();
        }
    }

    /// Hands a command to the shard's task. False: too many are waiting, or the shard has stopped.
    pub(crate) fn command(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }

    /// How many commands wait to be sent that go before a new one of this priority, as the shard's task has last seen
    /// it.
    pub(crate) fn waiting(&self, priority: Priority) -> usize {
        let before = &self.gauges.waiting[..=priority as usize];
        before.iter().map(|waiting| waiting.load(Ordering::Relaxed)).sum()
    }

    /// What `/shards` shows.
    pub(crate) fn status(&self) -> ShardStatus {
        let gauge = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        let latency = gauge(&self.gauges.latency_us);
        let core = self.core();
        let (clients, detached) = core.sessions.count();
        let (oldest, position) = core.reach();
        ShardStatus {
            shard: self.shard,
            total: self.total,
            phase: *self.phase.borrow(),
            latency_ms: (latency > 0).then(|| Duration::from_micros(latency).as_secs_f64() * 1e3),
            events: gauge(&self.gauges.events),
            resumes: gauge(&self.gauges.resumes),
            identifies: gauge(&self.gauges.identifies),
            position,
            oldest,
            guilds: core.ready.as_ref().map_or(0, |ready| ready.guilds.len()),
            clients,
            detached,
        }
    }
}

/// Milliseconds of Unix time, for what is stored or compared across processes.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
