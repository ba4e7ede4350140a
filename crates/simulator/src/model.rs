// SPDX-License-Identifier: AGPL-3.0-only
//! What an event does to a guild, on full JSON trees.
//!
//! In: a guild as GUILD_CREATE shows it, an event. Out: the guild as GUILD_CREATE would show it afterwards. Written
//! from the documentation (events/gateway-events), naive on purpose: tests compare the services' state with it.
use serde_json::{Map, Value};

use crate::world::BOT_USER;

/// Whether the event changes what GUILD_CREATE shows.
pub(crate) fn changes(name: &str) -> bool {
    matches!(
        name,
        "GUILD_UPDATE"
            | "GUILD_ROLE_CREATE"
            | "GUILD_ROLE_UPDATE"
            | "GUILD_ROLE_DELETE"
            | "CHANNEL_CREATE"
            | "CHANNEL_UPDATE"
            | "CHANNEL_DELETE"
            | "CHANNEL_PINS_UPDATE"
            | "THREAD_CREATE"
            | "THREAD_UPDATE"
            | "THREAD_DELETE"
            | "THREAD_LIST_SYNC"
            | "THREAD_MEMBER_UPDATE"
            | "THREAD_MEMBERS_UPDATE"
            | "GUILD_MEMBER_ADD"
            | "GUILD_MEMBER_UPDATE"
            | "GUILD_MEMBER_REMOVE"
            | "GUILD_EMOJIS_UPDATE"
            | "GUILD_STICKERS_UPDATE"
            | "PRESENCE_UPDATE"
            | "VOICE_STATE_UPDATE"
            | "STAGE_INSTANCE_CREATE"
            | "STAGE_INSTANCE_UPDATE"
            | "STAGE_INSTANCE_DELETE"
            | "GUILD_SCHEDULED_EVENT_CREATE"
            | "GUILD_SCHEDULED_EVENT_UPDATE"
            | "GUILD_SCHEDULED_EVENT_DELETE"
            | "GUILD_SOUNDBOARD_SOUND_CREATE"
            | "GUILD_SOUNDBOARD_SOUND_UPDATE"
            | "GUILD_SOUNDBOARD_SOUND_DELETE"
            | "GUILD_SOUNDBOARD_SOUNDS_UPDATE"
    )
}

/// Changes the guild.
pub(crate) fn apply(guild: &mut Value, name: &str, event: &Value) {
    let id = || event["id"].as_str().unwrap_or_default();
    match name {
        "GUILD_UPDATE" => merge(guild, event),
        "GUILD_ROLE_CREATE" | "GUILD_ROLE_UPDATE" => put(guild, "roles", "id", event["role"].clone()),
        "GUILD_ROLE_DELETE" => remove(guild, "roles", "id", event["role_id"].as_str().unwrap_or_default()),
        "CHANNEL_CREATE" | "CHANNEL_UPDATE" => put(guild, "channels", "id", without(event, &["guild_id"])),
        "CHANNEL_DELETE" => remove(guild, "channels", "id", id()),
        "CHANNEL_PINS_UPDATE" => pins(guild, event),
        "THREAD_CREATE" | "THREAD_UPDATE" => thread(guild, event, name == "THREAD_CREATE"),
        "THREAD_DELETE" => remove(guild, "threads", "id", id()),
        "THREAD_LIST_SYNC" => thread_list(guild, event),
        "THREAD_MEMBER_UPDATE" => thread_member(guild, event),
        "THREAD_MEMBERS_UPDATE" => thread_members(guild, event),
        "GUILD_MEMBER_ADD" => member_add(guild, event),
        "GUILD_MEMBER_UPDATE" => member_update(guild, event),
        "GUILD_MEMBER_REMOVE" => member_remove(guild, event),
        "GUILD_EMOJIS_UPDATE" => guild["emojis"] = event["emojis"].clone(),
        "GUILD_STICKERS_UPDATE" => guild["stickers"] = event["stickers"].clone(),
        "PRESENCE_UPDATE" => presence(guild, event),
        "VOICE_STATE_UPDATE" => voice_state(guild, event),
        "STAGE_INSTANCE_CREATE" | "STAGE_INSTANCE_UPDATE" => {
            put(guild, "stage_instances", "id", event.clone())
        }
        "STAGE_INSTANCE_DELETE" => remove(guild, "stage_instances", "id", id()),
        "GUILD_SCHEDULED_EVENT_CREATE" | "GUILD_SCHEDULED_EVENT_UPDATE" => {
            put(guild, "guild_scheduled_events", "id", event.clone());
        }
        "GUILD_SCHEDULED_EVENT_DELETE" => remove(guild, "guild_scheduled_events", "id", id()),
        "GUILD_SOUNDBOARD_SOUND_CREATE" | "GUILD_SOUNDBOARD_SOUND_UPDATE" => {
            put(guild, "soundboard_sounds", "sound_id", event.clone());
        }
        "GUILD_SOUNDBOARD_SOUND_DELETE" => {
            remove(guild, "soundboard_sounds", "sound_id", event["sound_id"].as_str().unwrap_or_default());
        }
        "GUILD_SOUNDBOARD_SOUNDS_UPDATE" => guild["soundboard_sounds"] = event["soundboard_sounds"].clone(),
        _ => {}
    }
}

