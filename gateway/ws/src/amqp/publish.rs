// SPDX-License-Identifier: AGPL-3.0-only
//! The task that publishes one shard's log. In: wakes, what the broker confirms. Out: batches for the ordered
//! publisher, and the stored cursor. Owns both; ends with the service.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_broker::{OrderedPublisher, Positioned, PublisherOptions, Reason, StreamError, Undelivered};
use holdfast_cluster::CursorRecord;
use holdfast_contract::GAP;
use tokio::{select, sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Amqp,
    cursor::Cursor,
    envelope::Envelope,
    lag::{Lag, SHOW_EVERY},
    metrics::Event,
    settings::Outage,
    source::{LeftOut, Next, Source, read_disk},
};
use crate::{
    fleet::Records,
    log::DiskRead,
    shard::{Hub, Reader},
};

/// Name of the cursor among the shard's records.
pub(crate) const READER: &str = "amqp";
/// How often the cursor is stored while it moves: what a crash takes is published again.
const STORE_EVERY: Duration = Duration::from_millis(250);
/// What a drain waits for confirmations.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// A pause before the disk is tried again.
const DISK_AGAIN: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Publishing {
    amqp: Arc<Amqp>,
    source: Source,
    publisher: OrderedPublisher,
    cursor: Cursor,
    store: Records,
    stored: CursorRecord,
    stored_at: Instant,
    lag: Lag,
}

/// Wakes the task; a wake that comes while it works is kept.
struct Wakes(Notify);

impl Reader for Wakes {
    fn wake(&self, _: bool) {
        self.0.notify_one();
    }
}

impl Publishing {
    pub(super) fn new(amqp: &Arc<Amqp>, hub: &Arc<Hub>, store: Records, shards: usize) -> Self {
        let settings = amqp.settings.clone();
        let mut core = hub.core();
        // A new reader begins with what comes: what came before it wasn't promised to anybody.
        let fresh = CursorRecord { stream: core.log.stream(), position: core.log.last() };
        let stored = store.load_cursor(READER).unwrap_or_else(|| {
            // At once: what comes from here on is promised, also if we are killed before the first confirmation.
            store.save_cursor(READER, &fresh);
            fresh
        });
        core.published = Some(stored);
        core.leaves_backlog = settings.outage == Outage::Disconnect;
        drop(core);
        let options = PublisherOptions {
            window: settings.confirm_window,
            window_bytes: usize::try_from(settings.confirm_bytes).unwrap_or(usize::MAX) / shards.max(1),
        };
        let observed = Arc::clone(amqp);
        let publisher =
            amqp.broker.publisher(options, Box::new(move |undelivered| observed.undelivered(undelivered)));
        let envelope = Envelope {
            exchange: amqp.broker.names().events().into(),
            shard: hub.shard,
            shard_count: hub.total,
            application: 0,
            generation: hub.generation,
        };
        Self {
            amqp: Arc::clone(amqp),
            source: Source::new(Arc::clone(hub), settings, envelope, amqp.max_bytes),
            lag: Lag::new(amqp, hub),
            publisher,
            cursor: Cursor::new(stored),
            store,
            stored,
            stored_at: Instant::now(),
        }
    }

