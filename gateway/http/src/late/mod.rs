// SPDX-License-Identifier: AGPL-3.0-only
//! Replies that come after Discord was told to wait: sent as an edit of the deferred message or as one that follows it,
//! through the limits that all services share. In: replies, from whoever still listens and from the queue of late ones,
//! which outlives this process. Out: requests to Discord.

mod queue;
mod request;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use holdfast_contract::v1::{Error, ErrorCode, ReplyOutcome};
use holdfast_rest::Forwarder;
use holdfast_service::Tasks;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub use queue::exchanges;
pub(crate) use queue::run;

use crate::reply::Raw;
use crate::seen::{Claim, Claimed, Key, Seen};
use crate::ticket::{Deferral, Ticket};

/// Discord has our deferral this long after it was sent, or never: it waits for 3 s. An edit before that would be of a
/// message that isn't there, and taken for one by a webhook that is gone.
pub(crate) const DEFERRED_BY: Duration = Duration::from_secs(1);
/// A second reply to an interaction that was answered comes within this time, from a worker that has died and come back.
const STRAGGLERS: Duration = Duration::from_secs(15 * 60);
/// How often it is looked what became of another reply.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// See the module's documentation.
pub(crate) struct Late {
    forwarder: Forwarder,
    /// Interactions that have been answered.
    answered: Seen,
    /// Those whose reply this process waits for.
    listening: Mutex<HashMap<Key, CancellationToken>>,
    max_reply: usize,
}

/// Somebody listens for the reply to an interaction, until it is dropped.
pub(crate) struct Listening {
    late: Arc<Late>,
    key: Key,
    /// The reply has come by another way.
    pub(crate) ended: CancellationToken,
}

impl Late {
    pub(crate) fn new(forwarder: Forwarder, answered: Seen, max_reply: usize) -> Self {
        Self { forwarder, answered, listening: Mutex::default(), max_reply }
    }

    /// The interaction is answered: what comes now counts for nothing. The other replicas are told by `tasks`.
    pub(crate) fn answered(&self, ticket: &Ticket, tasks: &Tasks) {
        let telling = self.answered.done(key(ticket), STRAGGLERS);
        if self.answered.is_shared() {
            tasks.spawn("telling what is answered", telling);
        }
    }

    /// Somebody listens for its reply.
    pub(crate) fn listening(self: &Arc<Self>, ticket: &Ticket) -> Listening {
        let (key, ended) = (key(ticket), CancellationToken::new());
        self.listeners().insert(key, ended.clone());
        Listening { late: Arc::clone(self), key, ended }
    }

    /// Sends a reply, once Discord has the deferral.
    pub(crate) async fn send(
        &self,
        ticket: &Ticket,
        raw: Raw,
        deferred: Instant,
    ) -> Result<ReplyOutcome, Error> {
        let left = Duration::from_millis(ticket.late_until_ms.saturating_sub(unix_ms()));
        let deferral = told(raw.deferred_with)?.unwrap_or(ticket.deferral);
        if deferral == Deferral::None || left.is_zero() {
            return Err(Error::new(ErrorCode::TooLate, "such an interaction can't be answered any more"));
        }
        let deadline = Instant::now() + left;
        let reply = raw.read(ticket, self.max_reply).await?;
        let Some(becomes) = request::becomes(reply.callback, deferral)? else {
            return Ok(ReplyOutcome::NothingToDo);
        };
        sleep_until(deferred.min(deadline)).await;
        let claim = self.claim(ticket, deadline).await?;
        let sending = request::send(&self.forwarder, ticket, becomes, reply.message(), deadline);
        match claim.during(sending).await {
            Ok(()) => {
                claim.keep().await;
                if let Some(listener) = self.listeners().get(&key(ticket)) {
                    listener.cancel();
                }
                Ok(ReplyOutcome::SentLate)
            }
            Err(error) => {
                claim.give_back().await;
                Err(error)
            }
        }
    }

    /// Only one reply is sent. While another one is being sent, it isn't known whether that will be the one.
    async fn claim(&self, ticket: &Ticket, deadline: Instant) -> Result<Claim, Error> {
        loop {
            match self.answered.claim(key(ticket), STRAGGLERS).await {
                Claimed::Fresh(claim) => return Ok(claim),
                Claimed::Elsewhere if Instant::now() + LOOK_AGAIN < deadline => sleep(LOOK_AGAIN).await,
                Claimed::Elsewhere | Claimed::Done => {
                    return Err(Error::new(ErrorCode::AlreadyAnswered, "another reply came before"));
                }
            }
        }
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<Key, CancellationToken>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.late.listeners().remove(&self.key);
    }
}

/// What a worker has told Discord itself, by the type of its callback.
pub(crate) fn told(callback: u32) -> Result<Option<Deferral>, Error> {
    match callback {
        0 => Ok(None),
        5 => Ok(Some(Deferral::Message { ephemeral: false })),
        6 => Ok(Some(Deferral::Update)),
        _ => Err(Error::new(ErrorCode::InvalidArgument, "deferred_with is 5, 6, or left out")),
    }
}

/// What an interaction is known by.
fn key(ticket: &Ticket) -> Key {
    Sha256::digest(ticket.token.as_bytes()).into()
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