/// Notes a message: no CHANNEL_UPDATE says so ("Channel Update").
pub(crate) fn last_message(guild: &mut Value, channel: &str, message: u64) {
    for list in ["channels", "threads"] {
        if let Some(found) = find(&mut guild[list], "id", channel) {
            found["last_message_id"] = Value::String(message.to_string());
        }
    }
}

fn find<'a>(list: &'a mut Value, key: &str, id: &str) -> Option<&'a mut Value> {
    list.as_array_mut()?.iter_mut().find(|item| item[key].as_str() == Some(id))
}

fn without(value: &Value, keys: &[&str]) -> Value {
    let mut value = value.clone();
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !keys.contains(&key.as_str()));
    }
    value
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

/// Replaces the entity with the same id in place, or appends it.
fn put(guild: &mut Value, list: &str, key: &str, entity: Value) {
    let id = entity[key].as_str().unwrap_or_default().to_owned();
    if let Some(found) = find(&mut guild[list], key, &id) {
        *found = entity;
    } else if let Some(list) = guild[list].as_array_mut() {
        list.push(entity);
    }
}

fn remove(guild: &mut Value, list: &str, key: &str, id: &str) {
    if let Some(list) = guild[list].as_array_mut() {
        list.retain(|item| item[key].as_str() != Some(id));
    }
}

fn pins(guild: &mut Value, event: &Value) {
    let channel = event["channel_id"].as_str().unwrap_or_default();
    for list in ["channels", "threads"] {
        if let Some(found) = find(&mut guild[list], "id", channel) {
            found["last_pin_timestamp"] = event["last_pin_timestamp"].clone();
        }
    }
}

/// `threads` are the active ones, so an archived thread leaves. A new post moves its forum's last message
/// ("Channel Update": "or Thread Create events for GUILD_FORUM and GUILD_MEDIA channels").
fn thread(guild: &mut Value, event: &Value, created: bool) {
    if event["thread_metadata"]["archived"] == true {
        return remove(guild, "threads", "id", event["id"].as_str().unwrap_or_default());
    }
    let mut thread = without(event, &["newly_created"]);
    let known = find(&mut guild["threads"], "id", event["id"].as_str().unwrap_or_default());
    if let (None, Some(member)) = (thread.get("member"), known.and_then(|known| known.get("member"))) {
        // THREAD_UPDATE doesn't carry the bot's own membership.
        thread["member"] = member.clone();
    }
    put(guild, "threads", "id", thread);
    let parent = event["parent_id"].as_str().unwrap_or_default();
    if let Some(parent) = find(&mut guild["channels"], "id", parent).filter(|_| created)
        && matches!(parent["type"].as_u64(), Some(15 | 16))
    {
        parent["last_message_id"] = event["id"].clone();
    }
}

