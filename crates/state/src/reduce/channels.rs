// SPDX-License-Identifier: AGPL-3.0-only
//! Events about channels, threads, and messages as far as they change these.
//! In: `d`. Out: changes of the record.

use super::{Context, Outcome, missing, required};
use crate::json::{self, Error, Fields};
use crate::patch;
use crate::record::Record;
use crate::section::Section;

/// A channel's threads go with it; there are no events for them.
pub(super) fn delete(record: &mut Record, context: Context, d: &[u8]) -> Result<Outcome, Error> {
    let id = required(&Fields::parse(d)?, "id")?;
    if context.kept.has(Section::Channels) {
        record.changes.gone(Section::Channels, id);
    }
    if context.kept.has(Section::Threads) {
        record.changes.clear_threads(Some(id));
    }
    Ok(Outcome::Changed)
}

/// CHANNEL_PINS_UPDATE: of a channel or of a thread, it doesn't say which.
pub(super) fn pins(record: &mut Record, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = required(&fields, "channel_id")?;
    let value = fields.get("last_pin_timestamp").unwrap_or("null");
    Ok(patch_channel(record, id, &[("=last_pin_timestamp", value)]))
}

/// Status and start time are ephemeral: no documented field of a channel. A channel that came with one gets the new.
pub(super) fn voice_field(record: &mut Record, d: &[u8], key: &'static str) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = required(&fields, "id")?;
    let value = fields.get(key).unwrap_or("null");
    let patch = if key == "status" { "?status" } else { "?voice_start_time" };
    Ok(patch_channel(record, id, &[(patch, value)]))
}

