// SPDX-License-Identifier: AGPL-3.0-only
//! A message between being given to the library and being confirmed by the broker.
//!
//! The library queues a message's frames when its future is first polled, and the future then waits until they are
//! written: awaiting it message by message costs a change of threads each. So it is polled once to keep the order,
//! and looked at again only when its confirmation is due.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, Error, PublisherConfirm};

use super::convert::Frames;

/// See the module.
pub(super) enum Pending {
    /// Its frames are queued.
    Sending(Pin<Box<dyn Future<Output = Result<PublisherConfirm, Error>> + Send>>),
    /// Its frames are written.
    Confirming(PublisherConfirm),
    /// Its outcome is known and not yet asked for.
    Settled(Outcome),
}

/// What became of a message. Small, since a window holds many.
pub(super) struct Outcome {
    /// Whether the broker took it; or why nobody knows.
    pub(super) taken: Result<bool, Box<Error>>,
    /// A message that no queue took: this one, or one before it.
    pub(super) returned: Option<Box<BasicReturnMessage>>,
}

impl From<Result<Confirmation, Error>> for Outcome {
    fn from(confirmation: Result<Confirmation, Error>) -> Self {
        match confirmation {
            Ok(Confirmation::Ack(returned)) => Self { taken: Ok(true), returned: returned.map(Box::new) },
            Ok(Confirmation::Nack(returned)) => Self { taken: Ok(false), returned: returned.map(Box::new) },
            Ok(Confirmation::NotRequested) => Self { taken: Ok(true), returned: None },
            Err(error) => Self { taken: Err(Box::new(error)), returned: None },
        }
    }
}

impl Pending {
    /// Queues a message's frames behind those of all messages before it on this channel.
    pub(super) fn publish(channel: &Arc<Channel>, frames: Frames) -> Self {
        let channel = Arc::clone(channel);
        let mut sending = Box::pin(async move {
            let Frames { exchange, key, mandatory, properties, body } = frames;
            let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
            channel.basic_publish(exchange, key, options, &body, properties).await
        });
        match sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Self::Sending(sending),
            Poll::Ready(Ok(confirm)) => Self::Confirming(confirm),
            Poll::Ready(Err(error)) => Self::Settled(Err(error).into()),
        }
    }

    /// Whether the outcome is known; if not, the context is woken when there is something new.
    pub(super) fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self {
                Self::Settled(_) => return Poll::Ready(()),
                Self::Sending(sending) => match sending.as_mut().poll(context) {
                    Poll::Ready(Ok(confirm)) => *self = Self::Confirming(confirm),
                    Poll::Ready(Err(error)) => *self = Self::Settled(Err(error).into()),
                    Poll::Pending => return Poll::Pending,
                },
                Self::Confirming(confirm) => match Pin::new(confirm).poll(context) {
                    Poll::Ready(outcome) => *self = Self::Settled(outcome.into()),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// The outcome, if it is known.
    pub(super) fn into_outcome(self) -> Option<Outcome> {
        match self {
            Self::Settled(outcome) => Some(outcome),
            Self::Sending(_) | Self::Confirming(_) => None,
        }
    }
}
