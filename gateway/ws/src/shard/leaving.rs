// SPDX-License-Identifier: AGPL-3.0-only
//! When a shard that is told to stop leaves its connection: not at once. In: that it is told, what there is to prepare
//! while events still come. Out: the moment to go. Owned by the shard's task, for one connection.

use std::{future::pending, pin::Pin, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

/// READY is waited for that long, if IDENTIFY has been sent: leaving before it costs an IDENTIFY more, of which a day
/// has so many. The same bounds what is prepared.
pub(crate) const LEAVE_WITHIN: Duration = Duration::from_secs(4);

type Preparing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Leaving {
    begun: Option<(Instant, Preparing)>,
}

impl Leaving {
    /// Whether the shard has been told to stop.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// The shard is told to stop, within a time; this is to be done before.
    pub(super) fn begin(&mut self, within: Duration, preparing: impl Future<Output = ()> + Send + 'static) {
        let until = Instant::now() + within;
        let bounded = async move {
            // What isn't done by then is done after the connection's end, or by the next owner.
            let _ = timeout_at(until, preparing).await;
        };
        self.begun = Some((until, Box::pin(bounded)));
    }

    /// Waits for the moment to go; for ever, where nobody has told so. Cancel-safe.
    pub(super) async fn is_due(&mut self, awaits_ready: bool) {
        match &mut self.begun {
            None => pending().await,
            Some((until, _)) if awaits_ready => sleep_until(*until).await,
            Some((_, preparing)) => preparing.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn nobody_leaves_before_it_is_told() {
        let mut leaving = Leaving::default();
        assert!(tokio::time::timeout(10 * WITHIN, leaving.is_due(false)).await.is_err());
        leaving.begin(WITHIN, async {});
        assert!(leaving.is_due(false).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn ready_is_waited_for_but_not_for_ever() {
        let mut leaving = Leaving::default();
        leaving.begin(WITHIN, async {});
        let begun = Instant::now();
        // Looked at again and again, as the shard's task does.
        while tokio::time::timeout(WITHIN / 10, leaving.is_due(true)).await.is_err() {}
        assert_eq!(begun.elapsed(), WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_prepared_goes_on_while_it_is_not_looked_at_and_has_an_end() {
        let mut leaving = Leaving::default();
        leaving.begin(WITHIN, tokio::time::sleep(WITHIN / 2));
        let begun = Instant::now();
        while tokio::time::timeout(WITHIN / 10, leaving.is_due(false)).await.is_err() {}
        assert_eq!(begun.elapsed(), WITHIN / 2);
        let mut stuck = Leaving::default();
        stuck.begin(WITHIN, pending::<()>());
        let begun = Instant::now();
        stuck.is_due(false).await;
        assert_eq!(begun.elapsed(), WITHIN);
    }
}
