// SPDX-License-Identifier: AGPL-3.0-only
//! How a client's task learns which of its shards have something new. In: wakes from the shards' tasks, on other
//! threads, and what they offer. Out: the client's task woken, a flag per leg, and what it has to write.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;
use holdfast_discord::EventKind;

use super::share::Share;
use crate::{
    front::{outgoing::Outgoing, source::dispatch},
    shard::{Hub, MAX_OFFERS, Offer, Reader},
};

/// One client's bell.
pub(super) struct Bell {
    task: AtomicWaker,
    rung: Box<[AtomicBool]>,
    offers: Mutex<Offers>,
}

/// What only this client is to get.
#[derive(Default)]
struct Offers {
    /// Whether the client has everything that comes before.
    open: bool,
    waiting: Vec<Offer>,
}

/// The bell's pull at one shard.
struct Pull {
    bell: Arc<Bell>,
    leg: usize,
    /// The shard.
    shard: u32,
    /// The client's part of the bot.
    share: Share,
}

/// The bell's pulls at all shards; taken away when dropped.
pub(super) struct Pulls(Vec<(Arc<Hub>, Arc<dyn Reader>)>);

impl Bell {
    pub(super) fn new(legs: usize) -> Arc<Self> {
        let rung = (0..legs).map(|_| AtomicBool::new(true)).collect();
        Arc::new(Self { task: AtomicWaker::new(), rung, offers: Mutex::default() })
    }

    /// Wakes this task from now on. To be called before the flags are looked at, so that no wake is missed.
    pub(super) fn listen(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Whether the leg's shard has rung since this was last asked.
    pub(super) fn take(&self, leg: usize) -> bool {
        self.rung[leg].swap(false, Ordering::AcqRel)
    }

    /// From now on the client takes offers.
    pub(super) fn take_offers(&self) {
        self.offers().open = true;
    }

    /// Adds what has been offered meanwhile to what goes out, with this as its `s`, and to what is given.
    pub(super) fn give_offers(
        &self,
        sequence: impl FnOnce() -> u64,
        out: &mut Outgoing,
        given: &mut Vec<Offer>,
    ) {
        let offers = std::mem::take(&mut self.offers().waiting);
        if offers.is_empty() {
            return;
        }
        let sequence = sequence();
        for offer in offers.into_iter().filter(|offer| !offer.is_withdrawn()) {
            dispatch(out, offer.name, sequence, &offer.data);
            given.push(offer);
        }
    }

    fn offers(&self) -> MutexGuard<'_, Offers> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task for another reason.
    pub(super) fn wake(&self) {
        self.task.wake();
    }
}

impl Reader for Pull {
    fn wake(&self, _write: bool) {
        self.bell.rung[self.leg].store(true, Ordering::Release);
        self.bell.task.wake();
    }

    fn offer(&self, offer: Offer) -> Option<Offer> {
        let mut offers = self.bell.offers();
        let is_full = offers.waiting.len() >= MAX_OFFERS;
        if !offers.open || is_full || !self.share.takes(self.shard, EventKind::InteractionCreate, offer.guild)
        {
            return Some(offer);
        }
        offers.waiting.push(offer);
        drop(offers);
        self.bell.task.wake();
        None
    }
}

impl Pulls {
    /// Shards by the number of their leg.
    pub(super) fn new<'a>(
        bell: &Arc<Bell>,
        share: Share,
        hubs: impl Iterator<Item = (usize, &'a Arc<Hub>)>,
    ) -> Self {
        let pulls = hubs.map(|(leg, hub)| {
            let pull: Arc<dyn Reader> =
                Arc::new(Pull { bell: Arc::clone(bell), leg, shard: hub.shard, share });
            hub.readers.join(Arc::clone(&pull));
            (Arc::clone(hub), pull)
        });
        Self(pulls.collect())
    }
}

impl Drop for Pulls {
    fn drop(&mut self) {
        for (hub, pull) in &self.0 {
            hub.readers.leave(pull);
        }
    }
}
