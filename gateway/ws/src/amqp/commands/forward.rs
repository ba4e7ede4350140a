// SPDX-License-Identifier: AGPL-3.0-only
//! Commands that any replica may take go to the shard of their target.
//!
//! In: the queue that all replicas share. Out: the same bytes under the shard's key; or a rejection, at once where
//! nobody owns the shard. Only the target is looked at.

use std::{sync::Arc, time::Instant};

use futures_util::{StreamExt, stream};
use holdfast_broker::{ConsumerOptions, Names, Publication, PublishError, Request};
use holdfast_contract::v1::{Command, Error, ErrorCode, Rejected, command::Payload, command_reply::Reply};
use holdfast_discord::shard_of;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    decode::{self, Destination, destination},
    plan::kind,
    replies::replies,
};
use crate::shard::unix_ms;

/// Commands that are being handed on at the same time; their order stays.
const AT_ONCE: usize = 64;

/// Forwards until the service stops.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let names = shared.broker.names();
    let prefetch = 2 * AT_ONCE as u16;
    let options = ConsumerOptions { prefetch, ..ConsumerOptions::new(names.guild_commands()) };
    let queue = shared.broker.respond(options);
    let requests = stream::unfold(queue, async |mut queue| Some((queue.next().await?, queue)));
    // Their publishing begins in the order in which they came.
    let forwarding = requests.map(|request| forward(&shared, request)).buffered(AT_ONCE);
    forwarding.take_until(stop.cancelled_owned()).for_each(|()| std::future::ready(())).await;
}

async fn forward(shared: &Shared, request: Request) {
    let command = decode::command(request.message());
    let kind = command.as_ref().map_or("unknown", kind);
    let (error, poison) = match command {
        Err(error) => (error, true),
        Ok(command) => match hand_on(shared, &command, &request).await {
            Ok(()) => {
                shared.metrics.forwarded.inc();
                return request.done();
            }
            Err(Failure::Closed) => return,
            Err(Failure::Rejected(error)) => (error, false),
        },
    };
    let name = error.code().name();
    let (replies, outgoing) = replies();
    replies.say(Reply::Rejected(Rejected { error: Some(error) })).await;
    drop(replies);
    outgoing.deliver(&request, (0, 0), &shared.metrics).await;
    shared.metrics.ended(kind, name);
    shared.settle(request, name, poison).await;
}

enum Failure {
    Rejected(Error),
    /// The process is ending: another replica gets it.
    Closed,
}

async fn hand_on(shared: &Shared, command: &Command, request: &Request) -> Result<(), Failure> {
    let deadline = decode::deadline(command, Instant::now(), unix_ms()).map_err(Failure::Rejected)?;
    let destination = destination(command, shared.total()).map_err(Failure::Rejected)?;
    let key = match destination {
        Destination::Shard(shard) => Names::shard_key(shard, shared.total()),
        Destination::All => Names::ALL_KEY.to_owned(),
    };
    loop {
        let publication =
            Publication::new(shared.broker.names().commands(), key.clone(), request.message().clone());
        let published = shared.broker.publish(publication.mandatory());
        let error = match tokio::time::timeout_at(deadline.into(), published).await {
            Ok(Ok(())) => return Ok(()),
            // It may have arrived: a client gets an interaction once, or not at all.
            Ok(Err(PublishError::Unconfirmed(_))) if is_interaction(command) => {
                Error::new(ErrorCode::Interrupted, "the connection to the broker ended meanwhile")
            }
            // Everything else arrives twice rather than not at all.
            Ok(Err(PublishError::Unconfirmed(_))) => continue,
            Ok(Err(PublishError::Closed)) => return Err(Failure::Closed),
            Ok(Err(PublishError::Unrouted)) => no_owner(destination, shared.total()),
            Ok(Err(PublishError::Nacked)) => {
                Error::new(ErrorCode::QueueFull, "too many commands of this shard are waiting")
            }
            Ok(Err(PublishError::Unsendable(why))) => Error::new(ErrorCode::InvalidArgument, why.to_string()),
            Err(_) => decode::expired(),
        };
        return Err(Failure::Rejected(error));
    }
}

fn is_interaction(command: &Command) -> bool {
    matches!(command.payload, Some(Payload::DeliverInteraction(_)))
}

fn no_owner(destination: Destination, total: u32) -> Error {
    let text = match destination {
        Destination::Shard(shard) => format!("nobody owns shard {shard} of {total} at the moment"),
        Destination::All => format!("nobody owns any of the {total} shards at the moment"),
    };
    Error::new(ErrorCode::NoOwner, text)
}

/// A guild's shard that isn't held by this process.
pub(in crate::amqp) fn elsewhere(guild: u64, total: u32) -> (String, Error) {
    let shard = shard_of(guild, total);
    (Names::shard_key(shard, total), no_owner(Destination::Shard(shard), total))
}
