// SPDX-License-Identifier: AGPL-3.0-only
//! GUILD_CREATE's data. In: a record and what the client asked for. Out: JSON as Discord would send it: the base's
//! bytes where nothing changed, changes worked in where something did, lists cut to the client's intents.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::ReadError;
use crate::base::{self, Parts};
use crate::block::Stored;
use crate::changes::Slot;
use crate::json;
use crate::merge::{self, Current};
use crate::record::Record;
use crate::section::{BLOCKS, Block, Section};

/// What a client would see of a guild ("Guild Create", "Request Guild Members").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// `GUILD_PRESENCES`. Without it: no presences, and of the members only the bot and who is in voice.
    pub presences: bool,
    /// `GUILD_MEMBERS`. GUILD_CREATE doesn't depend on it ("Gateway Intents").
    pub members: bool,
    /// `GUILD_VOICE_STATES`
    pub voice_states: bool,
    /// `GUILD_SCHEDULED_EVENTS`
    pub scheduled_events: bool,
    /// `large_threshold` of IDENTIFY, 50 to 250: guilds with more members have only those listed who are online,
    /// have a role or a nickname, or are in voice; and only presences that aren't offline.
    pub large_threshold: u32,
    /// The bot's own user.
    pub own_user: u64,
}

impl View {
    /// Everything that is known.
    #[must_use]
    pub fn everything(own_user: u64) -> View {
        View {
            presences: true,
            members: true,
            voice_states: true,
            scheduled_events: true,
            large_threshold: u32::MAX,
            own_user,
        }
    }
}

/// Beyond this many members a guild is sent as if there was no intent for presences ("Request Guild Members").
const PRESENCES_UP_TO: u64 = 75_000;

/// Scratch space above this is given back: one huge guild must not hold its size in each thread.
const SCRATCH: usize = 4 << 20;

thread_local! {
    static BLOCK: RefCell<[Vec<u8>; BLOCKS]> = const { RefCell::new([const { Vec::new() }; BLOCKS]) };
}

pub(crate) fn guild_create(
    id: u64,
    record: &Record,
    view: &View,
    out: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let Some(base) = &record.base else {
        out.extend_from_slice(format!("{{\"id\":\"{id}\",\"unavailable\":true}}").as_bytes());
        return Ok(());
    };
    BLOCK.with_borrow_mut(|raw| {
        for (packed, raw) in base.iter().zip(raw.iter_mut()) {
            packed.unpack(raw)?;
        }
        let mut parts = Vec::with_capacity(BLOCKS);
        for block in Block::ALL {
            parts.push(base::read(block, &raw[block as usize])?);
        }
        out.reserve(raw.iter().map(Vec::len).sum::<usize>() + record.changes.all_bytes());
        let written = write(record, view, &parts, out);
        raw.iter_mut().filter(|raw| raw.capacity() > SCRATCH).for_each(|raw| *raw = Vec::new());
        written
    })
}

fn write(record: &Record, view: &View, parts: &[Parts<'_>], out: &mut Vec<u8>) -> Result<(), ReadError> {
    let changes = &record.changes;
    let stored = |section: Section| {
        let part = &parts[section.block() as usize];
        part.lists.iter().find(|(its, _)| *its == section).map_or(Stored::Absent, |(_, stored)| *stored)
    };
    out.push(b'{');
    let fields = parts[Block::Guild as usize].fields;
    if changes.has(Slot::Guild) {
        out.extend_from_slice(&base::guild_fields(fields, changes)?);
    } else {
        out.extend_from_slice(fields);
    }
    let twice = merge::counted_twice(&stored(Section::Members), changes).len() as u64;
    let count = record.member_count.map(|count| count.saturating_sub(twice));
    let is_large = count.is_some_and(|count| count > u64::from(view.large_threshold));
    if let Some(count) = count {
        write_field("member_count", count.to_string().as_bytes(), out);
    }
    if let Some(large) = record.large {
        // Without a threshold of its own the client sees what Discord said.
        let large = if view.large_threshold == u32::MAX { large } else { is_large };
        write_field("large", large.to_string().as_bytes(), out);
    }
    let cut = Cut::new(record, view, count, is_large, &stored)?;
    for section in Section::ALL {
        write_list(section, &stored(section), record, &cut, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_field(key: &str, value: &[u8], out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    json::write_key(key, out);
    out.extend_from_slice(value);
}

/// What of the lists the client sees.
struct Cut<'v> {
    view: &'v View,
    /// Only the bot and who is in voice.
    restricted: bool,
    large: bool,
    in_voice: HashSet<u64>,
    online: HashSet<u64>,
}

impl<'v> Cut<'v> {
    fn new<'a>(
        record: &Record,
        view: &'v View,
        count: Option<u64>,
        large: bool,
        stored: &impl Fn(Section) -> Stored<'a>,
    ) -> Result<Cut<'v>, ReadError> {
        let restricted = !view.presences || count.is_some_and(|count| count > PRESENCES_UP_TO);
        let mut cut = Cut { view, restricted, large, in_voice: HashSet::new(), online: HashSet::new() };
        if restricted || large {
            let list = stored(Section::VoiceStates);
            merge::resolve(Section::VoiceStates, &list, &record.changes, &mut |it| {
                cut.in_voice.extend(it.id)
            })?;
        }
        if large && !restricted {
            let list = stored(Section::Presences);
            merge::resolve(Section::Presences, &list, &record.changes, &mut |it| {
                cut.online.extend(it.id.filter(|_| it.traits(Section::Presences).notable));
            })?;
        }
        Ok(cut)
    }

    fn is_whole(&self, section: Section) -> bool {
        !(self.restricted || self.large) || !matches!(section, Section::Members | Section::Presences)
    }

    fn is_empty(&self, section: Section) -> bool {
        match section {
            Section::Presences => !self.view.presences,
            Section::VoiceStates => !self.view.voice_states,
            Section::ScheduledEvents => !self.view.scheduled_events,
            _ => false,
        }
    }

    fn shows(&self, section: Section, entity: &Current<'_>) -> bool {
        let Some(id) = entity.id else { return !self.restricted };
        let near = id == self.view.own_user || self.in_voice.contains(&id);
        match section {
            Section::Members if self.restricted => near,
            Section::Members if self.large => {
                near || self.online.contains(&id) || entity.traits(section).notable
            }
            Section::Presences if self.restricted => near,
            Section::Presences if self.large => entity.traits(section).notable,
            _ => true,
        }
    }
}

fn write_list(
    section: Section,
    stored: &Stored<'_>,
    record: &Record,
    cut: &Cut<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let untouched = merge::untouched(section, &record.changes);
    match stored {
        Stored::Absent if untouched => return Ok(()),
        Stored::Null if untouched => {
            write_field(section.name(), b"null", out);
            return Ok(());
        }
        _ => {}
    }
    write_field(section.name(), b"[", out);
    let start = out.len();
    match stored {
        _ if cut.is_empty(section) => {}
        Stored::List(list) if untouched && cut.is_whole(section) => out.extend_from_slice(list.joined),
        _ => merge::resolve(section, stored, &record.changes, &mut |entity| {
            if cut.is_whole(section) || cut.shows(section, &entity) {
                if out.len() > start {
                    out.push(b',');
                }
                out.extend_from_slice(&entity.bytes);
            }
        })?,
    }
    out.push(b']');
    Ok(())
}