fn patch_channel(record: &mut Record, id: u64, changes: &[(&'static str, &str)]) -> Outcome {
    if is_gone(record, id) {
        return Outcome::Unchanged;
    }
    let mut fields = Fields::default();
    for (key, value) in changes {
        fields.set(*key, value);
    }
    record.changes.patch(Section::Channels, id, &fields);
    Outcome::Changed
}

fn is_gone(record: &Record, id: u64) -> bool {
    record.changes.is_gone(Section::Channels, id) || record.changes.is_gone(Section::Threads, id)
}

/// THREAD_CREATE and THREAD_UPDATE. `threads` lists active threads: an archived one is no longer in it.
pub(super) fn put_thread(
    record: &mut Record,
    context: Context,
    d: &[u8],
    created: bool,
) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = required(&fields, "id")?;
    let archived = match fields.get("thread_metadata") {
        Some(metadata) => json::is_true(Fields::parse(metadata.as_bytes())?.get("archived")),
        None => false,
    };
    let parent = fields.snowflake("parent_id");
    let newly = created && json::is_true(fields.get("newly_created"));
    if let Some(parent) = parent.filter(|_| newly && context.kept.has(Section::Channels))
        && !record.changes.is_gone(Section::Channels, parent)
    {
        record.changes.edit_note(parent, |note| note.thread = id);
    }
    if !context.kept.has(Section::Threads) {
        return Ok(Outcome::Changed);
    }
    if archived {
        record.changes.gone(Section::Threads, id);
        return Ok(Outcome::Changed);
    }
    let mut fields = patch::as_stored(Section::Threads, &fields);
    let member = fields.get("member").filter(|raw| !json::is_null(Some(raw)));
    let member = member.map(patch::thread_member).transpose()?;
    if let Some(member) = &member {
        fields.set("member", member);
    }
    let known = record.changes.get(crate::changes::Slot::Entity(Section::Threads), id).is_some();
    let fresh = !known && record.changes.is_cleared(parent);
    record.changes.put(Section::Threads, id, &fields, fresh);
    Ok(Outcome::Changed)
}

/// THREAD_LIST_SYNC: all active threads of these channels, or of the guild.
pub(super) fn sync_threads(record: &mut Record, context: Context, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let channels = match fields.get("channel_ids").filter(|raw| !json::is_null(Some(raw))) {
        Some(raw) => json::elements(raw.as_bytes())?
            .into_iter()
            .map(|id| json::snowflake(id).map(Some).ok_or_else(|| missing("channel_ids")))
            .collect::<Result<Vec<_>, _>>()?,
        None => vec![None],
    };
    let mut own = Vec::new();
    for member in json::elements(fields.get("members").unwrap_or("[]").as_bytes())? {
        let its = Fields::parse(member.as_bytes())?;
        if its.snowflake("user_id").is_none_or(|user| user == context.own_user) {
            own.push((required(&its, "id")?, patch::thread_member(member)?));
        }
    }
    let mut threads = Vec::new();
    let raw = fields.get("threads").ok_or_else(|| missing("threads"))?;
    for thread in json::elements(raw.as_bytes())? {
        let fields = Fields::parse(thread.as_bytes())?;
        threads.push((required(&fields, "id")?, fields));
    }
    for channel in channels {
        record.changes.clear_threads(channel);
    }
    for (id, thread) in threads {
        let mut thread = patch::as_stored(Section::Threads, &thread);
        if let Some((_, member)) = own.iter().find(|(its, _)| *its == id) {
            thread.set("member", member);
        }
        record.changes.put(Section::Threads, id, &thread, true);
    }
    Ok(Outcome::Changed)
}

/// THREAD_MEMBER_UPDATE: the own membership of a thread.
pub(super) fn own_thread_member(record: &mut Record, context: Context, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = required(&fields, "id")?;
    if fields.snowflake("user_id").is_some_and(|user| user != context.own_user) {
        return Ok(Outcome::Unchanged);
    }
    let text = std::str::from_utf8(d).map_err(|_| missing("text"))?;
    let member = patch::thread_member(text)?;
    Ok(patch_channel(record, id, &[("=member", &member)]))
}

/// THREAD_MEMBERS_UPDATE: the count, and the own membership if it is among them.
pub(super) fn thread_members(record: &mut Record, context: Context, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = required(&fields, "id")?;
    let mut member = None;
    for added in json::elements(fields.get("added_members").unwrap_or("[]").as_bytes())? {
        if Fields::parse(added.as_bytes())?.snowflake("user_id") == Some(context.own_user) {
            member = Some(patch::thread_member(added)?);
        }
    }
    let removed = json::elements(fields.get("removed_member_ids").unwrap_or("[]").as_bytes())?;
    let removed = removed.into_iter().any(|id| json::snowflake(id) == Some(context.own_user));
    let mut changes = Vec::new();
    if let Some(count) = fields.get("member_count") {
        changes.push(("=member_count", count));
    }
    match &member {
        Some(member) => changes.push(("=member", member.as_str())),
        None if removed => changes.push(("-member", "0")),
        None => {}
    }
    Ok(patch_channel(record, id, &changes))
}

pub(super) fn message_create(record: &mut Record, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    Ok(note_message(record, required(&fields, "channel_id")?, required(&fields, "id")?))
}

/// A message's id becomes `last_message_id`; in a thread it counts, unless it is the one that opened the thread,
/// which has the thread's id.
pub(crate) fn note_message(record: &mut Record, channel: u64, message: u64) -> Outcome {
    if is_gone(record, channel) {
        return Outcome::Unchanged;
    }
    record.changes.edit_note(channel, |note| {
        note.last = message;
        if message != channel {
            note.count += 1;
            note.total += 1;
        }
    });
    Outcome::Changed
}

pub(super) fn message_delete(record: &mut Record, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let (channel, id) = (required(&fields, "channel_id")?, required(&fields, "id")?);
    Ok(count_deleted(record, channel, i32::from(id != channel)))
}

pub(super) fn message_delete_bulk(record: &mut Record, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let channel = required(&fields, "channel_id")?;
    let ids = json::elements(fields.get("ids").ok_or_else(|| missing("ids"))?.as_bytes())?;
    let count = ids.into_iter().filter(|id| json::snowflake(id) != Some(channel)).count();
    Ok(count_deleted(record, channel, i32::try_from(count).unwrap_or(i32::MAX)))
}

fn count_deleted(record: &mut Record, channel: u64, count: i32) -> Outcome {
    if count == 0 || is_gone(record, channel) {
        return Outcome::Unchanged;
    }
    record.changes.edit_note(channel, |note| note.count -= count);
    Outcome::Changed
}
