// SPDX-License-Identifier: AGPL-3.0-only
//! Requests for a guild's state. In: the queue that all replicas share; requests that another replica handed on to the
//! shard's queue. Out: one answer each. Guilds are put into words where blocking is allowed, few at a time.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use holdfast_broker::{ConsumerOptions, Publication, PublishError, Request};
use holdfast_contract::{
    SCHEMA,
    v1::{Error, ErrorCode, GetGuild, Guild, guild::Found},
};
use holdfast_discord::shard_of;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::commands::{MAX_BYTES, Shared, elsewhere};
use crate::{
    guilds::{self, Missing},
    shard::Hub,
};

/// Guilds that are being put into words: the largest have some ten megabytes.
const AT_ONCE: usize = 8;

/// Answers until the service stops.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let queue = shared.broker.names().state_requests();
    let queue = ConsumerOptions { prefetch: 2 * AT_ONCE as u16, ..ConsumerOptions::new(queue) };
    let queue = shared.broker.respond(queue);
    let requests = stream::unfold(queue, async |mut queue| Some((queue.next().await?, queue)));
    let answering = requests.map(|request| route(&shared, request)).buffer_unordered(AT_ONCE);
    answering.take_until(stop.cancelled_owned()).for_each(|()| std::future::ready(())).await;
}

/// Answers, or hands the request on to the replica that owns the shard.
async fn route(shared: &Shared, request: Request) {
    let guild = match request.message().decode::<GetGuild>(MAX_BYTES) {
        Ok(asked) => asked.guild_id,
        Err(error) => return refuse(shared, request, Guild::default(), error, true).await,
    };
    if let Some(hub) = shared.hubs.get(shard_of(guild, shared.total())) {
        return answer(shared, &hub, request).await;
    }
    let (key, nobody) = elsewhere(guild, shared.total());
    let publication = Publication::new(shared.broker.names().commands(), key, request.message().clone());
    match shared.broker.publish(publication.mandatory()).await {
        Ok(()) => request.done(),
        Err(PublishError::Closed) => {}
        Err(_) => {
            let empty = Guild { guild_id: guild, ..Guild::default() };
            refuse(shared, request, empty, nobody, false).await;
        }
    }
}

/// Answers a request for a guild of this shard.
pub(super) async fn answer(shared: &Shared, hub: &Arc<Hub>, request: Request) {
    let asked = match request.message().decode::<GetGuild>(MAX_BYTES) {
        Ok(asked) => asked,
        Err(error) => return refuse(shared, request, Guild::default(), error, true).await,
    };
    let mut guild =
        Guild { guild_id: asked.guild_id, shard: hub.shard, shard_count: hub.total, ..Guild::default() };
    match read(hub, &asked, &mut guild).await {
        Ok(data) => guild.found = Some(Found::Data(data.into())),
        Err(error) => return refuse(shared, request, guild, error, false).await,
    }
    guild.schema = SCHEMA;
    match request.answer(&guild).await {
        Err(PublishError::Unsendable(why)) => {
            let error = Error::new(ErrorCode::TooLarge, format!("the guild can't be sent: {why}"));
            refuse(shared, request, guild, error, false).await;
        }
        sent => end(shared, request, "FOUND", sent, false).await,
    }
}

async fn read(hub: &Arc<Hub>, asked: &GetGuild, guild: &mut Guild) -> Result<Vec<u8>, Error> {
    let shard = shard_of(asked.guild_id, hub.total);
    if shard != hub.shard {
        let text = format!("guild {} is on shard {shard} of {}", asked.guild_id, hub.total);
        return Err(Error::new(ErrorCode::WrongShard, text));
    }
    let taken = guilds::take(hub, asked.guild_id).map_err(error)?;
    guild.application = taken.application;
    if asked.application != 0 && asked.application != taken.application {
        let text = format!("this is application {}", taken.application);
        return Err(Error::new(ErrorCode::WrongApplication, text));
    }
    guild.stream = taken.stream.to_string();
    guild.position = taken.position;
    let data = tokio::task::spawn_blocking(move || taken.data()).await;
    let data = data.map_err(|_| Error::new(ErrorCode::Internal, "the guild could not be read"))?;
    data.map_err(error)
}

fn error(missing: Missing) -> Error {
    let code = match missing {
        Missing::Unknown(_) => ErrorCode::UnknownGuild,
        Missing::Unavailable(_) => ErrorCode::GuildUnavailable,
        Missing::NoSession(_) => ErrorCode::NotConnected,
        Missing::Damaged(_) => ErrorCode::Internal,
    };
    Error::new(code, missing.to_string())
}

/// Answers with an error.
async fn refuse(shared: &Shared, request: Request, guild: Guild, error: Error, poison: bool) {
    let outcome = error.code().name();
    let guild = Guild {
        schema: SCHEMA,
        stream: String::new(),
        position: 0,
        found: Some(Found::Error(error)),
        ..guild
    };
    let sent = request.answer(&guild).await;
    end(shared, request, outcome, sent, poison).await;
}

async fn end(
    shared: &Shared,
    request: Request,
    outcome: &'static str,
    sent: Result<(), PublishError>,
    poison: bool,
) {
    if let Err(error) = sent {
        debug!(%error, "the answer to a request can't be delivered");
    }
    shared.metrics.read(outcome);
    shared.settle(request, outcome, poison).await;
}
