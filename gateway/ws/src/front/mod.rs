// SPDX-License-Identifier: AGPL-3.0-only
//! The WebSocket front: clients that take us for Discord's gateway.
//!
//! A client's way: [`listener`] accepts and upgrades, [`opening`] reads IDENTIFY or RESUME, [`client`] is its
//! task at its shard, [`pump`] writes what its [`source`] has next, [`commands`] takes what it sends.

mod client;
mod commands;
mod identify;
mod link;
mod listener;
mod members;
mod opening;
mod outgoing;
mod pump;
mod query;
mod socket;
mod source;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use holdfast_discord::EventKind;
use holdfast_service::{Pages, Secret, Tasks};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(crate) use listener::serve;

use self::query::Refused;
use crate::{
    log::Position,
    metrics::Metrics,
    settings::{CatchUpFrom, Config},
    shard::{Begun, Command, Core, Hub, Identified, shard_of_session, unix_ms},
};

/// What all clients' tasks share.
pub(crate) struct Front {
    pub(crate) settings: Config,
    pub(crate) metrics: Arc<Metrics>,
    /// Pages that the listener answers plain HTTP requests with.
    pub(crate) pages: Pages,
    /// Our shards, from the first on.
    pub(crate) hubs: Vec<Arc<Hub>>,
    /// Number of all shards of the bot.
    pub(crate) total: u32,
    /// Ends all clients.
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: Tasks,
    catch_up: CatchUp,
    connections: AtomicU64,
    /// Bits that clients asked for and our shards don't have, each warned about once.
    missing_intents: AtomicU64,
}

/// Names of events that belong into catch-up, by kind.
struct CatchUp([bool; 256]);

impl CatchUp {
    fn contains(&self, kind: &EventKind) -> bool {
        self.0[usize::from(*kind as u8)]
    }
}

impl Front {
    pub(crate) fn new(
        settings: Config,
        metrics: Arc<Metrics>,
        pages: Pages,
        hubs: Vec<Arc<Hub>>,
        total: u32,
        tasks: Tasks,
    ) -> Self {
        let mut catch_up = [false; 256];
        for kind in &settings.catch_up {
            catch_up[usize::from(*kind as u8)] = true;
        }
        Self {
            stopping: tasks.token().clone(),
            settings,
            metrics,
            pages,
            hubs,
            total,
            tasks,
            catch_up: CatchUp(catch_up),
            connections: AtomicU64::new(1),
            missing_intents: AtomicU64::new(0),
        }
    }

    /// A number for a new connection; 0 is ours.
    fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a client with this token may come in.
    fn accepts(&self, token: &Secret) -> bool {
        !self.settings.validate_token || *token == self.settings.discord.token
    }

    /// The shard that a client identifies for.
    fn hub_of(&self, shard: Option<[u32; 2]>) -> Result<Arc<Hub>, Refused> {
        let [shard, total] = shard.unwrap_or([0, 1]);
        if total != self.total {
            let (last, own) = (self.total.saturating_sub(1), self.total);
            let reason = format!("the bot has {own} shards here: identify with [0 to {last}, {own}]");
            return Err(Refused::new(4010, reason));
        }
        let hub = self.hubs.iter().find(|hub| hub.shard == shard);
        let hub = hub.ok_or_else(|| Refused::new(4010, format!("shard {shard} is not held here")))?;
        if hub.core().sessions.count().0 >= self.settings.max_clients_per_shard {
            return Err(Refused::new(
                4008,
                "this shard has as many clients as it may (max_clients_per_shard)",
            ));
        }
        Ok(Arc::clone(hub))
    }

    /// The shard to which a session id of ours belongs.
    fn hub_of_session(&self, id: &str) -> Option<Arc<Hub>> {
        let shard = shard_of_session(id)?;
        self.hubs.iter().find(|hub| hub.shard == shard).cloned()
    }

    fn any_hub(&self) -> Option<Arc<Hub>> {
        self.hubs.first().cloned()
    }

    /// Begins a client's session at a snapshot's position.
    fn begin(&self, core: &mut Core, client: Identified, at: Position) -> Begun {
        self.metrics.client_identifies.inc();
        let confirmed = self.settings.catch_up_from == CatchUpFrom::Confirmed;
        let (epoch, now_ms) = (core.epoch, unix_ms());
        core.sessions.identify(client, at, epoch, confirmed, now_ms)
    }

    /// The credentials of the bot's voice connections, for a client that may have lost them; stale ones are
    /// asked for anew, and come as events.
    fn voice_again(&self, hub: &Hub, core: &Core) -> Vec<(&'static str, Vec<u8>)> {
        let mut events = Vec::new();
        for voice in core.voice.connected().filter(|_| self.settings.restore_voice) {
            match (&voice.state, &voice.server, &voice.wanted) {
                (Some(state), Some(server), _) => {
                    events.push(("VOICE_STATE_UPDATE", state.clone()));
                    events.push(("VOICE_SERVER_UPDATE", server.clone()));
                }
                (_, None, Some(payload)) => {
                    hub.command(Command { client: 0, voice: true, payload: payload.clone() });
                }
                _ => {}
            }
        }
        events
    }

    /// Warns, once for each, about intents that a client wants and our shards don't have.
    fn note_intents(&self, intents: u64) {
        let missing = intents & !self.settings.discord.intents.0;
        if missing == 0 {
            return;
        }
        self.metrics.intents_missing.inc();
        let warned = self.missing_intents.fetch_or(missing, Ordering::Relaxed);
        if missing & !warned != 0 {
            warn!(
                missing = missing & !warned,
                "a client wants intents that discord.intents doesn't have: it gets nothing of them"
            );
        }
    }
}
