// SPDX-License-Identifier: AGPL-3.0-only
//! Guilds as they were at a position, for readers in other tasks. In: shared records. Out: GUILD_CREATE's data,
//! members by id, by name, or all, sounds, checkpoints. Decompressing and merging happen here, in the caller's task.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;

use crate::base;
use crate::block::Stored;
use crate::checkpoint;
use crate::merge;
use crate::record::Record;
use crate::reduce::Context;
use crate::section::{Block, Section};
use crate::view::{self, View};

/// A stored guild can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Its bytes aren't what was written.
    #[error("the stored guild is damaged")]
    Damaged,
}

/// All guilds of a shard at one position.
#[derive(Clone, Debug)]
pub struct Snapshot {
    guilds: Arc<[GuildSnapshot]>,
}

impl Snapshot {
    pub(crate) fn new(guilds: Vec<GuildSnapshot>) -> Snapshot {
        Snapshot { guilds: guilds.into() }
    }

    /// The guilds, by rising id.
    #[must_use]
    pub fn guilds(&self) -> &[GuildSnapshot] {
        &self.guilds
    }
}

/// One guild at one position.
#[derive(Clone, Debug)]
pub struct GuildSnapshot {
    id: u64,
    record: Arc<Record>,
    context: Context,
}

/// Which members a request asks for (op 8, "Request Guild Members").
#[derive(Clone, Copy, Debug)]
pub enum Members<'a> {
    /// `query: ""` and `limit: 0`
    All,
    /// `user_ids`
    Ids(&'a [u64]),
    /// `query` and `limit`: whose username or nickname begins with this, whatever its case; at most so many.
    Prefix(&'a str, usize),
}

/// Entities that were found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    bytes: Vec<u8>,
    items: Vec<(u64, Range<usize>)>,
}

impl Found {
    /// User ids with their objects' JSON.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.items.iter().map(|(id, range)| (*id, &self.bytes[range.clone()]))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn push(&mut self, id: u64, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.items.push((id, start..self.bytes.len()));
    }
}

impl GuildSnapshot {
    pub(crate) fn new(id: u64, record: Arc<Record>, context: Context) -> GuildSnapshot {
        GuildSnapshot { id, record, context }
    }

