// SPDX-License-Identifier: AGPL-3.0-only
//! What all connections, routes and generators of one simulator share.
//!
//! In: events of the world, what connections report. Out: events in the sessions that may see them. Owned by the
//! `Simulator`; locks are taken in the order world, sessions, session, and never held across an await.
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::clock::Snowflakes;
use crate::faults::{Fault, Table};
use crate::intents;
use crate::limits::{IdentifyGate, Limits};
use crate::records::{Record, Records, Violation};
use crate::rest_limits::{Limiter, RestLimits};
use crate::session::Session;
use crate::world::{BOT_USER, World};

/// Commands a connection may have waiting; more are refused, since each is a fault that a test asked for.
pub(crate) const COMMANDS: usize = 64;

/// A message as sessions without MESSAGE_CONTENT see it, unless it is to or from the bot
/// (events/gateway, "Message Content Intent").
fn without_content(data: &Bytes) -> Bytes {
    let Ok(mut message) = serde_json::from_slice::<Value>(data) else { return data.clone() };
    let own = BOT_USER.to_string();
    let is_own = |user: &Value| user["id"].as_str() == Some(own.as_str());
    let mentioned = message["mentions"].as_array().into_iter().flatten().any(is_own);
    if mentioned || is_own(&message["author"]) {
        return data.clone();
    }
    message["content"] = json!("");
    for list in ["embeds", "attachments", "components"] {
        message[list] = json!([]);
    }
    if let Some(message) = message.as_object_mut() {
        message.remove("poll");
    }
    Bytes::from(message.to_string())
}

/// Locks; a panic elsewhere (a failed test) doesn't make the data useless.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the hub tells a connection.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Fault(Fault),
    /// The table of lasting faults changed.
    Lasting,
    /// Close with this code.
    Close(u16, &'static str),
}

/// An event to be handed to sessions.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The guild it happened in.
    pub(crate) guild: Option<u64>,
    /// Only to this shard, whatever the guild.
    pub(crate) shard: Option<u32>,
    pub(crate) name: Bytes,
    pub(crate) data: Bytes,
    /// It is about the bot's own user.
    pub(crate) about_self: bool,
}

/// How often a shard did what tests wait for, and how often they were told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) identifies: u64,
    pub(crate) resumes: u64,
    pub(crate) identifies_told: u64,
    pub(crate) resumes_told: u64,
}

/// A live connection.
struct Attached {
    commands: mpsc::Sender<Command>,
    shard: Option<u32>,
}

/// The shared state.
pub(crate) struct Hub {
    pub(crate) started: Instant,
    pub(crate) tokens: Mutex<Vec<String>>,
    pub(crate) gateway_url: String,
    pub(crate) resume_url: String,
    pub(crate) limits: RwLock<Arc<Limits>>,
    pub(crate) gate: Mutex<IdentifyGate>,
    pub(crate) world: Mutex<World>,
    sessions: RwLock<Vec<Arc<Session>>>,
    connections: Mutex<BTreeMap<u64, Attached>>,
    pub(crate) faults: Mutex<Table>,
    pub(crate) rest: Mutex<Limiter>,
    pub(crate) rest_faults: Mutex<crate::rest_faults::Faults>,
    pub(crate) interactions: Mutex<crate::interactions::Interactions>,
    pub(crate) poster: crate::posting::Poster,
    pub(crate) webhooks: Mutex<crate::webhooks::Webhooks>,
    pub(crate) records: Mutex<Records>,
    pub(crate) marks: Mutex<HashMap<u32, Marks>>,
    pub(crate) whole_requests: Mutex<HashMap<u64, Instant>>,
    pub(crate) snowflakes: Snowflakes,
    last_connection: AtomicU64,
    changes: watch::Sender<u64>,
}

impl Hub {
    pub(crate) fn new(
        tokens: Vec<String>,
        gateway_url: String,
        resume_url: String,
        limits: Limits,
        world: World,
    ) -> Self {
        Self {
            started: Instant::now(),
            tokens: Mutex::new(tokens),
            gateway_url,
            resume_url,
            limits: RwLock::new(Arc::new(limits)),
            gate: Mutex::default(),
            world: Mutex::new(world),
            sessions: RwLock::default(),
            connections: Mutex::default(),
            faults: Mutex::default(),
            rest: Mutex::new(Limiter::new(RestLimits::default())),
            rest_faults: Mutex::default(),
            interactions: Mutex::default(),
            poster: crate::posting::Poster::default(),
            webhooks: Mutex::default(),
            records: Mutex::default(),
            marks: Mutex::default(),
            whole_requests: Mutex::default(),
            snowflakes: Snowflakes::default(),
            last_connection: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }
    }

    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    /// Whether a token (with or without `Bot `) is one of ours.
    pub(crate) fn accepts(&self, token: &str) -> bool {
        let bare = token.strip_prefix("Bot ").unwrap_or(token);
        lock(&self.tokens).iter().any(|known| known == bare)
    }

