// SPDX-License-Identifier: AGPL-3.0-only
//! A client's place among the readers of its shard: its pump, shared by the client's task and the shard's.
//!
//! In: the shard's wakes, the client's polls. Out: what the pump writes. A client that takes frames as they lie
//! in the log is written to by the shard's task itself, which saves waking the client's; everything else is
//! done by the client's task.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    task::{Context, Poll, Waker},
};

use super::{
    outlet::Outlet,
    pump::{Pump, Stopped},
    source::{Source, dispatch},
};
use crate::{
    log::Position,
    shard::{Answered, MAX_OFFERS, Offer, Reader},
};

/// See the module's documentation.
pub(crate) struct Seat {
    pump: Mutex<Pump>,
    /// The client's task; noted before it looks at the log, so that no append is missed.
    task: Mutex<Waker>,
    /// The client was asked to confirm everything up to here.
    asked: Mutex<Option<(Position, Answered)>>,
}

impl Seat {
    /// Takes a seat: the pump is run by wakes from now on.
    pub(crate) fn take(pump: Pump) -> Arc<Self> {
        let hub = Arc::clone(&pump.hub);
        let task = Mutex::new(Waker::noop().clone());
        let seat = Arc::new(Self { pump: Mutex::new(pump), task, asked: Mutex::default() });
        hub.readers.join(Arc::clone(&seat) as Arc<dyn Reader>);
        seat
    }

    /// Leaves it, with the pump. None: somebody else holds on to the seat, which nobody does.
    pub(crate) fn leave(self: Arc<Self>) -> Option<Pump> {
        let hub = {
            let mut pump = self.pump();
            // Whoever waits for the seat to be empty stores the place right away.
            pump.note();
            Arc::clone(&pump.hub)
        };
        let reader = Arc::clone(&self) as Arc<dyn Reader>;
        hub.readers.leave(&reader);
        drop(reader);
        let seat = Arc::into_inner(self)?;
        Some(seat.pump.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The pump, for a moment.
    pub(crate) fn pump(&self) -> MutexGuard<'_, Pump> {
        self.pump.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the pump for the client's task.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Stopped> {
        {
            let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            if !task.will_wake(cx.waker()) {
                task.clone_from(cx.waker());
            }
        }
        let mut pump = self.pump();
        self.note_answer(&pump);
        match pump.stopped.take() {
            Some(stopped) => Poll::Ready(stopped),
            None => pump.poll(cx),
        }
    }

    /// Lets whoever has asked go on, once the client has confirmed what it was asked for.
    fn note_answer(&self, pump: &Pump) {
        let mut asked = self.asked();
        let Some((given, _)) = &*asked else { return };
        let mut core = pump.hub.core();
        let session = core.sessions.held(&pump.session, pump.connection);
        if session.is_none_or(|session| session.confirmed >= *given) {
            *asked = None;
        }
    }

    fn asked(&self) -> MutexGuard<'_, Option<(Position, Answered)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader for Seat {
    fn wake(&self, write: bool) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if write {
            let pump = match self.pump.try_lock() {
                Ok(pump) => Some(pump),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(mut pump) = pump
                && pump.writes_at_once()
            {
                // What the socket or a turn's end wakes later is the client's task.
                match pump.poll(&mut Context::from_waker(&task)) {
                    Poll::Pending => return,
                    Poll::Ready(stopped) => pump.stopped = Some(stopped),
                }
            }
        }
        task.wake_by_ref();
    }

    fn ask(&self, answered: &Answered) {
        let mut pump = self.pump();
        // One that has only a part of its snapshot has nothing to confirm.
        if !matches!(pump.source, Source::Live) {
            return;
        }
        pump.writing.out.payload(br#"{"t":null,"s":null,"op":1,"d":null}"#);
        *self.asked() = Some((pump.last_given, answered.clone()));
        drop(pump);
        self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }

    fn offer(&self, offer: Offer) -> Option<Offer> {
        let mut pump = self.pump();
        if !matches!(pump.source, Source::Live) || pump.stopped.is_some() || pump.offers.len() >= MAX_OFFERS {
            return Some(offer);
        }
        let sequence = pump.sequence();
        dispatch(&mut pump.writing.out, offer.name, sequence, &offer.data);
        pump.offers.push(offer);
        drop(pump);
        self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
        None
    }
}