    /// Publishes until the service stops; then waits a moment for what is under way.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let wakes = Arc::new(Wakes(Notify::new()));
        let reader = Arc::clone(&wakes) as Arc<dyn Reader>;
        self.source.hub.readers.join(Arc::clone(&reader));
        if self.may_publish(&stop).await && self.is_open(&wakes, &stop).await {
            while !stop.is_cancelled() {
                self.step(&wakes, &stop).await;
            }
            // What is left of a shard that is another replica's by now is published by that one.
            if !self.store.is_lost() {
                let _ = timeout(CONFIRM_WITHIN, self.finish()).await;
            }
            self.note();
            self.store_cursor();
        }
        self.source.hub.readers.leave(&reader);
    }

    /// Waits until messages may be published. False: the service stops.
    async fn may_publish(&mut self, stop: &CancellationToken) -> bool {
        let mut declared = self.amqp.declared.subscribe();
        loop {
            self.lag.show(self.cursor.confirmed());
            select! { biased;
                () = stop.cancelled() => return false,
                // The sender is ours: it doesn't go before we do.
                _ = declared.wait_for(|declared| *declared) => return true,
                () = tokio::time::sleep(SHOW_EVERY) => {}
            }
        }
    }

    /// Waits until the shard is one of the bot's count, and begins where it took over. False: the service stops.
    async fn is_open(&mut self, wakes: &Wakes, stop: &CancellationToken) -> bool {
        while !self.begins() {
            if stop.run_until_cancelled(wakes.0.notified()).await.is_none() {
                return false;
            }
        }
        true
    }

    /// False: the shard is of a count that is yet to come.
    fn begins(&mut self) -> bool {
        let hub = Arc::clone(&self.source.hub);
        let core = hub.core();
        if core.is_warming() {
            return false;
        }
        if let (Some(opened), Some(gate)) = (&core.opened, core.published) {
            self.source.opened = Some(Arc::clone(opened));
            self.cursor = Cursor::new(gate);
        }
        true
    }

    /// One batch, or one wait.
    async fn step(&mut self, wakes: &Wakes, stop: &CancellationToken) {
        self.note();
        if stop.run_until_cancelled(self.store.may_publish()).await.is_none() {
            return;
        }
        let before = self.cursor.clone();
        match self.source.next(&mut self.cursor) {
            Next::Batch(batch) if batch.is_empty() => {}
            Next::Batch(batch) => {
                self.count(&batch);
                match self.send(batch, stop).await {
                    Some(sent) => self.sent(sent),
                    // This batch wasn't taken; those before it are still waited for.
                    None => self.cursor = before,
                }
            }
            Next::Disk(read) => self.read_disk(read).await,
            Next::Nothing | Next::NotReady => select! { biased;
                () = stop.cancelled() => {}
                () = wakes.0.notified() => {}
                progressed = self.publisher.progressed() => self.sent(progressed.map(|_| ())),
                () = tokio::time::sleep(STORE_EVERY), if self.cursor.record() != self.stored => {}
            },
        }
    }

    /// Gives a batch to the publisher, which takes it as soon as the broker does. None: the service stops.
    async fn send(
        &mut self,
        batch: Vec<Positioned>,
        stop: &CancellationToken,
    ) -> Option<Result<(), StreamError>> {
        let mut sending = std::pin::pin!(self.publisher.send_batch(batch));
        loop {
            select! { biased;
                () = stop.cancelled() => return None,
                sent = &mut sending => return Some(sent),
                () = tokio::time::sleep(SHOW_EVERY) => self.lag.show(self.cursor.confirmed()),
            }
        }
    }

    fn sent(&mut self, outcome: Result<(), StreamError>) {
        let Err(error) = outcome else { return };
        if let StreamError::Interrupted(interrupted) = error {
            warn!(shard = self.source.hub.shard, cause = %interrupted.cause, "publishing goes on from what is confirmed");
            self.cursor.confirm(interrupted.confirmed);
            self.cursor.rewind();
            self.source.disk = None;
        }
    }

    /// Takes over what the broker has confirmed.
    fn note(&mut self) {
        self.cursor.confirm(self.publisher.confirmed());
        self.source.hub.core().published = Some(self.cursor.record());
        self.lag.show(self.cursor.confirmed());
        if self.stored_at.elapsed() >= STORE_EVERY {
            self.store_cursor();
        }
    }

    fn store_cursor(&mut self) {
        self.stored_at = Instant::now();
        let record = self.cursor.record();
        if record != self.stored {
            self.store.save_cursor(READER, &record);
            self.stored = record;
        }
    }

    fn count(&mut self, batch: &[Positioned]) {
        let LeftOut { unsendable, lost } = std::mem::take(&mut self.source.left_out);
        self.amqp.metrics.unsendable.inc_by(unsendable);
        self.amqp.metrics.lost.inc_by(lost);
        for message in batch {
            let publication = &message.publication;
            match name_of(&publication.key) {
                GAP => self.amqp.metrics.gaps.inc(),
                name => self.amqp.metrics.events.get_or_create(&Event { event: name.to_owned() }).inc(),
            };
        }
    }

    async fn read_disk(&mut self, read: DiskRead) {
        match tokio::task::spawn_blocking(move || read_disk(read)).await {
            Ok(Ok(run)) => self.source.disk = run,
            Ok(Err(error)) => {
                warn!(%error, "the log can't be read from disk: trying again");
                tokio::time::sleep(DISK_AGAIN).await;
            }
            Err(_) => {}
        }
    }

    /// Publishes what is left of the log, and waits until it is confirmed.
    async fn finish(&mut self) {
        loop {
            self.note();
            let sent = match self.source.next(&mut self.cursor) {
                Next::Batch(batch) if batch.is_empty() => Ok(()),
                Next::Batch(batch) => {
                    self.count(&batch);
                    self.publisher.send_batch(batch).await
                }
                Next::Disk(read) => {
                    self.read_disk(read).await;
                    Ok(())
                }
                Next::Nothing | Next::NotReady if self.cursor.confirmed() >= self.cursor.position() => break,
                Next::Nothing | Next::NotReady => self.publisher.progressed().await.map(|_| ()),
            };
            if matches!(sent, Err(StreamError::Closed)) {
                break;
            }
            self.sent(sent);
        }
        info!(shard = self.source.hub.shard, position = self.cursor.confirmed(), "published up to here");
    }
}

impl Amqp {
    /// A message that no queue got.
    fn undelivered(&self, undelivered: &Undelivered) {
        match &undelivered.reason {
            Reason::Unrouted => {
                self.metrics
                    .unrouted
                    .get_or_create(&Event { event: name_of(&undelivered.key).to_owned() })
                    .inc();
            }
            Reason::Unsendable(why) => {
                self.metrics.unsendable.inc();
                warn!(%why, key = undelivered.key, "an event can't be published");
            }
        }
    }
}

/// The event's name in a routing key.
fn name_of(key: &str) -> &str {
    key.split('.').next().unwrap_or_default()
}
