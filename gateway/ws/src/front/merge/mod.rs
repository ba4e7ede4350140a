// SPDX-License-Identifier: AGPL-3.0-only
//! Clients whose shard count isn't ours, or wasn't: each is served from all our shards that hold guilds of its own.
//!
//! [`share`] says which events are a client's, [`leg`] follows one of our shards, [`pump`] merges the legs in [`order`] and
//! numbers what it gives, [`places`] remembers what the numbers stand for, [`sessions`] keeps that for RESUME, [`opening`]
//! begins, [`resuming`] resumes, [`snapshot`] gives READY and the guilds, [`route`] finds a command's shard. What shards
//! of a former count have left, [`retired`] knows.

mod bell;
mod leg;
mod opening;
mod order;
mod places;
mod pump;
mod resuming;
mod retired;
mod route;
mod sessions;
mod share;
mod snapshot;

use std::sync::Arc;

pub(super) use opening::open;
pub(super) use retired::{client_of, owe};
pub(super) use sessions::Sessions;

use self::share::Share;
use super::query::Refused;
use crate::shard::Hub;

/// The bot's shards, of `total`, that may hold guilds of the client `[shard, count]`, rising.
pub(super) fn shards([shard, count]: [u32; 2], total: u32) -> impl Iterator<Item = u32> {
    Share { shard, count, total }.shards()
}

/// What of us serves a client.
#[derive(Clone)]
pub(crate) struct Part {
    share: Share,
    /// Our shards that may hold its guilds, rising; at least one. Those of the current count: others it reads to their
    /// end, and that is all.
    hubs: Arc<[Arc<Hub>]>,
}

impl Part {
    /// The part of the client `[shard, count]` of the bot's `total` shards, where `hub` finds one of ours.
    pub(super) fn of(
        [shard, count]: [u32; 2],
        total: u32,
        hub: impl FnMut(u32) -> Result<Arc<Hub>, Refused>,
    ) -> Result<Self, Refused> {
        let share = Share { shard, count, total };
        if share.shards().count() > places::MAX_LEGS {
            return Err(Refused::new(
                4010,
                format!("the bot has {total} shards here: too many for one client"),
            ));
        }
        Ok(Self { share, hubs: share.shards().map(hub).collect::<Result<_, _>>()? })
    }

    /// What asks the client to go, at each of our shards.
    pub(super) fn leaving(&self) -> Vec<tokio_util::sync::CancellationToken> {
        self.hubs.iter().map(|hub| hub.leaving.clone()).collect()
    }

    /// The runtime of the client's task: that of its lowest shard.
    pub(super) fn runtime(&self) -> Option<&tokio::runtime::Handle> {
        self.hubs.first().map(|hub| &hub.runtime)
    }
}

/// Whom a client is known as at our shards of a count: by its credential and its shard. Clients of another count have
/// other guilds, and don't take over each other's sessions. Those of ours are at the shard of their number.
fn identity_at(credential: &str, [shard, count]: [u32; 2], total: u32) -> String {
    if count == total { credential.to_owned() } else { format!("{credential}:{shard}/{count}") }
}
