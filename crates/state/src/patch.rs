// SPDX-License-Identifier: AGPL-3.0-only
//! Single fields of an entity that events change without bringing the entity. In: a patch, an object whose keys
//! begin with what to do (`=` set, `?` set if the entity has the field, `-` remove), notes, the own user.
//! Out: the entity's bytes with all that done, in their old order.

use crate::changes::Note;
use crate::json::{self, Fields};
use crate::section::{Carry, Section};

/// A patch without the fields that `newer` has; `None` if nothing is left.
pub(crate) fn without(patch: &[u8], newer: &Fields<'_>) -> Option<Vec<u8>> {
    let patch = Fields::parse(patch).ok()?;
    let mut rest = Fields::default();
    for (key, value) in patch.iter().filter(|(key, _)| !newer.has(name(key))) {
        rest.set(key, value);
    }
    if rest.is_empty() { None } else { Some(rest.object()) }
}

/// A patch after another.
pub(crate) fn combined(old: &[u8], new: &Fields<'_>) -> Vec<u8> {
    let old = Fields::parse(old).unwrap_or_default();
    let mut both = Fields::default();
    for (key, value) in old.iter().filter(|(key, _)| !new.iter().any(|(newer, _)| name(newer) == name(key))) {
        both.set(key, value);
    }
    for (key, value) in new.iter() {
        both.set(key, value);
    }
    both.object()
}

/// `new`, with what it leaves as it was in `old`.
pub(crate) fn carried(section: Section, old: &[u8], new: &Fields<'_>) -> Vec<u8> {
    let Ok(old) = Fields::parse(old) else { return new.object() };
    match section.carry() {
        Carry::All => {
            let mut fields = old.clone();
            for (key, value) in new.iter() {
                fields.set(key.to_owned(), value);
            }
            fields.object()
        }
        Carry::Fields(keys) => {
            let mut fields = new.clone();
            for &key in keys {
                if let (None, Some(value)) = (new.get(key), old.get(key)) {
                    fields.set(key, value);
                }
            }
            fields.object()
        }
    }
}

/// The entity after the patch.
pub(crate) fn patched(entity: &[u8], patch: &[u8]) -> Vec<u8> {
    let (Ok(mut fields), Ok(patch)) = (Fields::parse(entity), Fields::parse(patch)) else {
        return entity.to_vec();
    };
    for (key, value) in patch.iter() {
        let name = name(key);
        match key.as_bytes().first() {
            Some(b'-') => drop(fields.remove(name)),
            Some(b'?') if !fields.has(name) => {}
            _ => fields.set(name, value),
        }
    }
    fields.object()
}

fn name(key: &str) -> &str {
    key.get(1..).unwrap_or("")
}

/// Threads older than 2022-07-01T00:00:00Z stop counting messages at 50 ("Threads", section "Thread Fields").
const COUNTS_PAST_50: u64 = (1_656_633_600_000 - 1_420_070_400_000) << 22;

/// The entity after what was noted of it.
pub(crate) fn noted(section: Section, id: u64, entity: &[u8], note: &Note) -> Vec<u8> {
    let Ok(mut fields) = Fields::parse(entity) else { return entity.to_vec() };
    let is_forum = section == Section::Channels && matches!(fields.get("type"), Some("15" | "16"));
    let last = if is_forum { note.thread } else { note.last };
    let last = format!("\"{last}\"");
    if section != Section::ScheduledEvents && last != "\"0\"" {
        fields.set("last_message_id", &last);
    }
    let counted = |key: &str, change: i32| {
        let old: i64 = fields.get(key)?.parse().ok()?;
        let new = old.saturating_add(i64::from(change)).max(0);
        let capped = section == Section::Threads && id < COUNTS_PAST_50;
        (change != 0).then(|| if capped { new.min(old.max(50)) } else { new }.to_string())
    };
    let counts = match section {
        Section::Threads => {
            [("message_count", note.count), ("total_message_sent", note.total)].as_slice().to_vec()
        }
        Section::ScheduledEvents => vec![("user_count", note.count)],
        _ => Vec::new(),
    };
    let counts: Vec<(&str, String)> =
        counts.into_iter().filter_map(|(key, change)| Some((key, counted(key, change)?))).collect();
    for (key, value) in &counts {
        fields.set(*key, value);
    }
    fields.object()
}

/// A member with the own user's new fields, as far as a member's user has them.
pub(crate) fn with_user(member: &[u8], user: &[u8]) -> Vec<u8> {
    let parsed = Fields::parse(member).and_then(|fields| Ok((fields, Fields::parse(user)?)));
    let Ok((mut fields, user)) = parsed else { return member.to_vec() };
    let Some(old) = fields.get("user") else { return member.to_vec() };
    let Ok(mut merged) = Fields::parse(old.as_bytes()) else { return member.to_vec() };
    for (key, value) in user.iter().filter(|(key, _)| *key != "id") {
        if merged.has(key) {
            merged.set(key, value);
        }
    }
    let merged = merged.object();
    let Ok(merged) = std::str::from_utf8(&merged) else { return member.to_vec() };
    fields.set("user", merged);
    fields.object()
}

/// An event's entity as GUILD_CREATE would have it.
pub(crate) fn as_stored<'a>(section: Section, fields: &Fields<'a>) -> Fields<'a> {
    let mut fields = fields.clone();
    for key in section.event_only() {
        fields.remove(key);
    }
    fields
}

/// A thread member as it stands in a thread of GUILD_CREATE: without `id` and `user_id` ("Thread Member Object"),
/// and without what THREAD_MEMBERS_UPDATE adds.
pub(crate) fn thread_member(raw: &str) -> Result<String, json::Error> {
    let mut fields = Fields::parse(raw.as_bytes())?;
    for key in ["id", "user_id", "guild_id", "member", "presence"] {
        fields.remove(key);
    }
    Ok(String::from_utf8(fields.object()).unwrap_or_default())
}
