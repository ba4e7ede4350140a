// SPDX-License-Identifier: AGPL-3.0-only
//! What an earlier process left of a shard, put together again: log, session, guild state, client sessions.
//!
//! In: the shard's store. Out: a core at the log's end, and the session to resume; or a fresh start where
//! the parts don't fit each other. Blocks: for start-up.

use std::path::Path;

use holdfast_cluster::SessionRecord;
use holdfast_discord::{
    scan,
    session::{Resumable, Session},
};
use holdfast_state::{Guilds, Options};
use tracing::{info, warn};

use super::{
    core::{Core, Mark},
    hub::unix_ms,
    ready::Ready,
    sessions::{Limits, Sessions},
};
use crate::fleet::Records;
use crate::log::{Log, OpenError, Position, Settings, Writer};

/// What is needed to recover a shard.
pub(crate) struct Recovery<'a> {
    pub(crate) shard: (u32, u32),
    pub(crate) store: &'a Records,
    pub(crate) log: Settings,
    pub(crate) writer: &'a Writer,
    pub(crate) state: Options,
    pub(crate) sessions: Limits,
    /// What sessions are begun with, as their records say it.
    pub(crate) settings: &'a str,
    /// Whether sessions have guilds: then they can't go on without the guilds' state.
    pub(crate) guilds: bool,
}

/// A shard as it is started.
pub(crate) struct Recovered {
    pub(crate) core: Core,
    pub(crate) session: Session,
    /// Where the session's stream began.
    pub(crate) stream_began: Position,
}

/// Puts a shard together.
///
/// # Errors
/// The log's files can't be opened.
pub(crate) fn recover(recovery: Recovery<'_>) -> Result<Recovered, OpenError> {
    let Recovery { shard, store, log, writer, state, sessions, settings, guilds: has_guilds } = recovery;
    let log = match store.local.dir() {
        Some(dir) => open_log(&dir, log, writer)?,
        None => Log::in_memory(log),
    };
    let guilds = Guilds::new(state.clone());
    let mut core = Core::new(shard, log, guilds, Sessions::new(sessions), store.clone());
    let clients = store.load_clients();
    let record = store.load().filter(|record| (record.shard, record.total) == shard);
    core.had_session = record.is_some() || !clients.is_empty() || core.log.last_sequence().is_some();
    if let Some(record) = &record {
        core.log.skip_to(record.position);
    }
    let restored = match &record {
        None => Err("there is no stored session"),
        Some(record) if record.settings != settings => Err("token or intents have changed"),
        Some(record) if has_guilds && !record.checkpoints => {
            Err("guilds weren't saved for it (cluster.checkpoints), or it was given up before")
        }
        Some(record) => restore(&mut core, store, record),
    };
    let (Ok(()), Some(record)) = (&restored, record.clone()) else {
        if let (Err(reason), true) = (restored, core.had_session) {
            warn!(shard = shard.0, reason, "a new session will be begun");
        }
        if let Some(record) = record {
            store.give_up(record);
        }
        core.guilds = Guilds::new(state);
        core.ready = None;
        core.sessions.restore(clients, None, core.epoch, unix_ms());
        core.sessions.new_epoch(core.log.last());
        // What they say is from another session: guilds that the bot has left must not come back.
        store.forget_guilds();
        return Ok(fresh(core));
    };
    core.sessions.restore(clients, Some(record.stream), core.epoch, unix_ms());
    let sequence = core.log.last_sequence().or(record.sequence).unwrap_or(1);
    info!(shard = shard.0, position = core.log.last(), sequence, guilds = core.guilds.len(), "recovered");
    core.state_from = record.state_from.max(record.sequence_base);
    core.marks.push_back(Mark { stream: core.log.stream(), position: core.log.last(), sequence });
    let resumable = Resumable { session_id: record.session_id, resume_url: record.resume_url, sequence };
    Ok(Recovered { core, session: Session::new(Some(resumable)), stream_began: record.sequence_base })
}

fn fresh(mut core: Core) -> Recovered {
    let last = core.log.last();
    core.state_from = last;
    Recovered { core, session: Session::new(None), stream_began: last }
}

fn open_log(dir: &Path, settings: Settings, writer: &Writer) -> Result<Log, OpenError> {
    let (log, recovered) = Log::open(dir, settings, writer)?;
    for warning in recovered.warnings {
        warn!(warning, "the stored log was damaged");
    }
    Ok(log)
}

/// READY and the guilds at the log's end: checkpoints, and what the log has since.
fn restore(core: &mut Core, store: &Records, record: &SessionRecord) -> Result<(), &'static str> {
    if core.log.stream() != record.stream {
        // A shard that was another replica's comes without its log.
        let empty = core.log.oldest() > core.log.last();
        if !empty && core.log.last() > record.sequence_base {
            return Err("log and session don't belong together");
        }
        // The session had no event yet, and what came before it may not have reached the disk.
        core.log.skip_to(if empty {
            record.position.max(record.sequence_base)
        } else {
            record.sequence_base
        });
        core.log.start_stream(record.stream);
    }
    let ready = Ready::parse(record.ready.get().as_bytes()).map_err(|_| "READY's data is damaged")?;
    core.guilds.ready(ready.user, &ready.guilds);
    core.ready = Some(std::sync::Arc::new(ready));
    let wishes = record.wishes.as_ref().and_then(|wishes| serde_json::from_str(wishes.get()).ok());
    core.restore_wishes(wishes.unwrap_or_default());
    for (guild, checkpoint) in store.load_guilds() {
        // Without it the guild would be missing: a resumed session brings no GUILD_CREATE.
        if checkpoint.is_none_or(|checkpoint| core.guilds.restore(guild, &checkpoint).is_err()) {
            return Err("a guild's checkpoint is damaged");
        }
    }
    if core.log.unbroken_from() > record.state_from.max(record.sequence_base) + 1 {
        return Err("the log doesn't reach back to the guilds' checkpoints");
    }
    let from = record.state_from.max(record.sequence_base);
    // The log is lent out while its entries are applied.
    let log = std::mem::replace(&mut core.log, Log::in_memory(Settings::default()));
    let replayed = log.replay(from, |meta, payload| {
        let Ok(header) = scan(payload) else { return };
        let data = header.data.clone().and_then(|range| payload.get(range)).unwrap_or_default();
        core.apply(&header, meta.guild, data, meta.position);
    });
    core.log = log;
    match replayed {
        Ok(replayed) if replayed.complete => Ok(()),
        Ok(_) => Err("the log has a hole above the guilds' checkpoints"),
        Err(_) => Err("the log can't be read"),
    }
}
