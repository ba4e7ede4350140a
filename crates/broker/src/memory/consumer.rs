// SPDX-License-Identifier: AGPL-3.0-only
//! Receives from a queue in memory.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::Shared;
use super::queue::ChannelId;
use crate::consumer::{ConsumerOptions, Delivery, Home, Settle as AnySettle};

/// See [`crate::Consumer`].
pub(crate) struct Consumer {
    channel: Arc<Channel>,
    options: ConsumerOptions,
    home: Arc<Home>,
    shutdown: CancellationToken,
}

/// Somebody who receives, with what was delivered to them. When it goes, that goes back.
#[derive(Debug)]
struct Channel {
    shared: Arc<Shared>,
    queue: String,
    id: ChannelId,
}

/// Settles one delivery.
#[derive(Debug)]
pub(crate) struct Settle {
    channel: Arc<Channel>,
    tag: u64,
}

impl Consumer {
    pub(super) fn new(
        shared: &Arc<Shared>,
        options: ConsumerOptions,
        home: Arc<Home>,
        shutdown: CancellationToken,
    ) -> Self {
        let id = shared.lock().channel();
        let channel = Channel { shared: Arc::clone(shared), queue: options.queue.clone(), id };
        Self { channel: Arc::new(channel), options, home, shutdown }
    }

    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        let signal = self.channel.shared.lock().signal(&self.options.queue);
        loop {
            let mut something = std::pin::pin!(signal.notified());
            // From here on nothing is missed.
            something.as_mut().enable();
            if self.shutdown.is_cancelled() {
                return None;
            }
            if let Some(delivery) = self.take() {
                return Some(delivery);
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                () = something => {}
            }
        }
    }

    fn take(&self) -> Option<Delivery> {
        let Channel { shared, queue, id } = &*self.channel;
        let prefetch = self.options.prefetch.max(1);
        let handed = shared.lock().deliver(queue, *id, prefetch, self.options.exclusive, Instant::now())?;
        shared.metrics.delivered.inc();
        let redelivered = handed.stored.is_redelivered();
        let (exchange, key, message) = (handed.stored.exchange, handed.stored.key, handed.stored.message);
        let settle = AnySettle::Memory(Settle { channel: Arc::clone(&self.channel), tag: handed.tag });
        Some(Delivery { exchange, key, redelivered, message, settle, home: Arc::clone(&self.home) })
    }
}

impl Settle {
    pub(crate) fn ack(self, multiple: bool) {
        let Channel { shared, queue, id } = &*self.channel;
        let acked = shared.lock().ack(queue, *id, self.tag, multiple);
        self.channel.count(acked);
    }

    pub(crate) fn requeue(self) {
        let Channel { shared, queue, .. } = &*self.channel;
        let held = shared.lock().requeue(queue, self.tag, Instant::now());
        self.channel.count(held);
    }
}

impl Channel {
    fn count(&self, settled: bool) {
        if !settled {
            self.shared.metrics.stale_settlements.inc();
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.shared.lock().leave(&self.queue, self.id, Instant::now());
    }
}