fn thread_list(guild: &mut Value, event: &Value) {
    let synced = event["channel_ids"].as_array();
    if let Some(threads) = guild["threads"].as_array_mut() {
        threads.retain(|thread| synced.is_some_and(|ids| !ids.contains(&thread["parent_id"])));
        threads.extend(event["threads"].as_array().into_iter().flatten().cloned());
    }
    for member in event["members"].as_array().into_iter().flatten() {
        thread_member(guild, member);
    }
}

fn thread_member(guild: &mut Value, member: &Value) {
    if let Some(thread) = find(&mut guild["threads"], "id", member["id"].as_str().unwrap_or_default()) {
        thread["member"] = without(member, &["guild_id"]);
    }
}

fn thread_members(guild: &mut Value, event: &Value) {
    let own = BOT_USER.to_string();
    let Some(thread) = find(&mut guild["threads"], "id", event["id"].as_str().unwrap_or_default()) else {
        return;
    };
    thread["member_count"] = event["member_count"].clone();
    let added = event["added_members"].as_array().into_iter().flatten();
    if let Some(member) = added.into_iter().find(|member| member["user_id"] == own.as_str()) {
        thread["member"] = without(member, &["member", "presence"]);
    }
    let removed = event["removed_member_ids"].as_array().into_iter().flatten();
    if removed.into_iter().any(|id| id == own.as_str())
        && let Some(thread) = thread.as_object_mut()
    {
        thread.remove("member");
    }
}

fn user(event: &Value) -> &str {
    event["user"]["id"].as_str().unwrap_or_default()
}

fn member<'a>(guild: &'a mut Value, id: &str) -> Option<&'a mut Value> {
    guild["members"].as_array_mut()?.iter_mut().find(|member| user(member) == id)
}

fn count_members(guild: &mut Value, change: i64) {
    let count = guild["member_count"].as_i64().unwrap_or_default() + change;
    guild["member_count"] = Value::from(count.max(0));
}

/// The event "may also be sent for users who are already members": those aren't counted again.
fn member_add(guild: &mut Value, event: &Value) {
    let added = without(event, &["guild_id"]);
    if let Some(known) = member(guild, user(event)) {
        *known = added;
        return;
    }
    if let Some(members) = guild["members"].as_array_mut() {
        members.push(added);
    }
    count_members(guild, 1);
}

fn member_update(guild: &mut Value, event: &Value) {
    let update = without(event, &["guild_id"]);
    if let Some(known) = member(guild, user(event)) {
        merge(known, &update);
    } else if let Some(members) = guild["members"].as_array_mut() {
        members.push(update);
    }
}

/// Presences and voice states are those "of the members", so they go with the member.
fn member_remove(guild: &mut Value, event: &Value) {
    let id = user(event);
    if let Some(members) = guild["members"].as_array_mut() {
        members.retain(|member| user(member) != id);
    }
    if let Some(presences) = guild["presences"].as_array_mut() {
        presences.retain(|presence| user(presence) != id);
    }
    remove(guild, "voice_states", "user_id", id);
    count_members(guild, -1);
}

/// "will only include non-offline members".
fn presence(guild: &mut Value, event: &Value) {
    let Some(presences) = guild["presences"].as_array_mut() else { return };
    let known = presences.iter().position(|presence| user(presence) == user(event));
    let online = (event["status"] != "offline").then(|| without(event, &["guild_id"]));
    match (known, online) {
        (Some(at), Some(presence)) => presences[at] = presence,
        (None, Some(presence)) => presences.push(presence),
        (Some(at), None) => drop(presences.remove(at)),
        (None, None) => {}
    }
}

