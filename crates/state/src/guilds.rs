// SPDX-License-Identifier: AGPL-3.0-only
//! All guilds of a shard. In: events with their positions, checkpoints, finished compactions. Out: snapshots, work
//! for other tasks (compactions, checkpoints), what it all takes in memory. Owned by the shard's task; nothing
//! here waits, and nothing here fails the shard: what isn't understood is counted.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use holdfast_discord::EventKind;

use crate::Options;
use crate::base;
use crate::changes::Changes;
use crate::checkpoint::{self, RestoreError};
use crate::compact::{Compacted, Compaction};
use crate::json::{self, Error, Fields};
use crate::record::Record;
use crate::reduce::{self, Context, Outcome};
use crate::section::{Kept, Section};
use crate::snapshot::{GuildSnapshot, Snapshot};

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The guild is different now.
    Changed,
    /// The event doesn't change what is kept.
    Unchanged,
    /// The guild reflects this event already.
    Skipped,
    /// The guild isn't known, or unavailable.
    NoGuild,
    /// The bot is no longer in the guild.
    Removed,
    /// `d` isn't what the documentation says. Counted; nothing changed.
    Malformed,
}

/// What the guilds of a shard take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Guilds, unavailable ones included.
    pub guilds: usize,
    /// Unavailable guilds.
    pub unavailable: usize,
    /// The sum of the guilds' `member_count`.
    pub members: u64,
    /// Bytes of compressed bases.
    pub base_bytes: usize,
    /// Bytes of changes since, with what storing them costs.
    pub change_bytes: usize,
    /// Changes.
    pub changes: usize,
    /// Bytes of the records themselves.
    pub overhead_bytes: usize,
    /// Events whose `d` was not understood, since the start.
    pub malformed: u64,
    /// Events that a record reflected already, since the start.
    pub skipped: u64,
}

/// The guilds of a shard.
#[derive(Debug)]
pub struct Guilds {
    options: Options,
    context: Context,
    records: HashMap<u64, Arc<Record>>,
    /// Guilds that are gone, with the position of that, until their checkpoints are gone too.
    removed: BTreeMap<u64, u64>,
    /// Guilds whose changes have outgrown their base.
    outgrown: VecDeque<u64>,
    /// Those in `outgrown`, and those being compacted.
    queued: HashSet<u64>,
    malformed: u64,
    skipped: u64,
}

impl Guilds {
    /// No guilds.
    #[must_use]
    pub fn new(options: Options) -> Guilds {
        let context = Context { kept: Kept::new(&options), own_user: 0 };
        Guilds {
            options,
            context,
            records: HashMap::new(),
            removed: BTreeMap::new(),
            outgrown: VecDeque::new(),
            queued: HashSet::new(),
            malformed: 0,
            skipped: 0,
        }
    }

    /// The bot's own user, where READY's data comes from a store instead of from Discord.
    pub fn set_user(&mut self, user_id: u64) {
        self.context.own_user = user_id;
    }

    /// READY: guilds that it doesn't list are gone, and returned; those not known yet are unavailable.
    pub fn ready(&mut self, user_id: u64, listed: &[u64]) -> Vec<u64> {
        self.purge(user_id, listed, None)
    }

    /// READY at its place in the log: as `ready`, but guilds that reflect later events stay. For replaying a log over
    /// restored guilds, which may be newer than a READY in it.
    pub fn ready_at(&mut self, user_id: u64, listed: &[u64], position: u64) -> Vec<u64> {
        self.purge(user_id, listed, Some(position))
    }

    fn purge(&mut self, user_id: u64, listed: &[u64], position: Option<u64>) -> Vec<u64> {
        self.context.own_user = user_id;
        let still: HashSet<u64> = listed.iter().copied().collect();
        let older = |record: &Record| position.is_none_or(|position| record.position < position);
        let gone = self.records.iter().filter(|(id, record)| !still.contains(id) && older(record));
        let mut purged: Vec<(u64, u64)> =
            gone.map(|(id, record)| (*id, position.unwrap_or(record.position))).collect();
        purged.sort_unstable();
        for (id, position) in &purged {
            self.remove(*id, *position);
        }
        for id in still {
            self.records.entry(id).or_insert_with(|| Arc::new(Record::unavailable(position.unwrap_or(0))));
        }
        purged.into_iter().map(|(id, _)| id).collect()
    }

