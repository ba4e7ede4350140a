// SPDX-License-Identifier: AGPL-3.0-only
//! How a client's task learns which of its shards have something new. In: wakes from the shards' tasks, on other
//! threads. Out: the client's task woken, and a flag per leg.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;

use crate::shard::{Hub, Reader};

/// One client's bell.
pub(super) struct Bell {
    task: AtomicWaker,
    rung: Box<[AtomicBool]>,
}

/// The bell's pull at one shard.
struct Pull {
    bell: Arc<Bell>,
    leg: usize,
}

/// The bell's pulls at all shards; taken away when dropped.
pub(super) struct Pulls(Vec<(Arc<Hub>, Arc<dyn Reader>)>);

impl Bell {
    pub(super) fn new(legs: usize) -> Arc<Self> {
        let rung = (0..legs).map(|_| AtomicBool::new(true)).collect();
        Arc::new(Self { task: AtomicWaker::new(), rung })
    }

    /// Wakes this task from now on. To be called before the flags are looked at, so that no wake is missed.
    pub(super) fn listen(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Whether the leg's shard has rung since this was last asked.
    pub(super) fn take(&self, leg: usize) -> bool {
        self.rung[leg].swap(false, Ordering::AcqRel)
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
}

impl Pulls {
    /// Shards by the number of their leg.
    pub(super) fn new<'a>(bell: &Arc<Bell>, hubs: impl Iterator<Item = (usize, &'a Arc<Hub>)>) -> Self {
        let pulls = hubs.map(|(leg, hub)| {
            let pull: Arc<dyn Reader> = Arc::new(Pull { bell: Arc::clone(bell), leg });
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
