// SPDX-License-Identifier: AGPL-3.0-only
//! Whether the shard reads on from Discord. In: the log's fill. Out: pauses while the disk is behind, so that
//! events aren't pushed out of memory before they are stored; never for long. And, while the broker is away, whether
//! it is time to leave the backlog to Discord. Owned by the shard's task.

use std::time::{Duration, Instant};

use super::{core::Core, hub::Hub};

/// The log is looked at again after this.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A disk that takes longer is no reason to lose the session: what can't be stored is dropped, and counted.
const AT_MOST: Duration = Duration::from_secs(5);
/// After giving up, reading goes on for so long before the disk is trusted again.
const REST: Duration = Duration::from_secs(30);

/// A log that is so full of what the broker hasn't had is about to drop it. What comes until the shard has left (a round,
/// 256 KiB, and what is on its way to the disk) fits into the rest, and so do the sixteenths that go at once.
const FULL: (u64, u64) = (3, 4);
/// The shard comes back when no more than this is left: so much of Discord's backlog fits.
const RELIEVED: (u64, u64) = (1, 2);
/// How often a shard that has left looks whether it may come back.
const RELIEVED_EVERY: Duration = Duration::from_millis(100);

/// Whether Discord is to hold the backlog: the log is nearly full of what the broker hasn't had, and no client is
/// here who would miss what comes.
pub(super) fn is_backed_up(core: &Core) -> bool {
    core.leaves_backlog && is_above(core, FULL) && core.sessions.count().0 == 0
}

/// Waits until the broker has had enough of the backlog, or a client has come.
pub(super) async fn relieved(hub: &Hub) {
    let waits = || {
        let core = hub.core();
        is_above(&core, RELIEVED) && core.sessions.count().0 == 0
    };
    while waits() {
        tokio::time::sleep(RELIEVED_EVERY).await;
    }
}

fn is_above(core: &Core, (part, of): (u64, u64)) -> bool {
    core.unpublished_bytes() > core.log.bound() / of * part
}

/// The state of one connection.
#[derive(Default)]
pub(super) struct Pressure {
    since: Option<Instant>,
    ignored_until: Option<Instant>,
}

impl Pressure {
    /// To be called after each round of appends: pauses reading if the log is pressed.
    pub(super) fn look(&mut self, pressed: bool, now: Instant) {
        let ignored = self.ignored_until.is_some_and(|until| now < until);
        self.since = match self.since {
            _ if !pressed || ignored => None,
            Some(since) if now.duration_since(since) >= AT_MOST => {
                self.ignored_until = Some(now + REST);
                None
            }
            since => Some(since.unwrap_or(now)),
        };
    }

    /// Whether reading is paused.
    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// Waits a moment and looks again; for ever where nothing presses.
    pub(super) async fn passes(&mut self, hub: &Hub) {
        if !self.is_on() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let pressed = {
            let mut core = hub.core();
            core.log.flush();
            core.log.is_pressed()
        };
        self.look(pressed, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_pauses_while_the_disk_is_behind_but_not_for_ever() {
        let (mut pressure, start) = (Pressure::default(), Instant::now());
        pressure.look(true, start);
        assert!(pressure.is_on());
        pressure.look(false, start);
        assert!(!pressure.is_on());
        pressure.look(true, start);
        pressure.look(true, start + AT_MOST);
        assert!(!pressure.is_on(), "given up");
        pressure.look(true, start + AT_MOST + REST / 2);
        assert!(!pressure.is_on(), "for a while");
        pressure.look(true, start + AT_MOST + REST);
        assert!(pressure.is_on());
    }
}