/// Those of GUILD_CREATE lack `guild_id`; they are partial, without the member.
fn voice_state(guild: &mut Value, event: &Value) {
    if event["channel_id"].is_null() {
        remove(guild, "voice_states", "user_id", event["user_id"].as_str().unwrap_or_default());
    } else {
        put(guild, "voice_states", "user_id", without(event, &["guild_id", "member"]));
    }
}

/// What GUILD_UPDATE carries of a guild: the guild object, without GUILD_CREATE's extra fields.
pub(crate) fn guild_object(guild: &Value) -> Map<String, Value> {
    const EXTRA: [&str; 12] = [
        "joined_at",
        "large",
        "unavailable",
        "member_count",
        "voice_states",
        "members",
        "channels",
        "threads",
        "presences",
        "stage_instances",
        "guild_scheduled_events",
        "soundboard_sounds",
    ];
    without(guild, &EXTRA).as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_come_and_go_with_their_presence_and_are_counted_once() {
        let mut guild = guild();
        let member = json!({"guild_id": "1", "user": {"id": "5"}, "roles": []});
        apply(&mut guild, "GUILD_MEMBER_ADD", &member);
        apply(&mut guild, "GUILD_MEMBER_ADD", &member);
        assert_eq!(
            (guild["member_count"].as_u64(), guild["members"].as_array().map(Vec::len)),
            (Some(2), Some(2))
        );
        assert!(guild["members"][1].get("guild_id").is_none());
        apply(
            &mut guild,
            "PRESENCE_UPDATE",
            &json!({"guild_id": "1", "user": {"id": "5"}, "status": "idle"}),
        );
        assert_eq!(guild["presences"], json!([{"user": {"id": "5"}, "status": "idle"}]));
        apply(&mut guild, "GUILD_MEMBER_REMOVE", &json!({"guild_id": "1", "user": {"id": "5"}}));
        assert_eq!((&guild["member_count"], &guild["presences"]), (&json!(1), &json!([])));
    }

    #[test]
    fn a_member_update_keeps_what_it_does_not_name() {
        let mut guild = guild();
        apply(&mut guild, "GUILD_MEMBER_UPDATE", &json!({"guild_id": "1", "user": {"id": "4"}, "nick": "n"}));
        assert_eq!(
            guild["members"][0],
            json!({"user": {"id": "4"}, "roles": ["r"], "nick": "n", "deaf": false})
        );
    }

    #[test]
    fn archived_threads_leave_and_a_post_moves_its_forums_last_message() {
        let mut guild = guild();
        let mut thread = json!({"id": "70", "guild_id": "1", "parent_id": "30", "newly_created": true,
            "thread_metadata": {"archived": false}, "member": {"id": "70"}});
        apply(&mut guild, "THREAD_CREATE", &thread);
        assert_eq!(guild["channels"][0]["last_message_id"], "70");
        assert!(guild["threads"][0].get("newly_created").is_none());
        thread = without(&thread, &["member"]);
        apply(&mut guild, "THREAD_UPDATE", &thread);
        assert_eq!(guild["threads"][0]["member"]["id"], "70");
        thread["thread_metadata"]["archived"] = json!(true);
        apply(&mut guild, "THREAD_UPDATE", &thread);
        assert_eq!(guild["threads"], json!([]));
    }

    #[test]
    fn an_update_of_the_guild_leaves_members_and_channels_alone() {
        let mut guild = guild();
        apply(&mut guild, "GUILD_UPDATE", &json!({"id": "1", "name": "new", "icon": null}));
        assert_eq!((&guild["name"], &guild["channels"][0]["id"]), (&json!("new"), &json!("30")));
    }

    fn guild() -> Value {
        json!({"id": "1", "name": "old", "member_count": 1, "threads": [], "presences": [], "voice_states": [],
            "members": [{"user": {"id": "4"}, "roles": ["r"], "nick": null, "deaf": false}],
            "channels": [{"id": "30", "type": 15, "last_message_id": null}]})
    }
}
