// SPDX-License-Identifier: AGPL-3.0-only
//! What another replica asks of a shard of ours, before it is lent. In: the first payload of a connection with a ticket for
//! a leg. Out: the shard, and what is wanted of it; or the close that the other gets.

use std::sync::Arc;

use super::{
    seek::here,
    wire::{ASK, Ask},
};
use crate::{
    front::{
        Front,
        link::{Ended, Link, Payload},
        query::Refused,
    },
    shard::Hub,
};

/// A shard that another replica has asked for, and what of it.
pub(crate) struct Loan {
    pub(super) hub: Arc<Hub>,
    pub(super) ask: Ask,
}

impl Loan {
    /// The runtime of the task that lends.
    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.hub.runtime
    }
}

/// Reads what another replica wants of a shard.
pub(in crate::front) async fn asked(front: &Front, link: &mut Link) -> Result<Loan, Ended> {
    let refused = |code, why: &str| Ended::Refused(Refused::new(code, why));
    let Payload { op, data } = link.reading.next().await?;
    let ask = serde_json::from_value::<Ask>(data).ok().filter(|_| op == ASK);
    // Another version may ask for what this one doesn't know: its client comes again.
    let ask = ask.ok_or_else(|| refused(4000, "not what a replica asks for"))?;
    let hub = link.about.leg.and_then(|id| here(front, id, ask.what));
    // One that isn't open yet has no beginning.
    let hub = hub.filter(|hub| !hub.core().is_warming());
    let hub = hub.ok_or_else(|| refused(4000, "the shard has moved: come again"))?;
    if hub.core().sessions.count().0 >= front.settings.max_clients_per_shard {
        let reason = format!("shard {} has as many clients as it may (max_clients_per_shard)", hub.shard);
        return Err(refused(4008, &reason));
    }
    Ok(Loan { hub, ask })
}
