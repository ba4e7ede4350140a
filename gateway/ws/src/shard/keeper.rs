// SPDX-License-Identifier: AGPL-3.0-only
//! Keeps on disk what a shard needs after a restart, behind the shard's back.
//!
//! In: ticks of the shard's task. Out: batches of the log, session and client records, guilds' checkpoints,
//! all written by other threads. Owned by the shard's task, which never waits for it.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_cluster::{Saved, SessionRecord};
use holdfast_discord::session::Session;
use holdfast_state::{Compacted, Compaction, GuildSnapshot};
use serde_json::value::{RawValue, to_raw_value};
use tokio::{
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tracing::{debug, warn};

use super::{
    core::{Core, Mark},
    hub::{Hub, unix_ms},
};
use crate::{fleet::Records, log::Position, metrics::Metrics};

/// Records of clients and the state's checkpoints are looked after this often.
const ROUND: Duration = Duration::from_secs(1);
/// Clients' places are stored every so many rounds. A bot and Holdfast that are killed within them get what was
/// written since again.
const PLACES_EVERY: u32 = 5;
/// Guilds in one round of checkpoints: 32 × about 25 KB are written at once.
const GUILDS: usize = 32;
/// The session's record is written again this often while the state it points to moves on.
const RECORD_EVERY: Duration = Duration::from_secs(15);

/// Guilds whose checkpoints are on disk, each with its position.
type SavedGuilds = Vec<(u64, Position)>;

/// Keeps one shard's records.
pub(crate) struct Keeper {
    store: Records,
    metrics: Arc<Metrics>,
    settings: String,
    checkpoint_age: Duration,
    memory_age: Duration,
    /// Bytes on disk beyond which all changed guilds are saved: the log is about to drop its oldest entries.
    disk_pressure: u64,
    ticks: Option<Interval>,
    tick: Duration,
    /// Jobs on other threads, one of each kind at a time: guilds that change all the time are compacted all the time,
    /// and that must not keep their checkpoints waiting.
    compacting: Option<JoinHandle<Vec<Compacted>>>,
    saving: Option<JoinHandle<SavedGuilds>>,
    /// The log's end at past rounds, to tell which changes are old.
    marks: VecDeque<(Instant, Position)>,
    last_round: Instant,
    rounds: u32,
    last_record: Instant,
    stream_began: Position,
    cut: bool,
    confirm_within: Duration,
    /// The shard is about to stop: guilds are saved by [`Keeper::prepare`] and [`Keeper::stop`] only.
    is_leaving: bool,
}

/// What bounds the keeper.
pub(crate) struct Keeping {
    /// What sessions are begun with, as their records say it.
    pub(crate) settings: String,
    pub(crate) tick: Duration,
    pub(crate) checkpoint_age: Duration,
    pub(crate) memory_age: Duration,
    pub(crate) disk_pressure: u64,
    /// The state is saved up to here; from recovery.
    pub(crate) stream_began: Position,
    /// How long clients may take to confirm what they have, when the shard moves.
    pub(crate) confirm_within: Duration,
}

impl Keeper {
    pub(crate) fn new(store: Records, metrics: Arc<Metrics>, keeping: &Keeping) -> Self {
        let now = Instant::now();
        Self {
            store,
            metrics,
            settings: keeping.settings.clone(),
            checkpoint_age: keeping.checkpoint_age,
            memory_age: keeping.memory_age,
            disk_pressure: keeping.disk_pressure,
            ticks: None,
            tick: keeping.tick,
            compacting: None,
            saving: None,
            marks: VecDeque::new(),
            last_round: now,
            rounds: 0,
            last_record: now,
            stream_began: keeping.stream_began,
            cut: false,
            confirm_within: keeping.confirm_within,
            is_leaving: false,
        }
    }

    /// Where the shard's records go.
    pub(crate) fn records(&self) -> Records {
        self.store.clone()
    }

    /// Rings when [`Keeper::keep`] is due.
    pub(crate) async fn tick(&mut self) {
        let every = self.tick;
        let ticks = self.ticks.get_or_insert_with(|| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        ticks.tick().await;
    }

    /// Hands to other threads what is due. Never waits.
    pub(crate) fn keep(&mut self, hub: &Hub, session: &mut Session) {
        let now = Instant::now();
        let mut core = hub.core();
        core.log.flush_due(now);
        // What a crash would lose must stay with Discord: here it is what isn't on disk, or with replicas what they
        // couldn't resume from.
        let safe = self.store.resumable().map_or_else(|| core.log.stored_sequence(), Some);
        if let Some(sequence) = safe.filter(|sequence| *sequence > 0) {
            session.confirm(sequence);
        }
        if now.duration_since(self.last_round) < ROUND {
            return;
        }
        self.last_round = now;
        core.tell_time(unix_ms());
        let age = u64::try_from(self.memory_age.as_millis()).unwrap_or(u64::MAX);
        core.log.forget_before(unix_ms().saturating_sub(age));
        self.marks.push_back((now, core.log.last()));
        self.rounds += 1;
        core.save_clients(self.rounds.is_multiple_of(PLACES_EVERY));
        self.finish_jobs(&mut core);
        self.retain(&mut core);
        if self.store.is_shared() {
            core.mark();
            if let Some(progress) = core.progress(unix_ms()) {
                self.store.save_progress(progress);
            }
        }
        if core.record_changed || now.duration_since(self.last_record) >= RECORD_EVERY {
            self.save_record(&mut core, session, false);
        }
        if self.compacting.is_none() {
            self.compacting = compaction(&mut core);
        }
        if self.saving.is_none() {
            self.saving = self.checkpoints(&core, now);
        }
    }

    /// A new session has begun: its record is written at once.
    pub(crate) fn session_began(&mut self, core: &mut Core, session: &Session) {
        self.stream_began = core.log.last();
        if let Some(resumable) = session.resumable() {
            let (stream, position) = (core.log.stream(), core.log.last());
            core.marks.push_back(Mark { stream, position, sequence: resumable.sequence });
        }
        self.save_record(core, session, true);
    }

    /// The shard is about to stop: what can be done while events still come, so that little is left for
    /// [`Keeper::stop`]. Where another replica goes on, clients confirm what they have, and changed guilds are shared.
    pub(crate) fn prepare(&mut self, hub: &Arc<Hub>) -> impl Future<Output = ()> + Send + use<> {
        let moves = self.store.is_shared() && !self.store.is_lost();
        self.is_leaving = moves;
        if moves && let Some(job) = self.saving.take() {
            job.abort();
        }
        let (store, hub, within) = (self.store.clone(), Arc::clone(hub), self.confirm_within);
        async move {
            if moves {
                let confirmed = timeout(within, hub.readers.ask());
                // Who hasn't confirmed in time is caught up from what it had confirmed before.
                let _ = tokio::join!(confirmed, share_changed(&store, &hub));
                store.may_leave().await;
                share_changed(&store, &hub).await;
            }
        }
    }

    /// Writes everything that a restart needs, and waits for it.
    pub(crate) async fn stop(&mut self, hub: &Hub, session: &mut Session) {
        {
            let mut core = hub.core();
            core.log.flush();
            core.save_clients(true);
            self.save_record(&mut core, session, false);
        }
        if let Some(job) = self.saving.take() {
            job.abort();
        }
        if self.store.is_shared() {
            share_changed(&self.store, hub).await;
            let mut core = hub.core();
            self.retain(&mut core);
            core.mark();
            return;
        }
        if let Err(error) = self.store.flush().await {
            warn!(%error, "records could not be written: the next start may have to begin new sessions");
        }
    }

    fn save_record(&mut self, core: &mut Core, session: &Session, new: bool) {
        self.last_record = Instant::now();
        core.record_changed = false;
        let (Some(resumable), Some(ready)) = (session.resumable(), core.ready.as_ref()) else { return };
        let Ok(ready) = RawValue::from_string(ready.stored()) else { return };
        let mut record = SessionRecord {
            session_id: resumable.session_id.clone(),
            resume_url: resumable.resume_url.clone(),
            stream: core.log.stream(),
            sequence_base: self.stream_began,
            sequence: core.log.stored_sequence(),
            // Not the log's end: what a crash takes is given the same positions again by the replay.
            position: core.log.stored(),
            state_from: core.state_from,
            checkpoints: self.store.keeps_guilds(),
            published: core.published,
            shard: core.shard.0,
            total: core.shard.1,
            ready,
            settings: self.settings.clone(),
            wishes: to_raw_value(&core.wishes()).ok(),
            written_unix_ms: unix_ms(),
        };
        // Others can't resume from what is on this process's disk only.
        if self.store.is_shared()
            && let Some(progress) = core.progress(unix_ms())
        {
            record.advance(&progress);
        }
        self.store.save(record, new);
    }

    /// Tells the log from where the state still needs it.
    fn retain(&mut self, core: &mut Core) {
        let removed: Vec<_> = core.guilds.removed().collect();
        for (guild, position) in removed {
            self.store.remove_guild(guild);
            core.guilds.saved(guild, position);
        }
        // Guilds that aren't kept hold nothing back: whoever takes over begins a new session.
        let unsaved = core.guilds.oldest_unsaved().filter(|_| self.store.keeps_guilds());
        let unsaved = unsaved.unwrap_or(core.log.last() + 1);
        core.state_from = unsaved.saturating_sub(1);
        let unpublished = core.published.map_or(unsaved, |published| published.position + 1);
        core.log.keep_from(unsaved.min(unpublished));
        let cut = core.log.cut_above_checkpoint();
        if cut && !self.cut {
            self.metrics.checkpoint_cuts.inc();
            warn!("the log's bound on disk is too small: it had to drop what a restart or the broker needs");
        }
        self.cut = cut;
    }

    /// Saves the guilds whose changes are old, or all that have changed when the log presses.
    fn checkpoints(&mut self, core: &Core, now: Instant) -> Option<JoinHandle<SavedGuilds>> {
        if self.is_leaving || !self.store.keeps_guilds() {
            return None;
        }
        while self.marks.len() > 1 && now.duration_since(self.marks[1].0) >= self.checkpoint_age {
            self.marks.pop_front();
        }
        let pressed = core.log.disk_bytes() > self.disk_pressure;
        let (at, mark) = *self.marks.front()?;
        let before = if pressed {
            core.log.last() + 1
        } else if now.duration_since(at) >= self.checkpoint_age {
            mark + 1
        } else {
            return None;
        };
        let guilds = core.guilds.dirty(before, GUILDS);
        if guilds.is_empty() {
            return None;
        }
        Some(tokio::spawn(checkpoint(self.store.clone(), guilds)))
    }

    fn finish_jobs(&mut self, core: &mut Core) {
        if let Some(compacted) = finished(&mut self.compacting) {
            compacted.into_iter().for_each(|guild| core.guilds.finish(guild));
        }
        for (guild, position) in finished(&mut self.saving).unwrap_or_default() {
            core.guilds.saved(guild, position);
            self.metrics.checkpoints.inc();
        }
    }
}

/// What a job has brought back, once it has ended.
fn finished<T>(job: &mut Option<JoinHandle<T>>) -> Option<T> {
    let job = job.take_if(|job| job.is_finished())?;
    // The job has ended: this doesn't wait.
    match futures_util::FutureExt::now_or_never(job)? {
        Ok(done) => Some(done),
        Err(error) => {
            warn!(%error, "a job on the guild state failed");
            None
        }
    }
}

/// Compacts guilds whose changes have outgrown them.
fn compaction(core: &mut Core) -> Option<JoinHandle<Vec<Compacted>>> {
    let work: Vec<Compaction> = std::iter::from_fn(|| core.guilds.compactable()).take(GUILDS).collect();
    (!work.is_empty())
        .then(|| tokio::task::spawn_blocking(move || work.into_iter().map(Compaction::run).collect()))
}

/// Writes checkpoints; what comes back is on disk.
async fn checkpoint(store: Records, guilds: Vec<(u64, GuildSnapshot)>) -> SavedGuilds {
    if store.is_shared() {
        return share(store, guilds).await;
    }
    let behind = store.clone();
    let made = tokio::task::spawn_blocking(move || {
        let mut saved = Vec::with_capacity(guilds.len());
        for (id, guild) in guilds {
            if store.save_guild(id, &guild.checkpoint()) == Saved::Busy {
                break;
            }
            saved.push((id, guild.position()));
        }
        saved
    })
    .await
    .unwrap_or_default();
    match behind.flush().await {
        Ok(()) => made,
        Err(error) => {
            warn!(%error, "guilds' checkpoints could not be written");
            Vec::new()
        }
    }
}

/// Shares all guilds that have changed by now, so that the next owner can go on from here.
async fn share_changed(store: &Records, hub: &Hub) {
    let end = hub.core().log.last() + 1;
    while store.keeps_guilds() {
        let guilds = hub.core().guilds.dirty(end, GUILDS);
        if guilds.is_empty() {
            break;
        }
        let saved = share(store.clone(), guilds).await;
        if saved.is_empty() {
            // The store is away: the next owner has the state replayed, or begins a new session.
            break;
        }
        let mut core = hub.core();
        saved.into_iter().for_each(|(guild, position)| core.guilds.saved(guild, position));
    }
}

/// Writes checkpoints to the store that replicas share; what comes back is there.
async fn share(store: Records, guilds: Vec<(u64, GuildSnapshot)>) -> SavedGuilds {
    let made = tokio::task::spawn_blocking(move || {
        let saved: Vec<_> = guilds.iter().map(|(id, guild)| (*id, guild.position())).collect();
        let checkpoints: Vec<_> = guilds.iter().map(|(id, guild)| (*id, guild.checkpoint())).collect();
        (saved, checkpoints)
    })
    .await;
    let Ok((saved, checkpoints)) = made else { return Vec::new() };
    match store.share_guilds(&checkpoints).await {
        Ok(()) => saved,
        Err(error) => {
            debug!(%error, "guilds' checkpoints could not be shared: they are tried again");
            Vec::new()
        }
    }
}
