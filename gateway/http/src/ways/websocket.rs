// SPDX-License-Identifier: AGPL-3.0-only
//! To a client of the WebSocket front, which takes the interaction for one that came over the gateway and answers it by
//! Discord's REST API. By a command to the shard of its guild, wherever that is.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use holdfast_broker::{Broker, Message, Names, Publication, Requester};
use holdfast_contract::SCHEMA;
use holdfast_contract::v1::command_reply::Reply;
use holdfast_contract::v1::{
    Command, CommandReply, DeliverInteraction, ErrorCode, Outcome, Priority, command,
};

use super::{Failure, Replies, Said, left};
use crate::asked::Asked;

/// What `ws` says to such a command has no data in it.
const MAX_REPLY: usize = 64 << 10;

/// Asks, and says that it is taken as soon as a client has it.
pub(super) fn ask(broker: &Broker, requester: &Requester, asked: Arc<Asked>) -> Replies {
    let (broker, requester) = (broker.clone(), requester.clone());
    stream::once(async move { deliver(&broker, &requester, &asked).await }).boxed()
}

async fn deliver(broker: &Broker, requester: &Requester, asked: &Asked) -> Result<Said, Failure> {
    let delivery = DeliverInteraction { guild_id: asked.guild, data: asked.posted.body.clone() };
    let command = Command {
        schema: SCHEMA,
        application: 0,
        target: None,
        priority: Priority::High.into(),
        deadline_ms: asked.ticket.answer_by_ms,
        payload: Some(command::Payload::DeliverInteraction(delivery)),
    };
    let message = Message::of(&command);
    let publication = Publication::new(broker.names().commands(), Names::GUILD_KEY, message);
    let is_last = |message: &Message| !matches!(reply(message), Some(Reply::Accepted(_)));
    let answers = requester.request_many(publication, left(asked.answer_by), is_last).await;
    let mut answers = answers.map_err(|error| Failure::from(&error))?;
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|error| Failure::from(&error))?;
        match reply(&answer) {
            Some(Reply::Accepted(_)) => {}
            Some(Reply::Done(done)) if done.outcome() == Outcome::Complete => return Ok(Said::Taken),
            Some(Reply::Rejected(rejected)) => {
                let code = rejected.error.map_or(ErrorCode::Unspecified, |error| error.code());
                return Err(match code {
                    ErrorCode::NoClient | ErrorCode::NoOwner => Failure::NoWorker,
                    _ => Failure::Unavailable,
                });
            }
            _ => return Err(Failure::Unavailable),
        }
    }
    Err(Failure::Unavailable)
}

fn reply(message: &Message) -> Option<Reply> {
    // One that isn't understood is no answer.
    message.decode::<CommandReply>(MAX_REPLY).ok()?.reply
}
