// SPDX-License-Identifier: AGPL-3.0-only
//! Events about members, presences and voice states. The own member is kept whatever the settings say.
//! In: `d`. Out: changes of the record, and its member count.

use std::sync::Arc;

use super::{Context, Outcome, missing, required};
use crate::changes::{Entry, Slot};
use crate::json::{self, Error, Fields};
use crate::patch;
use crate::record::Record;
use crate::section::Section;

/// GUILD_MEMBER_ADD counts, unless the member is known already. The base isn't unpacked to find out: whoever
/// turns up in it when it is, was counted twice.
pub(super) fn add(record: &mut Record, context: Context, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = user_id(&fields)?;
    if !keeps(context, id) {
        count(record, 1);
        return Ok(Outcome::Changed);
    }
    let (known, first) = match record.changes.get(Slot::Entity(Section::Members), id) {
        Some(entry) => (!entry.gone, false),
        None => (false, true),
    };
    put_member(record, id, &fields, true);
    if !known {
        count(record, 1);
    }
    if first {
        record.changes.mark_joined(id);
    }
    Ok(Outcome::Changed)
}

pub(super) fn update(record: &mut Record, context: Context, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = user_id(&fields)?;
    if !keeps(context, id) {
        return Ok(Outcome::Unchanged);
    }
    put_member(record, id, &fields, false);
    Ok(Outcome::Changed)
}

/// GUILD_MEMBER_REMOVE: whoever left has no presence and no voice state here.
pub(super) fn remove(record: &mut Record, context: Context, d: &[u8]) -> Result<Outcome, Error> {
    let id = user_id(&Fields::parse(d)?)?;
    count(record, -1);
    for section in [Section::Members, Section::VoiceStates, Section::Presences] {
        if context.kept.has(section) {
            record.changes.gone(section, id);
        }
    }
    Ok(Outcome::Changed)
}

pub(super) fn chunk(record: &mut Record, context: Context, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let mut members = Vec::new();
    for raw in json::elements(fields.get("members").ok_or_else(|| missing("members"))?.as_bytes())? {
        let member = Fields::parse(raw.as_bytes())?;
        members.push((user_id(&member)?, member));
    }
    let mut presences = Vec::new();
    let raw = fields.get("presences").filter(|raw| !json::is_null(Some(raw)));
    for raw in json::elements(raw.unwrap_or("[]").as_bytes())? {
        let presence = Fields::parse(raw.as_bytes())?;
        presences.push((user_id(&presence)?, presence));
    }
    for (id, member) in members.into_iter().filter(|(id, _)| keeps(context, *id)) {
        put_member(record, id, &member, false);
    }
    if context.kept.has(Section::Presences) {
        for (id, presence) in presences {
            put_presence(record, id, &presence);
        }
    }
    Ok(Outcome::Changed)
}

pub(super) fn presence(record: &mut Record, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = user_id(&fields)?;
    put_presence(record, id, &fields);
    Ok(Outcome::Presences)
}

/// Who goes offline is no longer listed: no presence means offline.
fn put_presence(record: &mut Record, id: u64, fields: &Fields<'_>) {
    if fields.get("status").is_some_and(|status| json::is_text(status, "offline")) {
        record.changes.gone(Section::Presences, id);
    } else {
        let fields = patch::as_stored(Section::Presences, fields);
        record.changes.put(Section::Presences, id, &fields, false);
    }
}

/// VOICE_STATE_UPDATE: without a channel the user left. It brings the member, who may be new to an incomplete list.
pub(super) fn voice_state(record: &mut Record, context: Context, d: &[u8]) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = required(&fields, "user_id")?;
    let left = fields.get("channel_id").is_none_or(|raw| json::is_null(Some(raw)));
    let member = match fields.get("member").filter(|raw| !left && !json::is_null(Some(raw))) {
        Some(raw) => Some(Fields::parse(raw.as_bytes())?),
        None => None,
    };
    let member = member.filter(|member| keeps(context, id) && user_id(member).is_ok_and(|it| it == id));
    if !context.kept.has(Section::VoiceStates) && member.is_none() {
        return Ok(Outcome::Unchanged);
    }
    if context.kept.has(Section::VoiceStates) {
        if left {
            record.changes.gone(Section::VoiceStates, id);
        } else {
            let fields = patch::as_stored(Section::VoiceStates, &fields);
            record.changes.put(Section::VoiceStates, id, &fields, true);
        }
    }
    if let Some(member) = member {
        put_member(record, id, &member, false);
    }
    Ok(Outcome::Changed)
}

/// USER_UPDATE, in each guild. What it leaves out stays as an earlier one had it; as it leaves out nothing most of
/// the time, the guilds share its bytes.
pub(crate) fn update_own_user(record: &mut Record, id: u64, user: &Arc<[u8]>) -> Result<Outcome, Error> {
    let mut data = Arc::clone(user);
    if let Some(old) = record.changes.get(Slot::OwnUser, id) {
        let new = Fields::parse(user)?;
        if Fields::parse(&old.data)?.iter().any(|(key, _)| !new.has(key)) {
            data = patch::carried(Section::Members, &old.data, &new).into();
        }
    }
    let entry = Entry { data, fresh: false, gone: false, joined: false };
    record.changes.insert(Slot::OwnUser, id, entry);
    Ok(Outcome::Changed)
}

fn put_member(record: &mut Record, id: u64, fields: &Fields<'_>, fresh: bool) {
    record.changes.put(Section::Members, id, &patch::as_stored(Section::Members, fields), fresh);
}

fn keeps(context: Context, id: u64) -> bool {
    context.kept.has(Section::Members) || id == context.own_user
}

fn count(record: &mut Record, change: i64) {
    record.member_count = record.member_count.map(|count| count.saturating_add_signed(change));
}

fn user_id(fields: &Fields<'_>) -> Result<u64, Error> {
    let user = fields.get("user").ok_or_else(|| missing("user"))?;
    required(&Fields::parse(user.as_bytes())?, "id")
}