    pub(crate) fn at_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    // ── changes ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// Something happened that a test may wait for.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn mark(&self, shard: u32, note: impl FnOnce(&mut Marks)) {
        note(lock(&self.marks).entry(shard).or_default());
        self.changed();
    }

    // ── connections ─────────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn attach(&self) -> (u64, mpsc::Receiver<Command>) {
        let id = self.last_connection.fetch_add(1, Ordering::Relaxed) + 1;
        let (commands, receiver) = mpsc::channel(COMMANDS);
        lock(&self.connections).insert(id, Attached { commands, shard: None });
        self.changed();
        (id, receiver)
    }

    pub(crate) fn detach(&self, connection: u64) {
        lock(&self.connections).remove(&connection);
        self.changed();
    }

    pub(crate) fn set_shard(&self, connection: u64, shard: u32) {
        if let Some(attached) = lock(&self.connections).get_mut(&connection) {
            attached.shard = Some(shard);
        }
    }

    /// Open connections: number and shard.
    pub(crate) fn connections(&self) -> Vec<(u64, Option<u32>)> {
        lock(&self.connections).iter().map(|(id, attached)| (*id, attached.shard)).collect()
    }

    /// Tells the connections of a shard, or all. Returns how many were told.
    pub(crate) fn tell(&self, shard: Option<u32>, command: &Command) -> usize {
        let connections = lock(&self.connections);
        let meant = connections.values().filter(|attached| shard.is_none() || attached.shard == shard);
        meant.filter(|attached| attached.commands.try_send(command.clone()).is_ok()).count()
    }

    pub(crate) fn tell_one(&self, connection: u64, command: Command) {
        if let Some(attached) = lock(&self.connections).get(&connection) {
            // Full means that it is being closed already.
            let _ = attached.commands.try_send(command);
        }
    }

    // ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).iter().find(|s| s.id == id).cloned()
    }

    pub(crate) fn add_session(&self, session: Arc<Session>) {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    pub(crate) fn end_session(&self, id: &str) {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).retain(|session| session.id != id);
        self.changed();
    }

    pub(crate) fn end_expired_sessions(&self) {
        let limits = self.limits();
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).retain(|s| !s.expired(&limits));
    }

    /// Hands the event to every session that may see it. The world's lock is held by the caller, so that an event
    /// and the state it leads to are seen in the same order by everybody.
    pub(crate) fn dispatch(&self, _world: &World, limits: &Limits, event: &Event) {
        let Ok(name) = std::str::from_utf8(&event.name) else { return };
        for session in self.sessions.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let meant = match event.shard {
                Some(shard) => session.shard[0] == shard,
                None => session.holds(event.guild),
            };
            if meant && intents::lets_through(session.intents, name, event.guild.is_some(), event.about_self)
            {
                let hidden = limits.strip_content
                    && session.intents & intents::MESSAGE_CONTENT == 0
                    && matches!(name, "MESSAGE_CREATE" | "MESSAGE_UPDATE");
                if hidden && event.guild.is_some() {
                    session.push(event.guild, &event.name, &without_content(&event.data), limits);
                    continue;
                }
                session.push(event.guild, &event.name, &event.data, limits);
            }
        }
    }

    /// Renders the guild that comes next for a session and puts it into its buffer.
    pub(crate) fn announce(&self, session: &Session, guild: u64) {
        let limits = self.limits();
        let mut world = lock(&self.world);
        let data = world.guild_create(guild, session.view);
        session.announce(guild, data, &limits);
    }

    // ── records ─────────────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn record(&self, record: Record) {
        lock(&self.records).payloads.push(record);
        self.changed();
    }

    pub(crate) fn violation(&self, connection: u64, shard: Option<[u32; 2]>, kind: &str, detail: String) {
        let at_ms = self.at_ms();
        tracing::debug!(connection, kind, detail, "violation");
        lock(&self.records).violations.push(Violation {
            at_ms,
            connection,
            shard,
            kind: kind.to_owned(),
            detail,
        });
        self.changed();
    }

    /// The body of `GET /control/state`.
    pub(crate) fn state(&self) -> Value {
        let sessions: Vec<Value> = self
            .sessions()
            .iter()
            .map(|session| {
                let (connected, sequence, resumes, buffered) = session.facts();
                json!({"shard": session.shard, "connected": connected, "sequence": sequence,
                    "identified_at_ms": session.identified_at_ms, "resumes": resumes, "buffered": buffered,
                    "intents": session.intents})
            })
            .collect();
        let connections: Vec<Value> =
            self.connections().iter().map(|(id, shard)| json!({"connection": id, "shard": shard})).collect();
        json!({"sessions": sessions, "connections": connections,
            "identifies_remaining": self.limits().identifies_remaining, "guilds": lock(&self.world).len()})
    }
}
