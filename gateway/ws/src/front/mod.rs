// SPDX-License-Identifier: AGPL-3.0-only
//! The WebSocket front: clients that take us for Discord's gateway.
//!
//! A client's way: [`listener`] accepts and upgrades, [`opening`] reads IDENTIFY or RESUME, [`client`] is its task, [`pump`]
//! writes what its [`source`] has next, [`commands`] takes what it sends. A client of our shard count is a [`direct`] one,
//! at one shard; for others, and those from before ours changed, there is [`merge`]. One whose shard another replica runs
//! is spliced to that one's front: [`splice`].

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
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use holdfast_cluster::ShardId;
use holdfast_discord::EventKind;
use holdfast_service::{Pages, Secret, Tasks};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(crate) use listener::serve;
pub(crate) use splice::Replicas;

use self::{
    identify::{Identify, Resume},
    link::About,
    merge::{Holder, Part, Prepared, Sessions},
    opening::{Opening, Serving},
    query::Refused,
};
use crate::{
    fleet::Hubs,
    log::Position,
    metrics::Metrics,
    settings::{CatchUpFrom, Config},
    shard::{Begun, Command, Core, Hub, Identified, Priority, SessionLimits, client_of_session, unix_ms},
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

/// Whether a shard's log is younger than its guilds: one that came with a new count knew them before its first event.
/// READY and the guilds need sequences, and positions there are too low to follow them.
fn is_young(core: &Core) -> bool {
    let others = 1 + 2 * core.voice.connected().count();
    let is_below = |guilds: usize| core.log.last() < (guilds + others) as u64;
    // Cheap first.
    core.ready.is_some()
        && is_below(core.guilds.len())
        && is_below(core.guilds.snapshot().guilds().iter().filter(|guild| !guild.unavailable()).count())
}

/// A shard is another replica's by now.
fn moved(shard: u32) -> Refused {
    Refused::new(4000, format!("shard {shard} has moved: come again"))
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

    /// What is found for the number of all shards. That may change meanwhile: then it is looked for again.
    fn at_one_count<T>(&self, find: impl Fn(u32) -> T) -> T {
        loop {
            let total = self.hubs.total();
            let found = find(total);
            if self.hubs.total() == total {
                return found;
            }
        }
    }

    /// What serves a client that identifies so.
    async fn serving(self: &Arc<Self>, about: &About, identify: &Identify) -> Result<Serving, Refused> {
        let [shard, count] = identify.shard.unwrap_or([0, 1]);
        loop {
            let total = opening::open_total(self).await?;
            let part = Part::of([shard, count], total, |shard| self.holder(shard, true))?;
            part.at_home()?;
            let hub = self.held(shard).filter(|_| count == total);
            let needed = hub.as_ref().is_none_or(|hub| is_young(&hub.core()));
            let prepared = merge::identify(self, &part, about, identify, needed).await?;
            if self.hubs.total() == total {
                return match (prepared, hub) {
                    (None, Some(hub)) => Ok(Serving::One(hub)),
                    (None, None) => Err(moved(shard)),
                    (Some(prepared), _) => Ok(Serving::Several(part, prepared)),
                };
            }
        }
    }

    /// The shard, if it runs here and isn't about to leave.
    fn held(&self, shard: u32) -> Option<Arc<Hub>> {
        self.hubs.get(shard).filter(|hub| !hub.leaving.is_cancelled())
    }

    /// The shard whose owner serves a client, if that may be another replica.
    fn elsewhere(&self, opening: &Opening) -> Option<ShardId> {
        self.at_one_count(|total| {
            let client = match opening {
                Opening::Identify(identify) => Some(identify.shard.unwrap_or([0, 1])),
                Opening::Resume(resume) => client_of_session(&resume.session_id),
            };
            // Any shard can tell that it doesn't know a session.
            let nobody = || self.hubs.all().is_empty().then_some(0);
            let home = client.map_or_else(nobody, |client| merge::home(client, total))?;
            self.held(home).is_none().then_some(ShardId::new(home, total))
        })
    }

    /// Who has one of our shards; where that is us, for one more client if it is `new`.
    fn holder(&self, shard: u32, new: bool) -> Result<Holder, Refused> {
        if self.replicas.is_some() && self.held(shard).is_none() {
            return Ok(Holder::There);
        }
        if new { self.hub_with_room(shard).map(Holder::Here) } else { self.hub(shard).map(Holder::Here) }
    }

    /// One of our shards, for one more client.
    fn hub_with_room(&self, shard: u32) -> Result<Arc<Hub>, Refused> {
        let hub = self.hub(shard)?;
        if hub.core().sessions.count().0 >= self.settings.max_clients_per_shard {
            let reason = format!("shard {shard} has as many clients as it may (max_clients_per_shard)");
            return Err(Refused::new(4008, reason));
        }
        Ok(hub)
    }

    fn hub(&self, shard: u32) -> Result<Arc<Hub>, Refused> {
        self.hubs.get(shard).ok_or_else(|| {
            Refused::new(4010, format!("shard {shard} of {} is not held here", self.hubs.total()))
        })
    }

    /// What serves the session that a client resumes. None: there are no shards.
    async fn serving_session(
        self: &Arc<Self>,
        about: &About,
        resume: &Resume,
    ) -> Result<Option<Serving>, Refused> {
        loop {
            // Only then everything is known about the shards of the former count.
            let total = opening::open_total(self).await?;
            let client = client_of_session(&resume.session_id);
            // One of our count has its session at the shard of its number, unless it was begun at others.
            let own = client.filter(|[_, count]| *count == total).and_then(|[shard, _]| self.hubs.get(shard));
            if let Some(hub) = own.filter(|hub| hub.core().sessions.has_whole(&resume.session_id)) {
                return Ok(Some(Serving::One(hub)));
            }
            let part = client.map(|client| Part::of(client, total, |shard| self.holder(shard, false)));
            let Some(Ok(part)) = part else {
                // Any shard can tell that it doesn't know the session.
                return Ok(self.hubs.all().into_iter().next().map(Serving::One));
            };
            part.at_home()?;
            let resumed = merge::resume(self, &part, about, resume).await?;
            if self.hubs.total() == total || resumed.is_none() {
                return Ok(Some(Serving::Several(part, Prepared::Resume(resumed))));
            }
        }
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
