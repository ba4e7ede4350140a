// SPDX-License-Identifier: AGPL-3.0-only
//! Events about the guild itself, its roles, emojis, stickers, sounds and scheduled events.
//! In: `d`. Out: changes of the record.

use super::{Context, Outcome, missing, required};
use crate::changes::{Entry, Slot};
use crate::json::{self, Error, Fields};
use crate::patch;
use crate::record::Record;
use crate::section::Section;

/// GUILD_UPDATE is a guild object without the extra fields of GUILD_CREATE: what it has is newer, the rest stays.
pub(super) fn update(record: &mut Record, context: Context, d: &[u8]) -> Result<Outcome, Error> {
    let mut fields = Fields::parse(d)?;
    fields.remove("id");
    let mut lists = Vec::new();
    for section in Section::ALL {
        if let Some(raw) = fields.remove(section.name()).filter(|raw| !json::is_null(Some(raw))) {
            json::elements(raw.as_bytes())?;
            lists.push((section, raw));
        }
    }
    for (section, raw) in lists.into_iter().filter(|(section, _)| context.kept.has(*section)) {
        record.changes.whole(section, raw.as_bytes());
    }
    if let Some(count) = fields.get("member_count").and_then(|count| count.parse().ok()) {
        fields.remove("member_count");
        record.member_count = Some(count);
        record.changes.clear_joined();
    }
    if let Some(large) = fields.get("large").and_then(|large| large.parse().ok()) {
        fields.remove("large");
        record.large = Some(large);
    }
    let data = match record.changes.get(Slot::Guild, 0) {
        Some(old) => {
            let mut both = Fields::parse(&old.data)?;
            for (key, value) in fields.iter() {
                both.set(key.to_owned(), value);
            }
            both.object()
        }
        None => fields.object(),
    };
    let entry = Entry { data: data.into(), fresh: false, gone: false, joined: false };
    record.changes.insert(Slot::Guild, 0, entry);
    Ok(Outcome::Changed)
}

/// An event that brings a whole list.
pub(super) fn whole(record: &mut Record, section: Section, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let array = fields.get(section.name()).ok_or_else(|| missing(section.name()))?;
    json::elements(array.as_bytes())?;
    record.changes.whole(section, array.as_bytes());
    Ok(Outcome::Changed)
}

pub(super) fn put_role(record: &mut Record, d: &[u8], fresh: bool) -> Result<Outcome, Error> {
    let outer = Fields::parse(d)?;
    let role = Fields::parse(outer.get("role").ok_or_else(|| missing("role"))?.as_bytes())?;
    record.changes.put(Section::Roles, required(&role, "id")?, &role, fresh);
    Ok(Outcome::Changed)
}

/// GUILD_SOUNDBOARD_SOUNDS_UPDATE: "multiple guild soundboard sounds are updated", the others stay.
pub(super) fn sounds(record: &mut Record, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let array = fields.get(Section::Sounds.name()).ok_or_else(|| missing("soundboard_sounds"))?;
    let mut sounds = Vec::new();
    for sound in json::elements(array.as_bytes())? {
        let sound = Fields::parse(sound.as_bytes())?;
        sounds.push((required(&sound, "sound_id")?, sound));
    }
    for (id, sound) in sounds {
        record.changes.put(Section::Sounds, id, &sound, false);
    }
    Ok(Outcome::Changed)
}

/// Completed (3) and cancelled (4) events are no longer listed ("Guild Scheduled Event Status").
pub(super) fn put_scheduled_event(record: &mut Record, d: &[u8], fresh: bool) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = required(&fields, "id")?;
    if matches!(fields.get("status"), Some("3" | "4")) {
        record.changes.gone(Section::ScheduledEvents, id);
    } else {
        let fields = patch::as_stored(Section::ScheduledEvents, &fields);
        record.changes.put(Section::ScheduledEvents, id, &fields, fresh);
    }
    Ok(Outcome::Changed)
}

pub(super) fn count_users(record: &mut Record, d: &[u8], change: i32) -> Result<Outcome, Error> {
    let id = required(&Fields::parse(d)?, "guild_scheduled_event_id")?;
    if record.changes.is_gone(Section::ScheduledEvents, id) {
        return Ok(Outcome::Unchanged);
    }
    record.changes.edit_note(id, |note| note.count += change);
    Ok(Outcome::Changed)
}
