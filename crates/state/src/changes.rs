// SPDX-License-Identifier: AGPL-3.0-only
//! What changed in a guild since its base. In: entities, patches, removals, as the reducer names them. Out: the
//! latest of each per entity, in Discord's bytes, and how many bytes that is per block. An entity has at most one
//! entry (put, or gone) and one patch; the patch is always the newer one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::json::Fields;
use crate::patch;
use crate::section::{BLOCKS, Block, Section};

/// What an entry is about: a section's entity, or one of the rarer things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    /// The guild's own fields from GUILD_UPDATE, as one object.
    Guild,
    /// The list as a whole, as an array; entities stand for what came after.
    Whole(Section),
    /// All threads of the channel with this id were dropped (0: of the guild).
    Cleared,
    /// The latest of an entity.
    Entity(Section),
    /// Fields of an entity that changed by themselves. A thread's stand under `Channels`.
    Patch(Section),
    /// The user object of USER_UPDATE, for the own member.
    OwnUser,
}

impl Slot {
    /// The slot of an entity's patch: CHANNEL_PINS_UPDATE doesn't say whether it means a channel or a thread.
    pub(crate) fn patch(section: Section) -> Slot {
        Slot::Patch(if section == Section::Threads { Section::Channels } else { section })
    }

    fn block(self) -> Block {
        match self {
            Slot::Guild | Slot::Cleared => Block::Guild,
            Slot::OwnUser => Block::Members,
            Slot::Whole(section) | Slot::Entity(section) | Slot::Patch(section) => section.block(),
        }
    }
}

/// One change.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// JSON; without meaning if the entity is gone.
    pub(crate) data: Arc<[u8]>,
    /// Nothing of what the base has under this id is left in it.
    pub(crate) fresh: bool,
    pub(crate) gone: bool,
    /// It was counted as a new member; not rightly so if the base has it.
    pub(crate) joined: bool,
}

/// What messages and counters did to a channel, thread or scheduled event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// The last message's id; 0: none.
    pub(crate) last: u64,
    /// The last created thread's id, if this is a forum; 0: none.
    pub(crate) thread: u64,
    /// To be added to `message_count`, or to `user_count`.
    pub(crate) count: i32,
    /// To be added to `total_message_sent`.
    pub(crate) total: i32,
    /// How often `count` and `total` began anew: a compaction that folded in earlier counts must not take them off
    /// later ones.
    resets: [u16; 2],
}

/// Key, entry and the allocation's own words, at the average fill of a tree's nodes: 16 + 24 at 3/4, and 16 + 8.
const ENTRY_COST: usize = 78;
/// 8 + 32 at 3/4.
const NOTE_COST: usize = 53;

/// All changes of a guild.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    entries: BTreeMap<(Slot, u64), Entry>,
    notes: BTreeMap<u64, Note>,
    bytes: [usize; BLOCKS],
}

impl Changes {
    pub(crate) fn get(&self, slot: Slot, id: u64) -> Option<&Entry> {
        if self.entries.is_empty() { None } else { self.entries.get(&(slot, id)) }
    }

