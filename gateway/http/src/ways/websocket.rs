// SPDX-License-Identifier: AGPL-3.0-only
//! To a client of the WebSocket front, which takes the interaction for one that came over the gateway and answers it by
//! Discord's REST API. By a command to the shard of its guild, wherever that is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use holdfast_broker::{Broker, Message, Names, Publication, RequestError, Requester};
use holdfast_contract::v1::command_reply::Reply;
use holdfast_contract::v1::{
    Command, CommandReply, DeliverInteraction, ErrorCode, Outcome, Priority, command,
};
use holdfast_contract::{Class, SCHEMA};

use super::{Failure, Replies, Said, left};
use crate::asked::{Asked, unix_us};

/// Where somebody else can be asked, nobody waits longer for a shard that can't be reached at the moment.
const NOT_THE_LAST: Duration = Duration::from_millis(300);
/// What `ws` says of a command in its last moment gets here a little later.
const FOR_THE_REPLY: Duration = Duration::from_millis(100);
/// What `ws` says to such a command has no data in it.
const MAX_REPLY: usize = 64 << 10;

/// Asks, and says that it is taken as soon as a client has it.
pub(super) fn ask(broker: &Broker, requester: &Requester, asked: Arc<Asked>, is_last: bool) -> Replies {
    let (broker, requester) = (broker.clone(), requester.clone());
    stream::once(async move { deliver(&broker, &requester, &asked, is_last).await }).boxed()
}

async fn deliver(
    broker: &Broker,
    requester: &Requester,
    asked: &Asked,
    is_last: bool,
) -> Result<Said, Failure> {
    let within = left(asked.answer_by).saturating_sub(FOR_THE_REPLY);
    let within = if is_last { within } else { within.min(NOT_THE_LAST) };
    // A client that stands still may read it yet, and answer too late. Meanwhile another one is better.
    let too_late = if is_last { Failure::Lost } else { Failure::Unavailable };
    let delivery = DeliverInteraction { guild_id: asked.guild, data: asked.posted.body.clone() };
    let command = Command {
        schema: SCHEMA,
        application: 0,
        target: None,
        priority: Priority::High.into(),
        // What is still waiting then no client gets.
        deadline_ms: unix_us() / 1_000 + u64::try_from(within.as_millis()).unwrap_or(0),
        payload: Some(command::Payload::DeliverInteraction(delivery)),
    };
    let message = Message::of(&command);
    let publication = Publication::new(broker.names().commands(), Names::GUILD_KEY, message);
    let is_end = |message: &Message| !matches!(reply(message), Some(Reply::Accepted(_)));
    let asked = requester.request_many(publication, within + FOR_THE_REPLY, is_end).await;
    let mut answers = asked.map_err(|error| match error {
        RequestError::Disconnected(_) => Failure::Lost,
        error => Failure::from(&error),
    })?;
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|error| match error {
            RequestError::TimedOut => too_late,
            _ => Failure::Lost,
        })?;
        match reply(&answer) {
            Some(Reply::Accepted(_)) => {}
            Some(Reply::Done(done)) if done.outcome() == Outcome::Complete => return Ok(Said::Taken),
            Some(Reply::Done(_)) => return Err(too_late),
            Some(Reply::Rejected(rejected)) => {
                let error = rejected.error.unwrap_or_default();
                return Err(match (error.code(), error.class()) {
                    (ErrorCode::NoClient | ErrorCode::NoOwner, _) => Failure::NoWorker,
                    (_, Class::Unknown) => Failure::Lost,
                    _ => Failure::Unavailable,
                });
            }
            _ => return Err(Failure::Lost),
        }
    }
    Err(Failure::Lost)
}

fn reply(message: &Message) -> Option<Reply> {
    // One that isn't understood is no answer.
    message.decode::<CommandReply>(MAX_REPLY).ok()?.reply
}
