// SPDX-License-Identifier: AGPL-3.0-only
//! Messages sent and not yet known to be done, oldest first. What comes out comes out in order.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::pending::Pending;
use crate::publisher::PublisherOptions;

/// See the module.
pub(super) struct Window {
    sent: VecDeque<Sent>,
    bytes: usize,
    options: PublisherOptions,
}

/// A message on its way.
pub(super) struct Sent {
    pub(super) position: u64,
    pub(super) bytes: usize,
    pub(super) at: Instant,
    /// `None` if there is nothing to wait for.
    pub(super) pending: Option<Pending>,
}

impl Window {
    pub(super) fn new(options: PublisherOptions) -> Self {
        Self { sent: VecDeque::new(), bytes: 0, options }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Whether a message with a body of `bytes` may be sent now.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.sent.is_empty()
            || (self.sent.len() < self.options.window && self.bytes + bytes <= self.options.window_bytes)
    }

    /// Whether so much is on its way that room is soon to be needed: a quarter of what may be.
    pub(super) fn is_filling(&self) -> bool {
        self.sent.len() > self.options.window / 4 || self.bytes > self.options.window_bytes / 4
    }

    pub(super) fn push(&mut self, sent: Sent) {
        self.bytes += sent.bytes;
        self.sent.push_back(sent);
    }

    pub(super) fn pop(&mut self) -> Option<Sent> {
        let sent = self.sent.pop_front()?;
        self.bytes -= sent.bytes;
        Some(sent)
    }

    pub(super) fn clear(&mut self) {
        self.sent.clear();
        self.bytes = 0;
    }

    /// How many are settled in a row, from the oldest on.
    pub(super) fn settled_by_now(&mut self) -> usize {
        let mut look = Context::from_waker(Waker::noop());
        let oldest = self.sent.iter_mut().map(|sent| sent.poll(&mut look));
        oldest.take_while(Poll::is_ready).count()
    }

    /// Waits until the oldest message is settled, and gives how many are in a row from there. May wait a little longer
    /// than that.
    pub(super) async fn settled(&mut self) -> usize {
        poll_fn(|context| self.poll_settled(context)).await
    }

    /// Asks to be woken for one message in the middle instead of for each: confirmations come in bunches, and one
    /// wake then finds all of them. A quarter of the window leaves the other three to keep the broker busy.
    fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        loop {
            let settled = self.settled_by_now();
            if settled > 0 {
                return Poll::Ready(settled);
            }
            let middle = (self.options.window / 4).min(self.sent.len().saturating_sub(1));
            // When the middle is settled before the oldest (several queues confirm at their own pace), the oldest is
            // waited for.
            if self.poll_one(middle, context).is_pending() || self.poll_one(0, context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_one(&mut self, index: usize, context: &mut Context<'_>) -> Poll<()> {
        self.sent.get_mut(index).map_or(Poll::Pending, |sent| sent.poll(context))
    }
}

impl Sent {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.pending.as_mut().map_or(Poll::Ready(()), |pending| pending.poll_settled(context))
    }
}
