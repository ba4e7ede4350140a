// SPDX-License-Identifier: AGPL-3.0-only
//! Server-sent events: the latest of something comes in now and then, and goes out to all who watch. A watcher that
//! reads slowly gets the latest when it is ready for it; nothing is queued but that. Whoever makes the feed tells it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What watchers count as. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FeedMetrics {
    /// Who watches now.
    pub watchers: Gauge,
    /// Who wanted to and found no place.
    pub refused: Counter,
}

/// See the module. Clones share the watchers.
#[derive(Clone)]
pub struct Feed {
    latest: watch::Sender<Bytes>,
    places: Arc<Semaphore>,
    metrics: FeedMetrics,
}

/// A watcher's place: given back when its connection ends.
struct Watcher {
    latest: watch::Receiver<Bytes>,
    watchers: Gauge,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// A feed for so many watchers at once.
    #[must_use]
    pub fn new(places: usize, metrics: FeedMetrics) -> Self {
        Self { latest: watch::Sender::default(), places: Arc::new(Semaphore::new(places)), metrics }
    }

    /// Whether anybody watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.latest.receiver_count() > 0
    }

    /// Tells all who watch. `data` is one line: what JSON is without line breaks.
    pub fn tell(&self, data: &str) {
        self.latest.send_replace(Bytes::from(format!("data: {data}\n\n")));
    }

    /// What a new watcher gets, from the next that is told on; none when all places are taken.
    pub fn watch(&self) -> Option<impl Stream<Item = Bytes> + Send + use<>> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.refused.inc();
            return None;
        };
        self.metrics.watchers.inc();
        let watchers = self.metrics.watchers.clone();
        let watcher = Watcher { latest: self.latest.subscribe(), watchers, _place: place };
        Some(unfold(watcher, |mut watcher| async move {
            watcher.latest.changed().await.ok()?;
            let event = watcher.latest.borrow_and_update().clone();
            Some((event, watcher))
        }))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watchers.dec();
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("watchers", &self.latest.receiver_count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_slow_watcher_gets_the_latest_and_no_backlog() {
        let feed = Feed::new(1, FeedMetrics::default());
        feed.tell("before");
        let mut events = Box::pin(feed.watch().expect("a place"));
        feed.tell("1");
        feed.tell("2");
        assert_eq!(events.next().await.expect("told"), "data: 2\n\n");
        let next = futures_util::future::join(events.next(), async { feed.tell("3") });
        assert_eq!(next.await.0.expect("told"), "data: 3\n\n");
    }

    #[tokio::test]
    async fn places_are_bounded_and_given_back() {
        let metrics = FeedMetrics::default();
        let feed = Feed::new(1, metrics.clone());
        assert!(!feed.is_watched());
        let watcher = feed.watch().expect("a place");
        assert!(feed.is_watched() && feed.watch().is_none());
        assert_eq!((metrics.watchers.get(), metrics.refused.get()), (1, 1));
        drop(watcher);
        assert!(!feed.is_watched() && feed.watch().is_some());
        assert_eq!((metrics.watchers.get(), metrics.refused.get()), (0, 1));
    }
}
