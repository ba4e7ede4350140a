// SPDX-License-Identifier: AGPL-3.0-only
//! Brings replies to those who wait for them, by correlation id. Fed by the connection that replies come in on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::error::RequestError;
use crate::message::Message;

/// What a request names as the queue for its replies; RabbitMQ puts a name of the caller's own in its place.
pub(crate) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// What comes back to one request.
pub(crate) type Reply = Result<Message, RequestError>;

/// All requests of one broker that wait for a reply. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replies {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<HashMap<String, mpsc::Sender<Reply>>>,
    next: AtomicU64,
}

/// A place among the waiting; given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) id: String,
    pub(crate) replies: mpsc::Receiver<Reply>,
    shared: Arc<Shared>,
}

impl Replies {
    /// Begins to wait, with room for so many replies that are not yet asked for.
    pub(crate) fn wait(&self, room: usize) -> Waiting {
        // A number alone would meet the replies to a process that had this one's place before.
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}-{number}", fastrand::u64(..));
        let (sender, replies) = mpsc::channel(room);
        self.shared.lock().insert(id.clone(), sender);
        Waiting { id, replies, shared: Arc::clone(&self.shared) }
    }

    /// Brings a reply. One that nobody waits for any more is dropped; one that isn't asked for in time ends its request.
    pub(crate) fn deliver(&self, message: Message) {
        let Some(id) = message.properties.correlation_id.as_deref() else { return };
        let mut waiting = self.shared.lock();
        let Some(sender) = waiting.get(id) else { return };
        if sender.try_send(Ok(message.clone())).is_err() {
            waiting.remove(id);
        }
    }

    /// Nobody gets a reply any more: the connection that they come in on has ended.
    pub(crate) fn fail(&self, error: &RequestError) {
        for (_, sender) in self.shared.lock().drain() {
            // Whoever has not asked for what came before learns it from the end of the channel.
            let _ = sender.try_send(Err(error.clone()));
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.lock().remove(&self.id);
    }
}
