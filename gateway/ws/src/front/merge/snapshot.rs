// SPDX-License-Identifier: AGPL-3.0-only
//! READY and the guilds of a client, gathered from several shards at one position each.
//!
//! In: the shards' snapshots. Out: payloads, one at a time. Guilds are built in the client's task.

use std::sync::Arc;

use holdfast_state::{GuildSnapshot, View};

use super::share::Share;
use crate::{
    front::{Front, outgoing::Outgoing, source::dispatch},
    shard::{At, ForClient, Ready},
};

/// See the module's documentation.
pub(super) struct Snapshot {
    /// READY of the lowest shard: the bot's user and application are the same on each.
    ready: Arc<Ready>,
    /// Ids of all guilds of the client.
    guilds: Vec<u64>,
    available: Vec<GuildSnapshot>,
    /// Events that follow the guilds: name and `d`.
    further: Vec<(&'static str, Vec<u8>)>,
    sent: usize,
}

impl Snapshot {
    /// `shards`: at least one. Guilds are left out for a client without the intent `GUILDS`.
    pub(super) fn new(
        share: Share,
        intents: u64,
        shards: &[At],
        further: Vec<(&'static str, Vec<u8>)>,
    ) -> Option<Self> {
        let ready = Arc::clone(&shards.first()?.ready);
        let all = shards.iter().flat_map(|at| at.guilds.guilds());
        let guilds: Vec<&GuildSnapshot> = all.filter(|guild| share.holds(guild.id())).collect();
        let wanted = |guild: &&GuildSnapshot| intents & 1 != 0 && !guild.unavailable();
        let available = guilds.iter().copied().filter(wanted).cloned().collect();
        let guilds = guilds.iter().map(|guild| guild.id()).collect();
        Some(Self { ready, guilds, available, further, sent: 0 })
    }

    /// Payloads, READY among them.
    pub(super) fn len(&self) -> u64 {
        (1 + self.available.len() + self.further.len()) as u64
    }

    /// The sequence of the latest payload: they are counted from 1.
    pub(super) fn sequence(&self) -> u64 {
        self.sent as u64
    }

    /// Id of the bot's user.
    pub(super) fn user(&self) -> u64 {
        self.ready.user
    }

    /// Adds READY, then one guild or further event at each call. False: that was all.
    pub(super) fn next(
        &mut self,
        front: &Front,
        session: (&str, Option<[u32; 2]>),
        view: &View,
        out: &mut Outgoing,
    ) -> bool {
        if self.sequence() == self.len() {
            return false;
        }
        self.sent += 1;
        let sequence = self.sequence();
        let Some(index) = self.sent.checked_sub(2) else {
            let ready = self.ready.for_client(&ForClient {
                session_id: session.0,
                resume_url: &front.settings.public_url,
                shard: session.1,
                guilds: &self.guilds,
            });
            dispatch(out, "READY", sequence, &ready.unwrap_or_default());
            return true;
        };
        if let Some(guild) = self.available.get(index) {
            let mut data = Vec::new();
            if guild.guild_create(view, &mut data).is_ok() {
                dispatch(out, "GUILD_CREATE", sequence, &data);
            } else {
                front.metrics.malformed.inc();
            }
        } else if let Some((name, data)) = self.further.get(index - self.available.len()) {
            dispatch(out, name, sequence, data);
        }
        true
    }
}
