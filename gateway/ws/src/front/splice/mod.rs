// SPDX-License-Identifier: AGPL-3.0-only
//! Clients of shards that other replicas run: a client may reach any of them.
//!
//! Out: the one that is reached says HELLO and reads IDENTIFY or RESUME, finds the shard's owner, opens a WebSocket to the
//! owner's front with a [`ticket`], repeats there what the client has said, and [`relay`]s from then on. In: a connection
//! with a ticket gets no HELLO, and is a client like others.

mod dial;
mod relay;
mod ticket;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_cluster::{Cluster, Owner, ShardId, StoreState};
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

pub(super) use dial::Socket;
pub(crate) use ticket::{HEADER, Ticket};

use self::{
    dial::{DialError, Dialler},
    relay::Over,
    ticket::{Gate, Key},
};
use super::{
    Front,
    link::{About, Ended, Link},
    opening::Opening,
    query::Refused,
};
use crate::{settings::Config, shard::unix_ms, start::WsError};

/// How long a client waits for its shard's owner. A hand-over takes less than a second; after a crash the client is sent
/// away, and comes again.
const WITHIN: Duration = Duration::from_secs(5);
/// One attempt to get to an owner may take this long.
const DIAL_WITHIN: Duration = Duration::from_secs(2);
/// How often a shard's owner is asked for, by all who wait for it together.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The other replicas, as the front sees them.
pub(crate) struct Replicas {
    cluster: Cluster,
    gate: Gate,
    dialler: Dialler,
    /// When a shard's owner was asked for, and who it was.
    owners: Mutex<HashMap<ShardId, (Instant, Option<Owner>)>>,
}

/// The way to the owner of a client's shard.
pub(crate) struct Splice {
    owner: Socket,
    /// What the client has opened with.
    first: String,
}

impl Replicas {
    /// # Errors
    /// The front's certificate can't be used.
    pub(crate) fn new(config: &Config, cluster: Cluster) -> Result<Self, WsError> {
        let address = &cluster.identity().address;
        if address.parse().is_ok_and(|address: std::net::SocketAddr| address.ip().is_unspecified()) {
            warn!(%address, "other replicas can't reach this one: ws.advertise is to say how");
        }
        let key = Key::new(&config.discord.token)
            .ok_or_else(|| std::io::Error::other("no key can be made of the token"))?;
        let gate = Gate::new(key, cluster.identity().id);
        Ok(Self { gate, dialler: Dialler::new(config)?, owners: Mutex::default(), cluster })
    }

    /// The shard's owner, if that is another replica. While the store is away, the last that was known.
    async fn owner(&self, shard: ShardId) -> Option<Owner> {
        let mut owners = self.owners.lock().await;
        let known = owners.get(&shard);
        let connected = matches!(*self.cluster.state().borrow(), StoreState::Connected);
        let owner = match known {
            Some((asked, owner)) if !connected || asked.elapsed() < ASK_EVERY => owner.clone(),
            _ => match self.cluster.owners(&[shard]).await {
                Ok(mut found) => {
                    let owner = found.pop().flatten();
                    owners.insert(shard, (Instant::now(), owner.clone()));
                    owner
                }
                Err(_) => known.and_then(|(_, owner)| owner.clone()),
            },
        };
        owner.filter(|owner| owner.replica != self.cluster.identity().id)
    }

    async fn dial(
        &self,
        shard: ShardId,
        owner: &Owner,
        about: &About,
        leg: bool,
    ) -> Result<Socket, DialError> {
        let ticket = Ticket { shard, to: owner.replica, peer: about.peer, leg };
        let header = self.gate.key().issue(&ticket, unix_ms());
        let dialled = self.dialler.dial(&owner.address, &header, about.query.name.as_deref());
        timeout(DIAL_WITHIN, dialled).await.unwrap_or(Err(DialError::Silent(DIAL_WITHIN)))
    }
}

/// Takes a ticket. Err: the status of the answer, and the reason.
pub(super) fn admit(front: &Front, header: &str) -> Result<Ticket, (u16, String)> {
    let admitted = front.replicas.as_ref().map(|replicas| replicas.gate.admit(header, unix_ms()));
    let ticket = match admitted {
        Some(Ok(ticket)) => ticket,
        denied => {
            front.metrics.splices_refused.inc();
            let reason =
                denied.and_then(Result::err).map_or("there are no replicas".to_owned(), |it| it.to_string());
            warn!(reason, "a connection that says that it comes from a replica was refused");
            return Err((403, format!("Not a ticket for this replica: {reason}.\n")));
        }
    };
    let ShardId { shard, total } = ticket.shard;
    let is_here = total == front.hubs.total() && front.held(shard).is_some();
    let is_former = || ticket.leg && front.hubs.former(ticket.shard).is_some();
    if !is_here && !is_former() {
        return Err((503, format!("Shard {shard} of {total} isn't held here.\n")));
    }
    Ok(ticket)
}