    /// Works in an event. `guild`: the guild that it is about; `d`: its data; `position`: its place in the log.
    pub fn apply(&mut self, kind: EventKind, guild: Option<u64>, d: &[u8], position: u64) -> Applied {
        if kind == EventKind::UserUpdate {
            return self.user_update(d, position);
        }
        let Some(guild) = guild else { return Applied::Unchanged };
        match kind {
            EventKind::GuildCreate => return self.guild_create(guild, d, position),
            EventKind::GuildDelete => return self.guild_delete(guild, d, position),
            _ if !reduce::concerns(kind, self.context.kept) => return Applied::Unchanged,
            _ => {}
        }
        let context = self.context;
        self.change(guild, position, |record| reduce::reduce(record, context, kind, d))
    }

    /// MESSAGE_CREATE by what the scanner found: cheaper than `apply`, with the same effect.
    pub fn message(&mut self, guild: u64, channel: u64, id: u64, position: u64) -> Applied {
        if !reduce::concerns(EventKind::MessageCreate, self.context.kept) {
            return Applied::Unchanged;
        }
        self.change(guild, position, |record| Ok(reduce::note_message(record, channel, id)))
    }

    fn change(
        &mut self,
        guild: u64,
        position: u64,
        change: impl FnOnce(&mut Record) -> Result<Outcome, Error>,
    ) -> Applied {
        let Some(record) = self.records.get_mut(&guild) else { return Applied::NoGuild };
        if position <= record.position {
            self.skipped += 1;
            return Applied::Skipped;
        }
        if record.base.is_none() {
            return Applied::NoGuild;
        }
        let record = Arc::make_mut(record);
        match change(record) {
            Ok(Outcome::Unchanged) => Applied::Unchanged,
            Ok(outcome) => {
                record.moved_to(position, outcome == Outcome::Changed);
                if !record.outgrown(&self.options).is_empty() && self.queued.insert(guild) {
                    self.outgrown.push_back(guild);
                }
                Applied::Changed
            }
            Err(_) => {
                self.malformed += 1;
                Applied::Malformed
            }
        }
    }

    fn guild_create(&mut self, guild: u64, d: &[u8], position: u64) -> Applied {
        if self.records.get(&guild).is_some_and(|record| position <= record.position) {
            self.skipped += 1;
            return Applied::Skipped;
        }
        let Some(fields) = object_of(guild, d) else { return self.malformed() };
        if json::is_true(fields.get("unavailable")) {
            return self.insert(guild, Record { position, ..Record::default() });
        }
        match base::split(fields, self.context.kept, self.context.own_user, self.options.level) {
            Ok(split) => {
                let base::Split { base, member_count, large } = split;
                let changes = Changes::default();
                let record =
                    Record { position, unsaved_since: None, base: Some(base), member_count, large, changes };
                self.insert(guild, record)
            }
            Err(_) => self.malformed(),
        }
    }

    fn guild_delete(&mut self, guild: u64, d: &[u8], position: u64) -> Applied {
        let Some(record) = self.records.get(&guild) else { return Applied::NoGuild };
        if position <= record.position {
            self.skipped += 1;
            return Applied::Skipped;
        }
        let Some(fields) = object_of(guild, d) else { return self.malformed() };
        if json::is_true(fields.get("unavailable")) {
            return self.insert(guild, Record { position, ..Record::default() });
        }
        self.remove(guild, position);
        Applied::Removed
    }

    fn insert(&mut self, guild: u64, mut record: Record) -> Applied {
        let unsaved = self.records.get(&guild).and_then(|old| old.unsaved_since);
        record.unsaved_since = Some(unsaved.unwrap_or(record.position));
        self.removed.remove(&guild);
        self.records.insert(guild, Arc::new(record));
        Applied::Changed
    }

    fn remove(&mut self, guild: u64, position: u64) {
        self.records.remove(&guild);
        self.removed.insert(guild, position);
    }

    fn malformed(&mut self) -> Applied {
        self.malformed += 1;
        Applied::Malformed
    }

    /// USER_UPDATE names no guild: the own member of each changes.
    fn user_update(&mut self, d: &[u8], position: u64) -> Applied {
        let own_user = self.context.own_user;
        let Ok(fields) = Fields::parse(d) else { return self.malformed() };
        if fields.snowflake("id") != Some(own_user) {
            return Applied::Unchanged;
        }
        let user: Arc<[u8]> = d.into();
        let ids: Vec<u64> = self.records.keys().copied().collect();
        for guild in ids {
            self.change(guild, position, |record| reduce::update_own_user(record, own_user, &user));
        }
        Applied::Changed
    }

