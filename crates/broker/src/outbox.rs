// SPDX-License-Identifier: AGPL-3.0-only
//! Messages that are published one by one, each with its own outcome: requests, replies, dead letters. In: messages
//! from anybody. Out: what became of each.

use tokio::sync::{mpsc, oneshot};

use crate::error::PublishError;
use crate::message::Publication;

/// Messages that wait for the task that publishes. When it is full, those who publish wait.
const WAITING: usize = 256;

/// A message with somebody who wants to know what became of it.
pub(crate) struct Job {
    pub(crate) publication: Publication,
    pub(crate) outcome: oneshot::Sender<Result<(), PublishError>>,
}

/// Takes messages. Clones share the queue.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    jobs: mpsc::Sender<Job>,
}

impl Outbox {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, taken) = mpsc::channel(WAITING);
        (Self { jobs }, taken)
    }

    /// Publishes a message and waits for its outcome. Dropped before the message's turn has come, it isn't published.
    pub(crate) async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        let (outcome, told) = oneshot::channel();
        self.jobs.send(Job { publication, outcome }).await.map_err(|_| PublishError::Closed)?;
        told.await.unwrap_or(Err(PublishError::Closed))
    }
}
