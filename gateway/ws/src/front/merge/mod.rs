// SPDX-License-Identifier: AGPL-3.0-only
//! Clients whose shard count isn't ours, or wasn't: the owner of the lowest shard with their guilds merges all of these.
//!
//! [`share`] says which events are a client's, [`attach`] takes it in at a shard, [`leg`] follows that, [`far`] at another
//! replica, which [`lend`]s it by the words of [`wire`]. [`pump`] merges the legs in [`order`] and numbers what it gives,
//! [`places`] remembers what the numbers stand for, [`sessions`] keeps that; [`opening`] and [`resuming`] begin, and [`seek`]
//! the shards.

mod attach;
mod batch;
mod bell;
mod far;
mod leg;
mod lend;
mod loan;
mod opening;
mod order;
mod places;
mod pump;
mod resuming;
mod retired;
mod route;
mod seek;
mod sessions;
mod share;
mod snapshot;
mod turn;
mod wire;

use std::sync::Arc;

use holdfast_cluster::ShardId;

pub(super) use lend::lend;
pub(crate) use loan::Loan;
pub(super) use loan::asked;
pub(super) use opening::{Prepared, identify, open};
pub(super) use resuming::resume;
pub(super) use sessions::Sessions;

use self::share::Share;
use super::{moved, query::Refused};
use crate::shard::Hub;

/// The lowest of the bot's shards, of `total`, that may hold guilds of the client `[shard, count]`: its owner serves it.
pub(super) fn home([shard, count]: [u32; 2], total: u32) -> Option<u32> {
    Share { shard, count, total }.shards().next()
}

/// What of us serves a client.
#[derive(Clone)]
pub(crate) struct Part {
    share: Share,
    /// Our shards that may hold its guilds, rising; the first of them is here. Those of the current count: others it
    /// reads to their end, and that is all.
    holders: Arc<[Holder]>,
}

/// Who has a shard.
#[derive(Clone)]
pub(super) enum Holder {
    Here(Arc<Hub>),
    /// Another replica.
    There,
}

impl Part {
    /// The part of the client `[shard, count]` of the bot's `total` shards, where `holder` finds one of ours.
    pub(super) fn of(
        [shard, count]: [u32; 2],
        total: u32,
        holder: impl FnMut(u32) -> Result<Holder, Refused>,
    ) -> Result<Self, Refused> {
        let share = Share { shard, count, total };
        if share.shards().count() > places::MAX_LEGS {
            return Err(Refused::new(
                4010,
                format!("the bot has {total} shards here: too many for one client"),
            ));
        }
        Ok(Self { share, holders: share.shards().map(holder).collect::<Result<_, _>>()? })
    }

    /// The runtime of the client's task: that of its lowest shard.
    pub(super) fn runtime(&self) -> Option<&tokio::runtime::Handle> {
        self.home().map(|hub| &hub.runtime)
    }

    /// Err: the lowest shard is another replica's by now, who is to serve the client.
    pub(super) fn at_home(&self) -> Result<(), Refused> {
        match self.home() {
            Some(_) => Ok(()),
            None => Err(moved(self.share.shards().next().unwrap_or(0))),
        }
    }

    /// The lowest shard. None: it is another replica's by now.
    fn home(&self) -> Option<&Arc<Hub>> {
        match self.holders.first()? {
            Holder::Here(hub) => Some(hub),
            Holder::There => None,
        }
    }

    /// Those that are here, by the number of their leg.
    fn here(&self) -> impl Iterator<Item = (usize, &Arc<Hub>)> {
        self.holders.iter().enumerate().filter_map(|(leg, holder)| match holder {
            Holder::Here(hub) => Some((leg, hub)),
            Holder::There => None,
        })
    }

    /// All of them.
    fn ids(&self) -> impl Iterator<Item = ShardId> {
        let total = self.share.total;
        self.share.shards().map(move |shard| ShardId::new(shard, total))
    }
}

/// Whom a client is known as at our shards of a count: by its credential and its shard. Clients of another count have
/// other guilds, and don't take over each other's sessions. Those of ours are at the shard of their number.
fn identity_at(credential: &str, [shard, count]: [u32; 2], total: u32) -> String {
    if count == total { credential.to_owned() } else { format!("{credential}:{shard}/{count}") }
}
