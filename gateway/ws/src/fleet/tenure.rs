// SPDX-License-Identifier: AGPL-3.0-only
//! Whether this replica has looked after its leases of late. In: what the store has answered, or that it hasn't. Out:
//! leave to resume at Discord and to publish, for shards whose owner might be another by now: a process that was frozen
//! knows nothing of it.

use std::time::{Duration, Instant};

use tokio::{sync::watch, time::timeout};

/// How long a shard whose connection has ended waits for a store that is away. Discord holds a session for some minutes;
/// should another replica have the shard after all, it takes the session back at once.
const STORE_AWAY: Duration = Duration::from_secs(60);

/// When leases were looked after, for all of this replica's shards.
pub(crate) struct Tenure {
    latest: watch::Sender<Latest>,
    expiry: Duration,
}

#[derive(Clone, Copy)]
struct Latest {
    /// When the store was asked last, and either answered or didn't.
    asked: Instant,
    /// When the latest request was sent that it has answered.
    answered: Instant,
}

impl Tenure {
    /// With leases that hold for `expiry`; they are fresh.
    pub(crate) fn new(expiry: Duration) -> Self {
        let now = Instant::now();
        Self { latest: watch::Sender::new(Latest { asked: now, answered: now }), expiry }
    }

    /// All leases that aren't lost are ours for one expiry from `sent` on.
    pub(super) fn renewed(&self, sent: Instant) {
        self.latest.send_replace(Latest { asked: Instant::now(), answered: sent });
    }

    /// The store is away.
    pub(super) fn unanswered(&self) {
        self.latest.send_modify(|latest| latest.asked = Instant::now());
    }

    /// Waits until no other replica can have resumed our sessions without our knowing; with a store that stays away,
    /// not for ever.
    pub(super) async fn is_certain(&self) {
        let mut latest = self.latest.subscribe();
        let certain = latest.wait_for(|latest| latest.answered.elapsed() < self.expiry);
        let _ = timeout(STORE_AWAY, certain).await;
    }

    /// Waits until the store was asked of late: at once unless the process stood still. Owners publish on while the
    /// store is away.
    pub(super) async fn is_attended(&self) {
        // The sender is ours: it doesn't go before we do.
        let _ = self.latest.subscribe().wait_for(|latest| latest.asked.elapsed() < self.expiry).await;
    }
}
