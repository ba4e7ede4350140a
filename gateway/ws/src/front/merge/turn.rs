// SPDX-License-Identifier: AGPL-3.0-only
//! One turn of a task that writes from several sources: as much as the socket takes, but not so much that others on the
//! same thread wait. In: what fills the buffer. Out: bytes, and why it stopped.

use std::task::{Context, Poll};

use crate::front::{
    outlet::Outlet,
    pump::{Stopped, TURN_BYTES},
};

/// What a refill came to.
pub(super) enum Refill {
    /// So many bytes were encoded or looked at.
    Filled(usize),
    /// Nothing is left to send until something happens.
    Idle,
}

/// What fills a client's buffer.
pub(super) trait Source: Outlet {
    /// Adds what comes next. What isn't there yet wakes the task.
    fn refill(&mut self, cx: &mut Context<'_>) -> Result<Refill, Stopped>;

    /// Whether what comes next is guilds: as for any client, one a turn.
    fn is_heavy(&self) -> bool;
}

/// Writes until nothing is left or the socket takes no more.
pub(super) fn poll(source: &mut impl Source, cx: &mut Context<'_>) -> Poll<Stopped> {
    let mut turn = 0;
    loop {
        match source.writing().poll_out(cx, &mut turn) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => source.flushed(),
            Poll::Ready(Err(_)) => return Poll::Ready(Stopped::Gone),
        }
        if turn > TURN_BYTES || (turn > 0 && source.is_heavy()) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match source.refill(cx) {
            Ok(Refill::Filled(bytes)) => turn += bytes,
            Ok(Refill::Idle) => {
                return match source.writing().writer.poll_flush(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(Stopped::Gone),
                    _ => Poll::Pending,
                };
            }
            Err(stopped) => return Poll::Ready(stopped),
        }
    }
}
