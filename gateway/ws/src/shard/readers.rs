// SPDX-License-Identifier: AGPL-3.0-only
//! Who follows a shard's log, and how they learn that it has grown.
//!
//! In: registrations. Out: a call to each reader after a round of appends, from the shard's task. A reader
//! stays registered between wakes: nothing is allocated or linked per wake.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, mpsc};

use super::offer::Offer;

/// Up to so many readers may write to their sockets from the shard's own task: that saves waking theirs.
/// Beyond it the shard would be held up by its readers' writes.
const WRITE_AT_ONCE: usize = 4;

/// Dropped by a reader that has answered, or can't any more. Nothing is sent.
pub(crate) type Answered = mpsc::Sender<Infallible>;

/// What follows a log.
pub(crate) trait Reader: Send + Sync {
    /// The log has grown, or something else has changed that the reader looks at. With `write` it may write what
    /// is ready to be written at once, if that doesn't wait for anything; the core isn't locked then.
    fn wake(&self, write: bool);

    /// The shard is about to leave: whoever reads for somebody else has that one confirm what it has.
    fn ask(&self, _: &Answered) {}

    /// Takes what exactly one reader is to write to its client, or gives it back.
    fn offer(&self, offer: Offer) -> Option<Offer> {
        Some(offer)
    }
}

/// The readers of one shard.
#[derive(Default)]
pub(crate) struct Readers {
    list: Mutex<Vec<Arc<dyn Reader>>>,
    left: Notify,
    /// Who is offered something first: each in turn.
    turn: AtomicUsize,
}

impl Readers {
    /// Wakes `reader` from now on, until [`Readers::leave`].
    pub(crate) fn join(&self, reader: Arc<dyn Reader>) {
        self.list().push(reader);
    }

    /// Forgets the reader: when this returns, nobody calls it any more.
    pub(crate) fn leave(&self, reader: &Arc<dyn Reader>) {
        self.list().retain(|joined| !Arc::ptr_eq(joined, reader));
        self.left.notify_waiters();
    }

    /// Waits until nobody follows any more.
    pub(super) async fn gone(&self) {
        loop {
            let left = self.left.notified();
            if self.list().is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Asks all readers to have confirmed what they have given; ends when they have, or are gone. To be called without
    /// the core's lock.
    pub(super) fn ask(&self) -> impl Future<Output = ()> + Send + use<> {
        let (answered, mut answers) = mpsc::channel(1);
        self.list().iter().for_each(|reader| reader.ask(&answered));
        drop(answered);
        async move {
            let _: Option<Infallible> = answers.recv().await;
        }
    }

    /// Gives this to exactly one reader that has a client for it. Err: there is none. To be called without the core's
    /// lock.
    pub(crate) fn offer(&self, mut offer: Offer) -> Result<(), Offer> {
        let list = self.list();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % list.len().max(1);
        for reader in list[turn..].iter().chain(&list[..turn]) {
            match reader.offer(offer) {
                None => return Ok(()),
                Some(back) => offer = back,
            }
        }
        Err(offer)
    }

    /// Something was appended. To be called without the core's lock.
    pub(super) fn appended(&self) {
        let list = self.list();
        let write = list.len() <= WRITE_AT_ONCE;
        list.iter().for_each(|reader| reader.wake(write));
    }

    /// Something else has changed.
    pub(crate) fn wake(&self) {
        self.list().iter().for_each(|reader| reader.wake(false));
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<dyn Reader>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
