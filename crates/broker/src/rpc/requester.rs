// SPDX-License-Identifier: AGPL-3.0-only
//! Asks. In: a request and how long it may take. Out: one reply, or several up to the one that is the last.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::replies::{REPLY_TO, Waiting};
use crate::broker::Broker;
use crate::error::RequestError;
use crate::message::{Message, Publication};

/// Replies to one request that have come and were not yet asked for. A guild of a million members answers a request for
/// them with 1,000 chunks.
const ROOM: usize = 1024;

/// Sends requests, so many at a time. Clones share that bound.
#[derive(Debug, Clone)]
pub struct Requester {
    broker: Broker,
    slots: Arc<Semaphore>,
}

/// The replies to one request, as they come.
pub struct Answers {
    waiting: Waiting,
    deadline: Instant,
    is_last: Box<dyn FnMut(&Message) -> bool + Send>,
    ended: bool,
    broker: Broker,
    _slot: OwnedSemaphorePermit,
}

impl Requester {
    pub(crate) fn new(broker: Broker, in_flight: usize) -> Self {
        Self { broker, slots: Arc::new(Semaphore::new(in_flight)) }
    }

    /// Asks for one reply.
    ///
    /// # Errors
    /// Nobody is there, nobody answers in time, too many requests are under way, the connection ends meanwhile.
    pub async fn request(&self, request: Publication, within: Duration) -> Result<Message, RequestError> {
        let mut answers = self.request_many(request, within, |_| true).await?;
        answers.next().await.unwrap_or(Err(RequestError::TimedOut))
    }

    /// Asks for replies up to the one that `is_last` says is the last.
    ///
    /// # Errors
    /// As [`Requester::request`], as far as it is known by the time that the broker has the request.
    pub async fn request_many(
        &self,
        request: Publication,
        within: Duration,
        is_last: impl FnMut(&Message) -> bool + Send + 'static,
    ) -> Result<Answers, RequestError> {
        let asked = self.ask(request, within, Box::new(is_last)).await;
        if asked.is_err() {
            self.broker.metrics().requests_failed.inc();
        }
        asked
    }

    async fn ask(
        &self,
        mut request: Publication,
        within: Duration,
        is_last: Box<dyn FnMut(&Message) -> bool + Send>,
    ) -> Result<Answers, RequestError> {
        self.broker.metrics().requests.inc();
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| RequestError::Busy)?;
        let deadline = Instant::now() + within;
        let waiting = self.broker.replies().wait(ROOM);
        let properties = &mut request.message.properties;
        properties.correlation_id = Some(waiting.id.clone().into());
        properties.reply_to = Some(REPLY_TO.into());
        properties.expiration = Some(within.max(Duration::from_millis(1)));
        let published = timeout_at(deadline, self.broker.publish(request.mandatory())).await;
        published.map_err(|_| RequestError::TimedOut)??;
        let broker = self.broker.clone();
        Ok(Answers { waiting, deadline, is_last, ended: false, broker, _slot: slot })
    }
}

impl Answers {
    /// The next reply; `None` after the last, or after an error.
    pub async fn next(&mut self) -> Option<Result<Message, RequestError>> {
        if self.ended {
            return None;
        }
        let reply = match timeout_at(self.deadline, self.waiting.replies.recv()).await {
            Ok(Some(reply)) => reply,
            // Whoever brings replies has let go of this request.
            Ok(None) => Err(RequestError::Overrun),
            Err(_) => Err(RequestError::TimedOut),
        };
        self.ended = reply.as_ref().map_or(true, |message| (self.is_last)(message));
        if reply.is_err() {
            self.broker.metrics().requests_failed.inc();
        }
        Some(reply)
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers")
            .field("id", &self.waiting.id)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
