// SPDX-License-Identifier: AGPL-3.0-only
//! Finds a client's shards, here or at other replicas, and asks them for it.
//!
//! In: shards, and what is wanted of them. Out: a leg for each; all of them, or none.

use std::sync::Arc;

use futures_util::future::join_all;
use holdfast_cluster::ShardId;
use tokio_util::sync::CancellationToken;

use super::{
    attach::{Attached, attach},
    far::{Far, Over},
    leg::{Leg, Side},
    wire::{Ask, What, Who},
};
use crate::{
    front::{Front, link::About, query::Refused, splice},
    shard::{Hub, unix_ms},
};

/// A client on its way to its shards.
pub(super) struct Seeker<'a> {
    pub(super) front: &'a Arc<Front>,
    pub(super) about: &'a About,
    pub(super) who: Who,
    pub(super) leaving: CancellationToken,
}

impl Seeker<'_> {
    /// Asks for a shard that may be here.
    async fn seek(&self, id: ShardId, what: What) -> Result<Option<Attached>, Refused> {
        let ask = Ask { who: self.who.clone(), what };
        if let Some(hub) = here(self.front, id, what) {
            return Ok(attach(self.front, &hub, &ask, self.about.number));
        }
        if what.is_former() && self.front.hubs.keeper(id).is_none() {
            // It went with its replica.
            return Ok(None);
        }
        let mut far = match self.dial(id, what).await {
            Ok(far) => far,
            // So did it, as has turned out.
            Err(_) if what.is_former() && self.front.hubs.keeper(id).is_none() => return Ok(None),
            Err(refused) => return Err(refused),
        };
        match far.answered().await {
            Ok(Some(answer)) => {
                let mut leg = Leg::far(Box::new(far), answer.snapshot, answer.from);
                leg.end = answer.end;
                Ok(Some(Attached { leg, answer, begun: None }))
            }
            Ok(None) | Err(Over::Invalid) => Ok(None),
            Err(Over::Closed(refused)) => Err(refused),
        }
    }

    /// Asks for shards. None: one of them doesn't have what is wanted.
    pub(super) async fn seek_all(&self, asked: &[(ShardId, What)]) -> Result<Option<Vec<Attached>>, Refused> {
        let found = join_all(asked.iter().map(|(id, what)| self.seek(*id, *what))).await;
        // A refusal first: the client can come again.
        let found: Vec<_> = found.into_iter().collect::<Result<_, _>>()?;
        Ok(found.into_iter().collect())
    }

    /// What is owed to the client by these shards of a former count.
    pub(super) async fn take(&self, former: &[ShardId]) -> Result<Vec<Attached>, Refused> {
        let found = join_all(former.iter().map(|id| self.seek(*id, What::Take))).await;
        let found: Vec<_> = found.into_iter().collect::<Result<_, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The client is known under this name and these intents where it has been before.
    pub(super) fn is_known_as(&mut self, found: &[Attached]) {
        if let Some(Attached { answer, .. }) = found.first() {
            (self.who.name, self.who.intents) = (answer.name.clone(), answer.intents);
        }
    }

    /// A connection to another replica for a shard.
    pub(super) async fn dial(&self, id: ShardId, what: What) -> Result<Far, Refused> {
        let socket = splice::leg(self.front, id, self.about).await?;
        let ask = Ask { who: self.who.clone(), what };
        Ok(Far::new(self.front.settings.heartbeat_interval, id, socket, &ask, self.leaving.clone()))
    }
}

/// A shard that is asked for, if it is here.
pub(super) fn here(front: &Front, id: ShardId, what: What) -> Option<Arc<Hub>> {
    if what.is_former() {
        return front.hubs.former(id);
    }
    front.held(id.shard).filter(|hub| hub.total == id.total)
}

/// The client leaves a shard. `ended`: and ends its session.
pub(super) fn release(front: &Front, leg: &mut Leg, connection: u64, ended: bool) {
    let now_ms = unix_ms();
    match std::mem::replace(&mut leg.side, Side::Over) {
        Side::Here(hub) if ended => hub.core().sessions.end(&leg.record, connection, now_ms),
        Side::Here(hub) => hub.core().sessions.detach(&leg.record, connection, now_ms),
        Side::There(far) => far.close(front, if ended { 1000 } else { 4000 }),
        Side::Over => {}
    }
}
