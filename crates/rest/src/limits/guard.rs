// SPDX-License-Identifier: AGPL-3.0-only
//! What Discord doesn't want to see again: the guard against the ban of an address, and webhooks that are gone. In: answers
//! of 401, 403, 404 and 429. Out: who has to wait, who is refused. Part of the limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_cluster::RestStore;
use holdfast_discord::rest::Standing;

use super::metrics::Cause;
use super::{Inner, Refusal, lock};

/// Webhooks that are remembered as gone, the oldest forgotten first: 16 bytes each.
const GONE: usize = 65_536;

/// As whoever asks is told of it.
pub(super) fn refusal(standing: Standing, now: Duration) -> Refusal {
    match standing {
        Standing::Banned(until) => Refusal::Banned { retry_after: until.saturating_sub(now) },
        Standing::Stop(until) | Standing::Brake(until) => {
            Refusal::Guarded { retry_after: until.saturating_sub(now) }
        }
        Standing::Open => Refusal::Guarded { retry_after: Duration::ZERO },
    }
}

impl Inner {
    /// Waits while the guard brakes.
    pub(super) async fn pass_guard(&self, deadline: Duration) -> Result<(), Refusal> {
        let begun = self.clock.now();
        let mut now = begun;
        loop {
            let standing = lock(&self.guard).ask(now);
            let until = match standing {
                Standing::Open if now == begun => return Ok(()),
                Standing::Open => {
                    self.metrics.waited(Cause::Guard, now - begun);
                    return Ok(());
                }
                Standing::Brake(until) if until <= deadline => until,
                standing => return Err(refusal(standing, now)),
            };
            tokio::time::sleep_until(self.clock.at(until)).await;
            now = self.clock.now().max(until);
        }
    }

    pub(super) fn is_gone(&self, major: u64, now: Duration) -> bool {
        lock(&self.gone).get(&major).is_some_and(|until| now < *until)
    }

    pub(super) fn note_gone(&self, major: u64) {
        let (mut gone, now) = (lock(&self.gone), self.clock.now());
        if gone.len() >= GONE {
            gone.retain(|_, until| now < *until);
        }
        if gone.len() < GONE {
            gone.insert(major, now + self.settings.webhook_gone_for);
        }
    }

    pub(super) fn count_invalid(&self) {
        let (mut guard, now) = (lock(&self.guard), self.clock.now());
        guard.count(now);
        self.untold.fetch_add(1, Ordering::Relaxed);
        self.metrics.invalid.set(i64::from(guard.invalid(now)));
    }

    /// Twice a second, lets old invalid requests go, tells the store of new ones, and hears of others'.
    ///
    /// It also keeps a time near at which the runtime looks at its timers anyway: without one, each request's own time
    /// limit would be the nearest, and would wake another thread only to be noted (a third of a request's CPU time).
    pub(super) async fn follow_invalid(self: Arc<Self>) {
        loop {
            let heard = match &self.store {
                Some(store) => self.share_invalid(store).await,
                None => None,
            };
            {
                let (mut guard, now) = (lock(&self.guard), self.clock.now());
                if let Some(all) = heard {
                    guard.heard(all, now);
                }
                self.metrics.invalid.set(i64::from(guard.invalid(now)));
            }
            tokio::select! { biased;
                () = self.tasks.token().cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    /// How many all senders at this address have had, if the store can say.
    async fn share_invalid(&self, store: &RestStore) -> Option<u32> {
        let more = self.untold.swap(0, Ordering::Relaxed);
        let all = store.invalid(&self.settings.egress, more).await.ok();
        if all.is_none() {
            // It is told when the store is back.
            self.untold.fetch_add(more, Ordering::Relaxed);
        }
        self.metrics.store_connected.set(i64::from(store.is_connected()));
        all
    }
}
