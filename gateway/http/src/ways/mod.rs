// SPDX-License-Identifier: AGPL-3.0-only
//! Ways to workers. In: an interaction. Out: what they say to it, as it comes: nothing, one reply, or several.

pub(crate) mod amqp;
mod websocket;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use holdfast_broker::{Broker, RequestError, Requester, State};

pub(crate) use amqp::Receipt;
pub(crate) use worker::Worker;

use crate::asked::Asked;
use crate::reply::Raw;
use crate::settings::WayKind;

/// What a worker says.
pub(crate) enum Said {
    /// The answer, and who wants to know what becomes of it.
    Reply(Raw, Option<Receipt>),
    /// It is being answered by the worker itself, by Discord's REST API.
    Taken,
}

/// Why a way doesn't lead to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody is there.
    NoWorker,
    /// Somebody is there and can't be reached, or fails.
    Unavailable,
    /// Somebody has it, or may have it, and what they say doesn't get here.
    Lost,
    /// It said something that can't be understood.
    Nonsense,
}

/// What is said to one interaction, until nobody listens any more.
pub(crate) type Replies = BoxStream<'static, Result<Said, Failure>>;

/// All ways.
pub(crate) struct Ways {
    pub(crate) broker: Broker,
    pub(crate) requester: Requester,
    pub(crate) worker: Worker,
}

impl Failure {
    /// As metrics name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoWorker => "no_worker",
            Self::Unavailable | Self::Lost => "unavailable",
            Self::Nonsense => "invalid",
        }
    }

    /// Whether asking another one might be asking twice.
    pub(crate) fn somebody_has_it(self) -> bool {
        matches!(self, Self::Lost | Self::Nonsense)
    }
}

impl From<&RequestError> for Failure {
    fn from(error: &RequestError) -> Self {
        match error {
            RequestError::NoConsumer => Self::NoWorker,
            _ => Self::Unavailable,
        }
    }
}

impl Ways {
    /// Whether asking by it makes sense at the moment.
    pub(crate) fn is_open(&self, way: WayKind) -> bool {
        way == WayKind::Http || matches!(*self.broker.state().borrow(), State::Connected)
    }

    /// Asks by one of them. After the last there is nobody else to ask.
    pub(crate) fn ask(&self, way: WayKind, asked: &Arc<Asked>, is_last: bool) -> Replies {
        let asked = Arc::clone(asked);
        match way {
            WayKind::Amqp => amqp::ask(&self.broker, &self.requester, asked),
            WayKind::WebSocket => websocket::ask(&self.broker, &self.requester, asked, is_last),
            WayKind::Http => self.worker.ask(asked),
        }
    }
}

/// How long it is until then.
fn left(until: tokio::time::Instant) -> Duration {
    until.saturating_duration_since(tokio::time::Instant::now())
}