    /// How many guilds there are, unavailable ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All guilds as they are now, by rising id. Costs a reference each.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut guilds: Vec<GuildSnapshot> = self.records.keys().filter_map(|id| self.get(*id)).collect();
        guilds.sort_unstable_by_key(GuildSnapshot::id);
        Snapshot::new(guilds)
    }

    /// One guild as it is now.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<GuildSnapshot> {
        let record = self.records.get(&id)?;
        Some(GuildSnapshot::new(id, Arc::clone(record), self.context))
    }

    /// A guild whose changes have outgrown its base, as work for another task; its result goes to `finish`.
    pub fn compactable(&mut self) -> Option<Compaction> {
        while let Some(guild) = self.outgrown.pop_front() {
            let record = self.records.get(&guild);
            let blocks = record.map(|record| record.outgrown(&self.options)).unwrap_or_default();
            match record {
                Some(record) if !blocks.is_empty() => {
                    return Some(Compaction::new(guild, Arc::clone(record), blocks, self.options.level));
                }
                _ => drop(self.queued.remove(&guild)),
            }
        }
        None
    }

    /// Takes over a compaction. Events that came meanwhile stay in force; a compaction of a guild that was replaced
    /// meanwhile is dropped.
    pub fn finish(&mut self, compacted: Compacted) {
        let guild = compacted.guild();
        self.queued.remove(&guild);
        if let Some(record) = self.records.get_mut(&guild)
            && compacted.fits(record)
        {
            compacted.install(Arc::make_mut(record));
            if !record.outgrown(&self.options).is_empty() && self.queued.insert(guild) {
                self.outgrown.push_back(guild);
            }
        }
    }

    /// Guilds whose checkpoint is older than an event below `before`: at most `max`, those that hold the log longest
    /// first. Each is to be stored and then reported with `saved`.
    #[must_use]
    pub fn dirty(&self, before: u64, max: usize) -> Vec<(u64, GuildSnapshot)> {
        let since = |(id, record): (&u64, &Arc<Record>)| Some((record.unsaved_since?, *id));
        let mut dirty: Vec<(u64, u64)> =
            self.records.iter().filter_map(since).filter(|(since, _)| *since < before).collect();
        dirty.sort_unstable();
        dirty.into_iter().take(max).filter_map(|(_, id)| Some((id, self.get(id)?))).collect()
    }

    /// Guilds that are gone, with the position of that: their checkpoints are to be erased, and reported with `saved`.
    pub fn removed(&self) -> impl Iterator<Item = (u64, u64)> {
        self.removed.iter().map(|(id, position)| (*id, *position))
    }

    /// The guild's checkpoint of this position is stored; or, if the guild is gone, erased.
    pub fn saved(&mut self, guild: u64, position: u64) {
        if self.removed.get(&guild).is_some_and(|its| *its <= position) {
            self.removed.remove(&guild);
        }
        if let Some(record) = self.records.get_mut(&guild)
            && record.unsaved_since.is_some_and(|since| since <= position)
        {
            let since = (record.position > position).then_some(position + 1);
            Arc::make_mut(record).unsaved_since = since;
        }
    }

    /// The oldest event that no stored checkpoint reflects: the log must be kept from here on. `None`: all is stored.
    #[must_use]
    pub fn oldest_unsaved(&self) -> Option<u64> {
        let records = self.records.values().filter_map(|record| record.unsaved_since);
        records.chain(self.removed.values().copied()).min()
    }

    /// A guild from its checkpoint; events after it are to be applied from the log.
    ///
    /// # Errors
    /// If the checkpoint is damaged, of an unknown format, or lacks what is to be kept.
    pub fn restore(&mut self, guild: u64, checkpoint: &[u8]) -> Result<(), RestoreError> {
        let record = checkpoint::decode(checkpoint, guild, self.context.kept)?;
        self.records.insert(guild, Arc::new(record));
        Ok(())
    }

    /// What all this takes.
    #[must_use]
    pub fn memory(&self) -> Memory {
        // A map's slot at 7/8 fill between doublings, the two counters of an `Arc`.
        const PER_RECORD: usize = size_of::<Record>() + 16 + 24;
        let mut memory = Memory {
            guilds: self.records.len(),
            malformed: self.malformed,
            skipped: self.skipped,
            overhead_bytes: self.records.len() * PER_RECORD,
            ..Memory::default()
        };
        for record in self.records.values() {
            memory.unavailable += usize::from(record.base.is_none());
            memory.members += record.member_count.unwrap_or(0);
            memory.base_bytes += record.base_bytes();
            memory.change_bytes += record.changes.all_bytes();
            memory.changes += record.changes.len();
        }
        memory
    }

    /// Whether a list is kept, for readers that would answer from it.
    #[must_use]
    pub fn keeps_members(&self) -> bool {
        self.context.kept.has(Section::Members)
    }
}

/// The guild object, if it is one and this guild's.
fn object_of(guild: u64, d: &[u8]) -> Option<Fields<'_>> {
    Fields::parse(d).ok().filter(|fields| fields.snowflake("id") == Some(guild))
}
