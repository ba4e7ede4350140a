// SPDX-License-Identifier: AGPL-3.0-only
//! One ordered stream of messages with positions, for a reader of a log with a durable cursor. In: batches. Out: the
//! highest position up to which everything is done, and where to go on after a failure.
//!
//! The stream has epochs. A failure ends one: whatever of it is not yet sent is dropped, the caller is told once, and
//! sends everything above the confirmed position again. So nothing is ever published behind something that failed.

use std::fmt;

use tokio::sync::{mpsc, watch};

use crate::error::{Cause, Unsendable};
use crate::message::Publication;

/// Batches between the caller and the task that publishes. One is being published while the next waits; the log
/// behind the caller is the true queue.
const BATCHES: usize = 1;

/// Bounds of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublisherOptions {
    /// Most messages that are sent and not yet confirmed. 1,024 reach what the broker can take; a lost connection
    /// repeats up to as many.
    pub window: usize,
    /// Most bytes of bodies that are sent and not yet confirmed. The library holds a copy of each; one message is
    /// always let through.
    pub window_bytes: usize,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self { window: 1024, window_bytes: 16 * 1024 * 1024 }
    }
}

/// A message with its place in the stream. Positions rise; they may leave numbers out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positioned {
    /// The place.
    pub position: u64,
    /// The message.
    pub publication: Publication,
}

/// A message that is done without having reached a queue. It is told to [`Observer`] and counts as confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// Where it was to go.
    pub exchange: String,
    /// Its routing key.
    pub key: String,
    /// Its name (AMQP's `type`).
    pub kind: Option<String>,
    /// Why.
    pub reason: Reason,
}

/// Why a message reached no queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It was mandatory, and no queue is bound for it.
    Unrouted,
    /// It can't be sent.
    Unsendable(Unsendable),
}

/// Is told of every message that reached no queue. Runs within the publishing task: it counts, and returns.
pub type Observer = Box<dyn Fn(&Undelivered) + Send + Sync>;

/// The stream has to go on from its first unconfirmed message: send everything above `confirmed` again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("go on after position {}: {cause}", .confirmed.map_or("none".to_owned(), |position| position.to_string()))]
pub struct Interrupted {
    /// The highest position up to which everything is done; `None` if nothing is.
    pub confirmed: Option<u64>,
    /// What happened.
    pub cause: Cause,
}

/// Why a stream doesn't take a batch, or doesn't get further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Send again from the first unconfirmed message. The stream itself goes on.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The process is ending.
    #[error("the process is ending")]
    Closed,
}

/// How far a stream is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) confirmed: Option<u64>,
    pub(crate) epoch: u64,
    pub(crate) cause: Option<Cause>,
}

/// Messages of one epoch.
pub(crate) struct Batch {
    pub(crate) epoch: u64,
    pub(crate) messages: Vec<Positioned>,
}

/// The caller's side of a stream. Publishing itself is a task of its own behind a queue of one batch, so that a broker
/// that takes nothing holds up nobody: [`OrderedPublisher::send_batch`] can be given up at any time.
pub struct OrderedPublisher {
    batches: mpsc::Sender<Batch>,
    progress: watch::Receiver<Progress>,
    epoch: u64,
    /// What [`OrderedPublisher::progressed`] gave last.
    told: Option<u64>,
}

/// The publishing task's side.
pub(crate) struct Intake {
    pub(crate) batches: mpsc::Receiver<Batch>,
    progress: watch::Sender<Progress>,
    pub(crate) observer: Observer,
    pub(crate) options: PublisherOptions,
}

/// Both sides of a new stream.
pub(crate) fn stream(options: PublisherOptions, observer: Observer) -> (OrderedPublisher, Intake) {
    let (sender, batches) = mpsc::channel(BATCHES);
    let (progress, watched) = watch::channel(Progress::default());
    let publisher = OrderedPublisher { batches: sender, progress: watched, epoch: 0, told: None };
    let options = PublisherOptions { window: options.window.max(1), ..options };
    (publisher, Intake { batches, progress, observer, options })
}

