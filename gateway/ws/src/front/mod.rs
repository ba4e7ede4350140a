// SPDX-License-Identifier: AGPL-3.0-only
//! The WebSocket front: clients that take us for Discord's gateway.
//!
//! A client's way: [`listener`] accepts and upgrades, [`opening`] reads IDENTIFY or RESUME, [`client`] is its
//! task, [`pump`] writes what its [`source`] has next, [`commands`] takes what it sends. A client whose shard count
//! is ours is a [`direct`] one, at one shard; for others there is [`merge`]. One whose shard another replica runs is
//! spliced to that one's front: [`splice`].

mod client;
mod commands;
mod direct;
mod identify;
mod link;
mod listener;
mod members;
mod merge;
mod opening;
mod outgoing;
mod outlet;
mod pump;
mod query;
mod seat;
mod socket;
mod source;
mod splice;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use holdfast_discord::EventKind;
use holdfast_service::{Pages, Secret, Tasks};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(crate) use listener::serve;
pub(crate) use splice::Replicas;

use self::{
    merge::{Part, Sessions},
    opening::{Opening, Serving},
    query::Refused,
};
use crate::{
    fleet::Hubs,
    log::Position,
    metrics::Metrics,
    settings::{CatchUpFrom, Config},
    shard::{Begun, Command, Core, Hub, Identified, Priority, SessionLimits, shard_of_session, unix_ms},
};

/// What all clients' tasks share.
pub(crate) struct Front {
    pub(crate) settings: Config,
    pub(crate) metrics: Arc<Metrics>,
    /// Pages that the listener answers plain HTTP requests with.
    pub(crate) pages: Pages,
    /// The shards that run here.
    pub(crate) hubs: Arc<Hubs>,
    /// Where other shards run; none without a store that replicas share.
    pub(crate) replicas: Option<Replicas>,
    /// Ends all clients.
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: Tasks,
    /// Sessions of clients with another shard count.
    merged: Sessions,
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
        hubs: Arc<Hubs>,
        replicas: Option<Replicas>,
        tasks: Tasks,
    ) -> Self {
        let mut catch_up = [false; 256];
        for kind in &settings.catch_up {
            catch_up[usize::from(*kind as u8)] = true;
        }
        // As many as the shards keep for clients of our count.
        let max = settings.max_clients_per_shard.saturating_mul(4 * hubs.total() as usize);
        let merged = Sessions::new(SessionLimits { expiry: settings.session_expiry, max });
        Self {
            stopping: tasks.token().clone(),
            merged,
            settings,
            metrics,
            pages,
            hubs,
            replicas,
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

    /// Whether a client's shard count is ours.
    fn is_ours(&self, shard: Option<[u32; 2]>) -> bool {
        shard.unwrap_or([0, 1])[1] == self.hubs.total()
    }

    /// What serves a client that identifies for this shard.
    fn serving(&self, shard: Option<[u32; 2]>) -> Result<Serving, Refused> {
        let [shard, count] = shard.unwrap_or([0, 1]);
        if count == self.hubs.total() {
            return self.hub_with_room(shard).map(Serving::One);
        }
        Part::of([shard, count], self.hubs.total(), |shard| self.hub_with_room(shard)).map(Serving::Several)
    }

    /// The shard, if it runs here and isn't about to leave.
    fn held(&self, shard: u32) -> Option<Arc<Hub>> {
        self.hubs.get(shard).filter(|hub| !hub.leaving.is_cancelled())
    }

    /// The shard that a client needs, if that isn't here but may be at another replica: the lowest of them.
    fn elsewhere(&self, opening: &Opening) -> Option<u32> {
        let total = self.hubs.total();
        match opening {
            Opening::Identify(identify) => {
                let [shard, count] = identify.shard.unwrap_or([0, 1]);
                let mut needed = merge::shards([shard, count], total);
                needed.find(|shard| self.held(*shard).is_none())
            }
            Opening::Resume(resume) => {
                match shard_of_session(&resume.session_id).filter(|shard| *shard < total) {
                    Some(shard) => self.held(shard).is_none().then_some(shard),
                    // Any shard can tell that it doesn't know the session.
                    None => self.hubs.all().is_empty().then_some(0),
                }
            }
        }
    }

    /// One of our shards, for one more client.
    fn hub_with_room(&self, shard: u32) -> Result<Arc<Hub>, Refused> {
        let hub = self.hubs.get(shard);
        let hub = hub.ok_or_else(|| {
            Refused::new(4010, format!("shard {shard} of {} is not held here", self.hubs.total()))
        })?;
        if hub.core().sessions.count().0 >= self.settings.max_clients_per_shard {
            let reason = format!("shard {shard} has as many clients as it may (max_clients_per_shard)");
            return Err(Refused::new(4008, reason));
        }
        Ok(hub)
    }

    /// What serves the session with this id. None: there are no shards.
    fn serving_session(&self, id: &str) -> Option<Serving> {
        let here = |hub: &Arc<Hub>| self.hubs.get(hub.shard).is_some_and(|held| Arc::ptr_eq(hub, &held));
        if let Some(part) = self.merged.part(id).filter(|part| part.hubs().iter().all(here)) {
            return Some(Serving::Several(part));
        }
        let shard = shard_of_session(id);
        let hub = shard.and_then(|shard| self.hubs.get(shard));
        // The session of an earlier process, or of another, as its lowest shard has it.
        let spread = hub.as_ref().and_then(|hub| {
            let core = hub.core();
            core.sessions.part_of(id)?.1.spread.as_ref().map(|spread| spread.shard)
        });
        let hub_of = |shard| self.hub_with_room(shard);
        if let Some(Ok(part)) = spread.map(|shard| Part::of(shard, self.hubs.total(), hub_of)) {
            return Some(Serving::Several(part));
        }
        // Any shard can tell that it doesn't know the session.
        hub.or_else(|| self.hubs.all().into_iter().next()).map(Serving::One)
    }

    /// Begins a client's session at a snapshot's position.
    fn begin(&self, core: &mut Core, client: Identified, at: Position) -> Begun {
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
                    hub.command(Command::new(0, Priority::High, payload.clone()));
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
