// SPDX-License-Identifier: AGPL-3.0-only
//! How far publishing is behind, shown while it stands still too. In: the log, what is confirmed. Out: gauges per
//! shard, and the time in which the broker took nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_broker::State;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{select, sync::watch};

use super::{Amqp, metrics::Shard};
use crate::{log::Position, shard::Hub};

/// How often the gauges are set.
pub(super) const SHOW_EVERY: Duration = Duration::from_millis(250);

/// One shard's lag.
pub(super) struct Lag {
    hub: Arc<Hub>,
    events: Gauge,
    bytes: Gauge,
    stalled: Gauge,
    confirmed: Option<Position>,
    progressed_at: Instant,
    shown_at: Option<Instant>,
}

impl Lag {
    pub(super) fn new(amqp: &Amqp, hub: &Arc<Hub>) -> Self {
        let (metrics, shard) = (&amqp.metrics, Shard { shard: hub.shard });
        Self {
            hub: Arc::clone(hub),
            events: metrics.lag.get_or_create(&shard).clone(),
            bytes: metrics.lag_bytes.get_or_create(&shard).clone(),
            stalled: metrics.stalled.get_or_create(&shard).clone(),
            confirmed: None,
            progressed_at: Instant::now(),
            shown_at: None,
        }
    }

    /// Everything up to here is confirmed. Shows it when it is time.
    pub(super) fn show(&mut self, confirmed: Position) {
        let now = Instant::now();
        if self.confirmed != Some(confirmed) {
            self.confirmed = Some(confirmed);
            self.progressed_at = now;
        }
        if self.shown_at.is_some_and(|at| now.duration_since(at) < SHOW_EVERY) {
            return;
        }
        self.shown_at = Some(now);
        let (events, bytes) = {
            let core = self.hub.core();
            (core.log.last().saturating_sub(confirmed), core.log.bytes_after(confirmed))
        };
        if events == 0 {
            self.progressed_at = now;
        }
        let shown = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.events.set(shown(events));
        self.bytes.set(shown(bytes));
        self.stalled.set(shown(now.duration_since(self.progressed_at).as_secs()));
    }
}

/// Counts the time without a broker that takes events, until the process ends.
pub(super) async fn count_outage(amqp: Arc<Amqp>, mut state: watch::Receiver<State>) {
    loop {
        let (from, is_away) = (Instant::now(), *state.borrow_and_update() != State::Connected);
        select! { biased;
            changed = state.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(SHOW_EVERY), if is_away => {}
        }
        if is_away {
            amqp.metrics.outage.inc_by(from.elapsed().as_secs_f64());
        }
    }
}