    pub(crate) fn in_slot(&self, slot: Slot) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.range(all_of(slot)).map(|((_, id), entry)| (*id, entry))
    }

    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.in_slot(slot).next().is_some()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (Slot, u64, &Entry)> {
        self.entries.iter().map(|((slot, id), entry)| (*slot, *id, entry))
    }

    pub(crate) fn note(&self, id: u64) -> Option<&Note> {
        if self.notes.is_empty() { None } else { self.notes.get(&id) }
    }

    pub(crate) fn notes(&self) -> impl Iterator<Item = (u64, &Note)> {
        self.notes.iter().map(|(id, note)| (*id, note))
    }

    pub(crate) fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.notes.len()
    }

    /// Bytes of a block's entries with what storing them costs.
    pub(crate) fn bytes(&self, block: Block) -> usize {
        let notes = if block == Block::Guild { self.notes.len() * NOTE_COST } else { 0 };
        self.bytes[block as usize] + notes
    }

    /// Bytes of all changes with what storing them costs.
    pub(crate) fn all_bytes(&self) -> usize {
        Block::ALL.into_iter().map(|block| self.bytes(block)).sum()
    }

    pub(crate) fn insert(&mut self, slot: Slot, id: u64, entry: Entry) {
        let block = slot.block() as usize;
        self.bytes[block] += entry.data.len() + ENTRY_COST;
        if let Some(old) = self.entries.insert((slot, id), entry) {
            self.bytes[block] -= old.data.len() + ENTRY_COST;
        }
    }

    pub(crate) fn remove(&mut self, slot: Slot, id: u64) -> Option<Entry> {
        let old = self.entries.remove(&(slot, id))?;
        self.bytes[slot.block() as usize] -= old.data.len() + ENTRY_COST;
        Some(old)
    }

    /// A note that comes to nothing stays until a compaction: one that runs may put an earlier state of it into the base.
    pub(crate) fn edit_note(&mut self, id: u64, edit: impl FnOnce(&mut Note)) {
        edit(self.notes.entry(id).or_default());
    }

    /// Nothing of what was noted holds for the entity that has this id from now on.
    fn reset_note(&mut self, id: u64) {
        if let Some(note) = self.notes.get_mut(&id) {
            (note.last, note.thread) = (0, 0);
            note.reset_count();
            note.reset_total();
        }
    }

    /// An entity as an event brought it; `fresh`: the event has all of it, an earlier one is forgotten.
    pub(crate) fn put(&mut self, section: Section, id: u64, fields: &Fields<'_>, fresh: bool) {
        let slot = Slot::Entity(section);
        let old = self.entries.get(&(slot, id));
        let joined = old.is_some_and(|old| old.joined);
        let anew = fresh || old.is_some_and(|old| old.gone);
        let (data, fresh) = match old {
            Some(old) if !anew => {
                // With patch and notes: a running compaction may take these away, and what is carried on must not
                // be older than they are.
                let now = self.finished(section, id, Cow::Borrowed(&*old.data));
                (patch::carried(section, &now, fields), old.fresh)
            }
            _ => (fields.object(), anew),
        };
        if anew {
            self.remove(Slot::patch(section), id);
            self.reset_note(id);
        } else if self.get(Slot::patch(section), id).is_some() || self.note(id).is_some() {
            self.supersede(section, id, &Fields::parse(&data).unwrap_or_default());
        }
        if section == Section::Members && fields.has("user") {
            self.remove(Slot::OwnUser, id);
        }
        self.insert(slot, id, Entry { data: data.into(), fresh, gone: false, joined });
    }

    /// What the entity's new bytes say is newer than what was noted before.
    fn supersede(&mut self, section: Section, id: u64, fields: &Fields<'_>) {
        if let Some(entry) = self.get(Slot::patch(section), id) {
            let data = Arc::clone(&entry.data);
            match patch::without(&data, fields) {
                Some(rest) => self.insert(Slot::patch(section), id, patch_entry(rest)),
                None => drop(self.remove(Slot::patch(section), id)),
            }
        }
        if self.notes.contains_key(&id) {
            self.edit_note(id, |note| {
                if fields.has("last_message_id") {
                    (note.last, note.thread) = (0, 0);
                }
                if fields.has("message_count") || fields.has("user_count") {
                    note.reset_count();
                }
                if fields.has("total_message_sent") {
                    note.reset_total();
                }
            });
        }
    }

    /// The entity after patch, notes and the own user's change.
    pub(crate) fn finished<'a>(&self, section: Section, id: u64, bytes: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        let bytes = match self.get(Slot::patch(section), id) {
            Some(entry) => Cow::Owned(patch::patched(&bytes, &entry.data)),
            None => bytes,
        };
        let noted = matches!(section, Section::Channels | Section::Threads | Section::ScheduledEvents);
        let bytes = match self.note(id).filter(|_| noted) {
            Some(note) => Cow::Owned(patch::noted(section, id, &bytes, note)),
            None => bytes,
        };
        match self.get(Slot::OwnUser, id).filter(|_| section == Section::Members) {
            Some(user) => Cow::Owned(patch::with_user(&bytes, &user.data)),
            None => bytes,
        }
    }

    /// Changes single fields of an entity, if there is one (see `patch`).
    pub(crate) fn patch(&mut self, section: Section, id: u64, fields: &Fields<'_>) {
        let slot = Slot::patch(section);
        let data = match self.get(slot, id) {
            Some(old) => {
                let data = Arc::clone(&old.data);
                patch::combined(&data, fields)
            }
            None => fields.object(),
        };
        self.insert(slot, id, patch_entry(data));
    }

    pub(crate) fn gone(&mut self, section: Section, id: u64) {
        let joined = self.get(Slot::Entity(section), id).is_some_and(|entry| entry.joined);
        self.remove(Slot::patch(section), id);
        self.reset_note(id);
        // Of a list that came anew, so that `settle` tells it from one that was gone before: all empty data is one.
        let data = if self.has(Slot::Whole(section)) { Arc::from([b'0']) } else { Arc::default() };
        let entry = Entry { data, fresh: false, gone: true, joined };
        self.insert(Slot::Entity(section), id, entry);
    }

    pub(crate) fn is_gone(&self, section: Section, id: u64) -> bool {
        self.get(Slot::Entity(section), id).is_some_and(|entry| entry.gone)
    }

    /// Marks a member as counted.
    pub(crate) fn mark_joined(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&(Slot::Entity(Section::Members), id)) {
            entry.joined = true;
        }
    }

    /// The count was set by Discord: nothing is left to correct.
    pub(crate) fn clear_joined(&mut self) {
        for (_, entry) in self.entries.range_mut(all_of(Slot::Entity(Section::Members))) {
            entry.joined = false;
        }
    }

    /// The list is this one now.
    pub(crate) fn whole(&mut self, section: Section, array: &[u8]) {
        for slot in [Slot::Entity(section), Slot::Patch(section)] {
            let ids: Vec<u64> = self.in_slot(slot).map(|(id, _)| id).collect();
            for id in ids {
                self.remove(slot, id);
            }
        }
        let entry = Entry { data: array.into(), fresh: false, gone: false, joined: false };
        self.insert(Slot::Whole(section), 0, entry);
    }

    /// Drops the threads of a channel, or of the guild.
    pub(crate) fn clear_threads(&mut self, channel: Option<u64>) {
        let slot = Slot::Entity(Section::Threads);
        let cleared = |entry: &Entry| match channel {
            None => true,
            Some(channel) => parent_of(&entry.data) == Some(channel),
        };
        let threads = self.in_slot(slot).filter(|(_, entry)| !entry.gone && cleared(entry));
        let ids: Vec<u64> = threads.map(|(id, _)| id).collect();
        for id in ids {
            self.gone(Section::Threads, id);
        }
        // One byte, so that each clearing has an allocation of its own: `settle` tells them apart by it.
        let entry = Entry { data: Arc::from([b'0']), fresh: false, gone: false, joined: false };
        self.insert(Slot::Cleared, channel.unwrap_or(0), entry);
    }

    pub(crate) fn is_cleared(&self, parent: Option<u64>) -> bool {
        self.get(Slot::Cleared, 0).is_some()
            || parent.is_some_and(|parent| self.get(Slot::Cleared, parent).is_some())
    }

    /// Forgets what `done`, an earlier state of these changes, put into the base of these blocks. Gives back the
    /// members that were counted after all: those of `counted_twice` that still are.
    pub(crate) fn settle(&mut self, done: &Changes, blocks: &[Block], counted_twice: &[u64]) -> u64 {
        let mut corrected = 0;
        for ((slot, id), entry) in done.entries.iter().filter(|((slot, _), _)| blocks.contains(&slot.block()))
        {
            let Some(current) = self.entries.get_mut(&(*slot, *id)) else { continue };
            if entry.joined && current.joined {
                current.joined = false;
                corrected += u64::from(counted_twice.contains(id));
            }
            if Arc::ptr_eq(&current.data, &entry.data) && current.gone == entry.gone {
                self.remove(*slot, *id);
            }
        }
        if blocks.contains(&Block::Guild) {
            for (id, note) in &done.notes {
                self.edit_note(*id, |current| current.subtract(note));
            }
            self.notes.retain(|_, note| {
                note.resets = [0, 0];
                *note != Note::default()
            });
        }
        corrected
    }
}

impl Note {
    fn subtract(&mut self, done: &Note) {
        if self.last == done.last {
            self.last = 0;
        }
        if self.thread == done.thread {
            self.thread = 0;
        }
        if self.resets[0] == done.resets[0] {
            self.count -= done.count;
        }
        if self.resets[1] == done.resets[1] {
            self.total -= done.total;
        }
    }

    fn reset_count(&mut self) {
        self.count = 0;
        self.resets[0] = self.resets[0].wrapping_add(1);
    }

    fn reset_total(&mut self) {
        self.total = 0;
        self.resets[1] = self.resets[1].wrapping_add(1);
    }
}

fn patch_entry(data: Vec<u8>) -> Entry {
    Entry { data: data.into(), fresh: false, gone: false, joined: false }
}

fn all_of(slot: Slot) -> RangeInclusive<(Slot, u64)> {
    (slot, 0)..=(slot, u64::MAX)
}

/// A thread's parent channel.
pub(crate) fn parent_of(thread: &[u8]) -> Option<u64> {
    Fields::parse(thread).ok()?.snowflake("parent_id")
}
