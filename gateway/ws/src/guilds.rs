// SPDX-License-Identifier: AGPL-3.0-only
//! Reading one guild out of the state: for the page `/guilds/{id}`, and for requests over the broker.
//!
//! In: a shard, a guild. Out: GUILD_CREATE's `d` and the position that it is true at, or why there is none.

use std::sync::Arc;

use holdfast_discord::shard_of;
use holdfast_service::{Page, Pages};
use holdfast_state::{GuildSnapshot, View};

use crate::{
    fleet::Hubs,
    log::{Position, StreamId},
    shard::Hub,
};

/// Why a guild can't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    /// The bot isn't in it.
    #[error("the bot is not in guild {0}")]
    Unknown(u64),
    /// Discord hasn't sent it, or says that it has an outage.
    #[error("guild {0} is unavailable: Discord has not sent it yet, or has an outage")]
    Unavailable(u64),
    /// There is no session, so nobody knows the bot's guilds.
    #[error("shard {0} has no session with Discord yet")]
    NoSession(u32),
    /// What is stored of it can't be read.
    #[error("what is stored of guild {0} is damaged")]
    Damaged(u64),
}

/// A guild as it was at a position; not yet put into words.
pub(crate) struct Taken {
    guild: GuildSnapshot,
    own_user: u64,
    pub(crate) application: u64,
    pub(crate) stream: StreamId,
    pub(crate) position: Position,
}

/// Takes a guild as it is now: quick.
pub(crate) fn take(hub: &Hub, id: u64) -> Result<Taken, Missing> {
    let core = hub.core();
    let ready = core.ready.as_ref().ok_or(Missing::NoSession(hub.shard))?;
    let guild = core.guilds.get(id).ok_or(Missing::Unknown(id))?;
    if guild.unavailable() {
        return Err(Missing::Unavailable(id));
    }
    let (own_user, application) = (ready.user, ready.application());
    let (stream, position) = (core.log.stream(), core.log.last());
    Ok(Taken { guild, own_user, application, stream, position })
}

impl Taken {
    /// GUILD_CREATE's `d` with everything that is kept. Costs a millisecond, of large guilds a hundred.
    pub(crate) fn data(&self) -> Result<Vec<u8>, Missing> {
        let mut data = Vec::new();
        let written = self.guild.guild_create(&View::everything(self.own_user), &mut data);
        written.map_err(|_| Missing::Damaged(self.guild.id()))?;
        Ok(data)
    }
}

/// Adds `/guilds/{id}`.
pub(crate) fn page(pages: &Pages, hubs: &Arc<Hubs>) {
    let hubs = Arc::clone(hubs);
    pages.add_below("/guilds/", move |id| show(&hubs, id));
}

fn show(hubs: &Hubs, id: &str) -> Page {
    let Ok(id) = id.parse::<u64>() else { return Page::status(400, "a guild's id is a number\n") };
    let total = hubs.total();
    let shard = shard_of(id, total);
    let Some(hub) = hubs.get(shard) else {
        let text = format!("guild {id} belongs to shard {shard} of {total}, which is not held here\n");
        return Page::status(404, text);
    };
    let data = take(&hub, id).and_then(|taken| taken.data());
    // What came from Discord as JSON is UTF-8.
    match data.and_then(|data| String::from_utf8(data).map_err(|_| Missing::Damaged(id))) {
        Ok(json) => Page::json(json),
        Err(missing) => {
            let status = match missing {
                Missing::Unknown(_) => 404,
                Missing::Unavailable(_) | Missing::NoSession(_) => 503,
                Missing::Damaged(_) => 500,
            };
            Page::status(status, format!("{missing}\n"))
        }
    }
}
