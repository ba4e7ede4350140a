// SPDX-License-Identifier: AGPL-3.0-only
//! The way in of an event: from the connection, through the session, into state and log.
//!
//! In: payloads, in rounds. Out: appends, one wake of the readers per round, and what the session wants done
//! next. Part of the shard's task, which owns everything here.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use holdfast_discord::{scan, session::Step};
use tracing::warn;

use super::{
    core::Core,
    hub::unix_ms,
    pressure,
    task::{RESUMABLY, ShardTask},
};
use crate::{log::StreamId, upstream::Connection};

/// At most so many payloads are taken in before clients are woken and others get their turn:
/// 256 × about 1.5 µs is well below a millisecond.
const ROUND: usize = 256;
/// A round ends after so many bytes, too: guilds cost milliseconds each, and a heartbeat may be due.
const ROUND_BYTES: usize = 256 * 1024;

impl ShardTask {
    /// Takes in what has come, up to a round, and wakes the readers once.
    pub(super) async fn take_round(&mut self, connection: &mut Connection) -> Step {
        let hub = Arc::clone(&self.hub);
        let mut gone = None;
        let (step, full, backed_up) = {
            let mut core = hub.core();
            let (now, now_ms) = (Instant::now(), unix_ms());
            let (mut taken, mut bytes) = (0, 0);
            let is_full = |taken, bytes| taken == ROUND || bytes >= ROUND_BYTES;
            let was_pressed = self.pressed;
            let step = loop {
                taken += 1;
                bytes += connection.payload().len();
                let step = self.take(&mut core, connection.payload(), now, now_ms);
                if !matches!(step, Step::Dispatch | Step::Nothing) || is_full(taken, bytes) {
                    break step;
                }
                // In a small log a round would push out what isn't stored yet.
                if !was_pressed && core.log.is_pressed() {
                    break step;
                }
                match connection.try_next() {
                    Ok(true) => {}
                    Ok(false) => break step,
                    Err(closed) => {
                        gone = Some(closed);
                        break Step::Nothing;
                    }
                }
            };
            core.log.flush_due(now);
            self.pressed = core.log.is_pressed();
            (step, is_full(taken, bytes), pressure::is_backed_up(&core))
        };
        hub.readers.appended();
        if let Some(closed) = gone {
            // Not under the lock: the end of a connection is noted in the core.
            return self.lost(&closed);
        }
        if backed_up && matches!(step, Step::Dispatch | Step::Nothing) {
            return self.leave_backlog();
        }
        if full {
            // More is there already: clients on this thread get their turn first.
            tokio::task::yield_now().await;
        }
        step
    }

    /// Leaves what follows to Discord, for the minutes that it keeps a session.
    fn leave_backlog(&mut self) -> Step {
        self.metrics.backlogs_left.inc();
        // This is no failure: the next connection is made as if none had been.
        self.backoff.succeeded();
        warn!(
            "the log is nearly full of what the broker hasn't had: Discord holds what follows, for some minutes"
        );
        self.leave()
    }

    /// Ends the connection so that it can be resumed.
    fn leave(&mut self) -> Step {
        let Step::Reconnect { next, .. } = self.session.closed(None) else { return Step::Nothing };
        Step::Reconnect { close: Some(RESUMABLY), next }
    }

    /// One payload.
    fn take(&mut self, core: &mut Core, payload: &[u8], now: Instant, now_ms: u64) -> Step {
        let header = match scan(payload) {
            Ok(header) => header,
            Err(error) => return self.unusable(&error),
        };
        let token = self.identity.token.expose();
        let step = match self.session.received(&header, payload, now, fastrand::f64(), token) {
            Ok(step) => step,
            Err(error) => return self.unusable(&error),
        };
        match step {
            Step::Dispatch => {
                core.dispatch(&header, payload, now_ms);
                self.hub.gauges.events.fetch_add(1, Ordering::Relaxed);
                self.metrics.event(self.hub.shard, header.kind);
            }
            Step::Ready => {
                let data = header.data.and_then(|range| payload.get(range)).unwrap_or_default();
                return self.begin_session(core, data);
            }
            _ if header.op == 11 => self.note_latency(),
            _ => {}
        }
        step
    }

    fn begin_session(&mut self, core: &mut Core, data: &[u8]) -> Step {
        match core.begin_session(data, StreamId::random()) {
            Ok(None) => {}
            Ok(Some(gap)) => {
                self.metrics.gaps.inc();
                warn!(
                    stream = %gap.stream, from = gap.from, to = gap.to,
                    "Discord gave a new session instead of a resume: events may be missing"
                );
                self.hub.readers.wake();
            }
            Err(error) => return self.unusable(&error),
        }
        self.keeper.session_began(core, &self.session);
        Step::Ready
    }

    fn unusable(&mut self, error: &dyn std::error::Error) -> Step {
        self.metrics.malformed.inc();
        warn!(%error, "a payload can't be used: reconnecting");
        self.leave()
    }

    fn note_latency(&self) {
        let Some(latency) = self.session.latency() else { return };
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.hub.gauges.latency_us.store(micros, Ordering::Relaxed);
        self.metrics.acknowledged(self.hub.shard, latency.as_secs_f64());
    }
}
