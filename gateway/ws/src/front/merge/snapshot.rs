// SPDX-License-Identifier: AGPL-3.0-only
//! READY and the guilds of a client, gathered from several shards at one position each.
//!
//! In: the shards' snapshots. Out: payloads, one at a time. Guilds are built in the client's task, or come built from the
//! replica that has them.

use std::sync::Arc;

use holdfast_state::{GuildSnapshot, View};

use super::{attach::Here, wire::Further};
use crate::{
    front::{Front, outgoing::Outgoing, source::dispatch},
    shard::{ForClient, Ready},
};

/// See the module's documentation.
pub(super) struct Snapshot {
    /// READY of the lowest shard: the bot's user and application are the same on each.
    ready: Arc<Ready>,
    /// Ids of all guilds of the client.
    guilds: Vec<u64>,
    available: Vec<GuildSnapshot>,
    /// How many guilds come from other replicas, behind those that are here.
    far: usize,
    /// Events that follow the guilds.
    further: Vec<Further>,
    sent: usize,
}

/// What was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    Payload,
    /// Nothing: the next guild comes from another replica.
    Far,
    /// Nothing: that was all.
    Nothing,
}

impl Snapshot {
    /// `here`: the shards that are here, at least one. `far`: how many guilds others have.
    pub(super) fn new(guilds: Vec<u64>, here: Vec<Here>, far: u64, further: Vec<Further>) -> Option<Self> {
        let ready = Arc::clone(&here.first()?.ready);
        let available = here.into_iter().flat_map(|here| here.guilds).collect();
        let far = usize::try_from(far).ok()?;
        Some(Self { ready, guilds, available, far, further, sent: 0 })
    }

    /// Payloads, READY among them.
    pub(super) fn len(&self) -> u64 {
        (1 + self.available.len() + self.far + self.further.len()) as u64
    }

    /// The sequence of the latest payload: they are counted from 1.
    pub(super) fn sequence(&self) -> u64 {
        self.sent as u64
    }

    /// Id of the bot's user.
    pub(super) fn user(&self) -> u64 {
        self.ready.user
    }

    /// Adds READY, then one guild or further event at each call.
    pub(super) fn next(
        &mut self,
        front: &Front,
        session: (&str, Option<[u32; 2]>),
        view: &View,
        out: &mut Outgoing,
    ) -> Added {
        if self.sequence() == self.len() {
            return Added::Nothing;
        }
        let index = self.sent.checked_sub(1);
        let behind = index.and_then(|index| index.checked_sub(self.available.len()));
        if behind.is_some_and(|behind| behind < self.far) {
            return Added::Far;
        }
        self.sent += 1;
        let sequence = self.sequence();
        let Some(index) = index else {
            let ready = self.ready.for_client(&ForClient {
                session_id: session.0,
                resume_url: &front.settings.public_url,
                shard: session.1,
                guilds: &self.guilds,
            });
            dispatch(out, "READY", sequence, &ready.unwrap_or_default());
            return Added::Payload;
        };
        if let Some(guild) = self.available.get(index) {
            let mut data = Vec::new();
            if guild.guild_create(view, &mut data).is_ok() {
                dispatch(out, "GUILD_CREATE", sequence, &data);
            } else {
                front.metrics.malformed.inc();
            }
        } else if let Some(Further { name, data }) =
            behind.and_then(|behind| self.further.get(behind - self.far))
        {
            dispatch(out, name, sequence, data.get().as_bytes());
        }
        Added::Payload
    }

    /// Adds a guild that another replica has.
    pub(super) fn far(&mut self, data: &str, out: &mut Outgoing) {
        self.sent += 1;
        // One that can't be built is told of, too: it was counted.
        if data != "null" {
            dispatch(out, "GUILD_CREATE", self.sequence(), data.as_bytes());
        }
    }
}