impl OrderedPublisher {
    /// Gives one message to the stream.
    ///
    /// # Errors
    /// See [`OrderedPublisher::send_batch`].
    pub async fn send(&mut self, message: Positioned) -> Result<(), StreamError> {
        self.send_batch(vec![message]).await
    }

    /// Gives messages to the stream, in the order of their positions. Waits while the window is full, the broker takes
    /// nothing, or there is no connection; may be dropped while it waits, and then none of them is sent.
    ///
    /// # Errors
    /// The stream was interrupted since the last call: none of these messages is sent. Or the process is ending.
    pub async fn send_batch(&mut self, messages: Vec<Positioned>) -> Result<(), StreamError> {
        let permit = loop {
            self.look()?;
            tokio::select! {
                biased;
                changed = self.progress.changed() => changed.map_err(|_| StreamError::Closed)?,
                permit = self.batches.reserve() => break permit.map_err(|_| StreamError::Closed)?,
            }
        };
        permit.send(Batch { epoch: self.epoch, messages });
        Ok(())
    }

    /// The highest position up to which everything is done: confirmed by the broker, or told to the [`Observer`].
    #[must_use]
    pub fn confirmed(&self) -> Option<u64> {
        self.progress.borrow().confirmed
    }

    /// Waits until more is done than when it was last asked, and gives the new [`OrderedPublisher::confirmed`].
    ///
    /// # Errors
    /// As [`OrderedPublisher::send_batch`].
    pub async fn progressed(&mut self) -> Result<Option<u64>, StreamError> {
        loop {
            self.look()?;
            let confirmed = self.confirmed();
            if confirmed != self.told {
                self.told = confirmed;
                return Ok(confirmed);
            }
            self.progress.changed().await.map_err(|_| StreamError::Closed)?;
        }
    }

    /// Waits until everything up to `position` is done.
    ///
    /// # Errors
    /// As [`OrderedPublisher::send_batch`].
    pub async fn confirmed_through(&mut self, position: u64) -> Result<(), StreamError> {
        while self.confirmed().is_none_or(|confirmed| confirmed < position) {
            self.progressed().await?;
        }
        Ok(())
    }

    /// Tells of an interruption once, and goes over to the new epoch.
    fn look(&mut self) -> Result<(), StreamError> {
        let progress = self.progress.borrow();
        if progress.epoch == self.epoch {
            return Ok(());
        }
        self.epoch = progress.epoch;
        let cause = progress.cause.clone().unwrap_or(Cause::Nacked);
        Err(Interrupted { confirmed: progress.confirmed, cause }.into())
    }
}

impl fmt::Debug for OrderedPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderedPublisher").field("progress", &*self.progress.borrow()).finish()
    }
}

impl Intake {
    /// Everything up to `position` is done.
    pub(crate) fn confirm(&self, position: u64) {
        self.progress.send_modify(|progress| progress.confirmed = Some(position));
    }

    /// Ends the epoch; gives the new one.
    pub(crate) fn interrupt(&self, cause: Cause) -> u64 {
        let mut epoch = 0;
        self.progress.send_modify(|progress| {
            progress.epoch += 1;
            progress.cause = Some(cause);
            epoch = progress.epoch;
        });
        epoch
    }

    pub(crate) fn undelivered(&self, undelivered: &Undelivered) {
        (self.observer)(undelivered);
    }
}

impl Undelivered {
    /// Of a message that can't be sent.
    pub(crate) fn unsendable(publication: &Publication, why: Unsendable) -> Self {
        Self {
            exchange: publication.exchange.to_string(),
            key: publication.key.to_string(),
            kind: publication.message.properties.kind.as_ref().map(ToString::to_string),
            reason: Reason::Unsendable(why),
        }
    }
}