/// The way to the shard's owner, once there is one. None: the shard runs here by now, or is none of the bot's any more,
/// as their number has changed.
pub(super) async fn reach(
    front: &Front,
    replicas: &Replicas,
    id: ShardId,
    about: &About,
    opening: (&Opening, &Value),
) -> Result<Option<Splice>, Refused> {
    let begun = Instant::now();
    let ShardId { shard, total } = id;
    let mut why = "nobody owns it".to_owned();
    while begun.elapsed() < WITHIN {
        if front.hubs.total() != total || front.held(shard).is_some() {
            return Ok(None);
        }
        if let Some(owner) = replicas.owner(id).await {
            match replicas.dial(id, &owner, about, false).await {
                Ok(socket) => return Ok(Some(Splice { owner: socket, first: first(opening) })),
                Err(error) => why = format!("{} at {}: {error}", owner.replica, owner.address),
            }
        }
        sleep(ASK_EVERY).await;
    }
    front.metrics.splices_failed.inc();
    warn!(shard, why, "a client's shard can't be reached");
    Err(Refused::new(4000, format!("shard {shard} is on its way to another replica: come again")))
}

/// A connection to whoever has a shard for one leg of a client that is merged here.
pub(super) async fn leg(front: &Front, id: ShardId, about: &About) -> Result<Socket, Refused> {
    let ShardId { shard, total } = id;
    let gone = |why: &str| Refused::new(4000, format!("shard {shard} of {total} {why}: come again"));
    let replicas = front.replicas.as_ref().ok_or_else(|| gone("is not here"))?;
    let begun = Instant::now();
    let mut why = "nobody has it".to_owned();
    while begun.elapsed() < WITHIN {
        // Of a former count nobody has a lease any more.
        let owner = match front.hubs.keeper(id) {
            Some(keeper) => Some(keeper),
            None if front.hubs.total() == total && front.held(shard).is_none() => replicas.owner(id).await,
            None => return Err(gone("has moved")),
        };
        if let Some(owner) = owner {
            match replicas.dial(id, &owner, about, true).await {
                Ok(socket) => return Ok(socket),
                // It has begun anew, or has given the shard up.
                Err(error) if error.says_no() && front.hubs.total() != total => front.hubs.forget_keeper(id),
                Err(error) => why = format!("{} at {}: {error}", owner.replica, owner.address),
            }
        }
        sleep(ASK_EVERY).await;
    }
    front.metrics.splices_failed.inc();
    warn!(shard, total, why, "a client's shard can't be reached");
    Err(gone("is on its way to another replica"))
}

/// What the client has said, as the owner gets it: payload compression is ours.
fn first((opening, data): (&Opening, &Value)) -> String {
    let mut data = data.clone();
    let op = match opening {
        Opening::Identify(_) => 2,
        Opening::Resume(_) => 6,
    };
    if let Some(fields) = data.as_object_mut() {
        fields.remove("compress");
    }
    json!({ "op": op, "d": data }).to_string()
}

/// Relays a client until the end. Gives the link back if the client may open anew.
pub(super) async fn run(
    front: &Arc<Front>,
    mut link: Link,
    splice: Box<Splice>,
    opening: &Opening,
) -> Option<Link> {
    if let Opening::Identify(identify) = opening {
        link.writing.out.compress_payloads(identify.compress);
    }
    front.metrics.splices.inc();
    let Splice { owner, first } = *splice;
    let over = relay::carry(&mut link, owner, first, &front.stopping).await;
    front.metrics.splices.dec();
    let refused = match over {
        Over::Invalid => {
            link.about.invalidated = true;
            return Some(link);
        }
        Over::Client(Ended::Gone(code)) => {
            debug!(code, "client gone");
            return None;
        }
        // The owner has counted it.
        Over::Closed(refused) => {
            link.close(&refused).await;
            return None;
        }
        Over::Client(Ended::Refused(refused)) => refused,
        Over::Lost => Refused::new(4000, "the shard's replica is lost: resume"),
        Over::Stopping => {
            link.writing.out.payload(br#"{"t":null,"s":null,"op":7,"d":null}"#);
            Refused::new(4000, "restarting: resume")
        }
    };
    front.metrics.closed(refused.code);
    debug!(code = refused.code, reason = refused.reason, peer = %link.about.peer, "client closed");
    link.close(&refused).await;
    None
}