    /// The guild's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The last event that this reflects.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.record.position
    }

    /// Whether Discord hasn't sent the guild, or has an outage.
    #[must_use]
    pub fn unavailable(&self) -> bool {
        self.record.base.is_none()
    }

    /// `member_count`, if the guild is available.
    ///
    /// # Errors
    /// If the stored guild is damaged.
    pub fn member_count(&self) -> Result<Option<u64>, ReadError> {
        let Some(count) = self.record.member_count else { return Ok(None) };
        if !self
            .record
            .changes
            .in_slot(crate::changes::Slot::Entity(Section::Members))
            .any(|(_, it)| it.joined)
        {
            return Ok(Some(count));
        }
        let mut raw = Vec::new();
        let twice = self.with_list(Section::Members, &mut raw, |stored| {
            Ok(merge::counted_twice(&stored, &self.record.changes).len())
        })?;
        Ok(Some(count.saturating_sub(twice as u64)))
    }

    /// Appends the `d` of GUILD_CREATE as Discord would send it to a client with these intents; for an unavailable
    /// guild an unavailable guild object.
    ///
    /// # Errors
    /// If the stored guild is damaged; `out` is then as long as before.
    pub fn guild_create(&self, view: &View, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let start = out.len();
        view::guild_create(self.id, &self.record, view, out).inspect_err(|_| out.truncate(start))
    }

    /// Whether all members are known, so that requests for them can be answered from here.
    #[must_use]
    pub fn members_complete(&self) -> bool {
        if !self.context.kept.has(Section::Members) {
            return false;
        }
        let Ok(Some(count)) = self.member_count() else { return false };
        let mut known = 0;
        let read = self.each(Section::Members, &mut |_, _| known += 1);
        read.is_ok() && known >= count
    }

    /// The members that a request asks for. Where not all are known (`members_complete`), those that are.
    ///
    /// # Errors
    /// If the stored guild is damaged.
    pub fn members(&self, which: &Members<'_>) -> Result<Found, ReadError> {
        match which {
            Members::All => self.found(Section::Members, usize::MAX, &mut |_, _| true),
            Members::Ids(ids) => {
                let ids: HashSet<u64> = ids.iter().copied().collect();
                self.found(Section::Members, usize::MAX, &mut |id, _| ids.contains(&id))
            }
            Members::Prefix(prefix, limit) => {
                let prefix = prefix.to_lowercase();
                self.found(Section::Members, *limit, &mut |_, member| is_named(member, &prefix))
            }
        }
    }

    /// The presences of these users. Who has none is offline.
    ///
    /// # Errors
    /// If the stored guild is damaged.
    pub fn presences(&self, users: &[u64]) -> Result<Found, ReadError> {
        let users: HashSet<u64> = users.iter().copied().collect();
        self.found(Section::Presences, usize::MAX, &mut |id, _| users.contains(&id))
    }

    /// Appends the `soundboard_sounds` of SOUNDBOARD_SOUNDS, an array; `false` and nothing if they aren't known.
    ///
    /// # Errors
    /// If the stored guild is damaged.
    pub fn soundboard_sounds(&self, out: &mut Vec<u8>) -> Result<bool, ReadError> {
        if !self.context.kept.has(Section::Sounds) || self.unavailable() {
            return Ok(false);
        }
        let mut sounds = vec![b'['];
        self.each(Section::Sounds, &mut |_, sound| {
            if sounds.len() > 1 {
                sounds.push(b',');
            }
            sounds.extend_from_slice(sound);
        })?;
        sounds.push(b']');
        out.extend_from_slice(&sounds);
        Ok(true)
    }

    /// The guild for `Guilds::restore`, without presences.
    #[must_use]
    pub fn checkpoint(&self) -> Vec<u8> {
        checkpoint::encode(self.id, &self.record, self.context.kept)
    }

    fn found(
        &self,
        section: Section,
        limit: usize,
        wanted: &mut dyn FnMut(u64, &[u8]) -> bool,
    ) -> Result<Found, ReadError> {
        let mut found = Found::default();
        self.each(section, &mut |id, bytes| {
            if let Some(id) = id.filter(|id| found.len() < limit && wanted(*id, bytes)) {
                found.push(id, bytes);
            }
        })?;
        Ok(found)
    }

    fn each(&self, section: Section, each: &mut dyn FnMut(Option<u64>, &[u8])) -> Result<(), ReadError> {
        let mut raw = Vec::new();
        self.with_list(section, &mut raw, |stored| {
            merge::resolve(section, &stored, &self.record.changes, &mut |entity| {
                each(entity.id, &entity.bytes)
            })
        })
    }

    fn with_list<T>(
        &self,
        section: Section,
        raw: &mut Vec<u8>,
        read: impl FnOnce(Stored<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let block: Block = section.block();
        let Some(base) = &self.record.base else { return read(Stored::Absent) };
        base[block as usize].unpack(raw)?;
        let parts = base::read(block, raw)?;
        let stored = parts.lists.iter().find(|(its, _)| *its == section).map(|(_, stored)| *stored);
        read(stored.unwrap_or(Stored::Absent))
    }
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    nick: Option<String>,
    user: NamedUser,
}

#[derive(Deserialize)]
struct NamedUser {
    #[serde(default)]
    username: Option<String>,
}

fn is_named(member: &[u8], prefix: &str) -> bool {
    let Ok(member) = serde_json::from_slice::<Named>(member) else { return false };
    let names = [member.user.username, member.nick];
    names.into_iter().flatten().any(|name| name.to_lowercase().starts_with(prefix))
}
