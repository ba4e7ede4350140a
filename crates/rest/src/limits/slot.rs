// SPDX-License-Identifier: AGPL-3.0-only
//! One bucket with those who wait for it. In: wishes, the time. Out: places. Owned by the account's state.

use std::time::Duration;

use holdfast_discord::rest::{Bucket, Place, Rolling, RouteId, Ticket, Wait};
use tokio::sync::oneshot;

use super::fair::{Caller, Fair, Priority};

/// A limit that no header tells: two changes of name or topic in ten minutes (see `routes.txt`).
pub(super) const NAME_TOPIC: (u32, Duration) = (2, Duration::from_secs(600));

/// Which requests count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kin: u16,
    pub(super) group: u8,
    pub(super) major: u64,
}

/// What a request counts for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) route: RouteId,
    /// Route and age of the message: what may turn out to count apart.
    pub(super) voice: u16,
    pub(super) major: u64,
    /// Changes a name or topic.
    pub(super) name_topic: bool,
    pub(super) priority: Priority,
    pub(super) caller: Caller,
}

/// The places that a request has.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) key: Key,
    pub(super) ticket: Ticket,
    pub(super) global: Option<Place>,
    pub(super) hidden: Option<Place>,
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) grant: oneshot::Sender<Grant>,
    pub(super) wish: Wish,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) bucket: Bucket,
    /// The limit of names and topics, where it is used.
    pub(super) hidden: Option<Box<Rolling>>,
    pub(super) queue: Fair<Waiter>,
    /// When it is to be looked at again.
    pub(super) timer: Option<Duration>,
    /// It waits for the global limit, as urgently as this.
    pub(super) filed: Option<Priority>,
    /// The limit is everybody's, until then.
    pub(super) shared_until: Duration,
}

impl Slot {
    pub(super) fn ready(&mut self, wish: &Wish, now: Duration, margin: Duration) -> Result<(), Wait> {
        if wish.route.route().untold && self.bucket.under_way() > 0 {
            return Err(Wait::Answer);
        }
        self.bucket.ready(now)?;
        if wish.name_topic {
            let (limit, window) = NAME_TOPIC;
            let hidden = self.hidden.get_or_insert_with(|| Box::new(Rolling::new(limit, window, margin)));
            hidden.ready(now).map_err(Wait::Until)?;
        }
        Ok(())
    }

    pub(super) fn take(
        &mut self,
        key: Key,
        wish: &Wish,
        now: Duration,
        global: Option<Place>,
    ) -> Option<Grant> {
        let ticket = self.bucket.take(now, wish.voice).ok()?;
        let hidden =
            self.hidden.as_mut().filter(|_| wish.name_topic).and_then(|hidden| hidden.take(now).ok());
        Some(Grant { key, ticket, global, hidden })
    }

    pub(super) fn is_idle(&self, now: Duration) -> bool {
        let hidden = self.hidden.as_ref().is_none_or(|hidden| hidden.is_idle(now));
        self.queue.is_empty() && hidden && self.bucket.is_idle(now)
    }
}
