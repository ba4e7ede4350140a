// SPDX-License-Identifier: AGPL-3.0-only
//! The naive model: guilds as full JSON trees, changed as Discord's documentation says ("Gateway Events", "Threads",
//! the resources' objects). In: an event's name and `d` as trees. Out: GUILD_CREATE's `d` as a tree.
//! It shares nothing with the crate but the names of events.

use std::collections::BTreeMap;

use holdfast_discord::EventKind;
use serde_json::{Map, Value, json};

/// List, path of the id, whether it is kept.
pub(crate) const LISTS: [(&str, &[&str]); 11] = [
    ("roles", &["id"]),
    ("emojis", &["id"]),
    ("stickers", &["id"]),
    ("channels", &["id"]),
    ("threads", &["id"]),
    ("stage_instances", &["id"]),
    ("guild_scheduled_events", &["id"]),
    ("soundboard_sounds", &["sound_id"]),
    ("voice_states", &["user_id"]),
    ("members", &["user", "id"]),
    ("presences", &["user", "id"]),
];

#[derive(Clone, Default)]
pub(crate) struct Model {
    pub(crate) own_user: u64,
    pub(crate) kept: BTreeMap<&'static str, bool>,
    /// `None`: unavailable.
    pub(crate) guilds: BTreeMap<u64, Option<Value>>,
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_u64()).unwrap_or(0)
}

pub(crate) fn id_of(list: &str, entity: &Value) -> u64 {
    let path = LISTS.iter().find(|(name, _)| *name == list).unwrap().1;
    number(path.iter().fold(entity, |value, key| &value[*key]))
}

pub(crate) fn list<'a>(guild: &'a Value, name: &str) -> &'a [Value] {
    guild[name].as_array().map_or(&[], Vec::as_slice)
}

fn list_mut<'a>(guild: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let value = guild.as_object_mut().unwrap().entry(name).or_insert(Value::Null);
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().unwrap()
}

fn find<'a>(guild: &'a mut Value, name: &str, id: u64) -> Option<&'a mut Map<String, Value>> {
    guild[name].as_array_mut()?.iter_mut().find(|it| id_of(name, it) == id)?.as_object_mut()
}

fn put(guild: &mut Value, name: &str, entity: Value) {
    let id = id_of(name, &entity);
    let list = list_mut(guild, name);
    match list.iter_mut().find(|it| id_of(name, it) == id) {
        Some(old) => *old = entity,
        None => list.push(entity),
    }
}

/// What an update leaves out stays, for these keys (`None`: for all).
fn put_over(guild: &mut Value, name: &str, mut entity: Value, keys: Option<&[&str]>) {
    let id = id_of(name, &entity);
    if let Some(old) = find(guild, name, id) {
        for (key, value) in old.clone() {
            if keys.is_none_or(|keys| keys.contains(&key.as_str())) && entity.get(&key).is_none() {
                entity[&key] = value;
            }
        }
    }
    put(guild, name, entity);
}

fn drop_from(guild: &mut Value, name: &str, gone: impl Fn(&Value) -> bool) {
    if let Some(list) = guild[name].as_array_mut() {
        list.retain(|it| !gone(it));
    }
}

fn without(value: &Value, keys: &[&str]) -> Value {
    let mut value = value.clone();
    for key in keys {
        value.as_object_mut().unwrap().remove(*key);
    }
    value
}

const CHANNEL_STAYS: &[&str] = &["last_message_id", "last_pin_timestamp", "status", "voice_start_time"];
const THREAD_STAYS: &[&str] = &[
    "last_message_id",
    "last_pin_timestamp",
    "message_count",
    "total_message_sent",
    "member_count",
    "member",
];

impl Model {
    pub(crate) fn keeps(&self, name: &str) -> bool {
        self.kept[name]
    }

    pub(crate) fn ready(&mut self, listed: &[u64]) {
        self.guilds.retain(|id, _| listed.contains(id));
        for id in listed {
            self.guilds.entry(*id).or_insert(None);
        }
    }

    pub(crate) fn apply(&mut self, kind: EventKind, guild: Option<u64>, d: &Value) {
        if kind == EventKind::UserUpdate {
            return self.user_update(d);
        }
        let Some(id) = guild else { return };
        match kind {
            EventKind::GuildCreate => drop(self.guilds.insert(id, self.created(d))),
            EventKind::GuildDelete if !self.guilds.contains_key(&id) => {}
            EventKind::GuildDelete if d["unavailable"] == json!(true) => drop(self.guilds.insert(id, None)),
            EventKind::GuildDelete => drop(self.guilds.remove(&id)),
            _ => {
                let Some(Some(mut state)) = self.guilds.get(&id).cloned() else { return };
                self.change(&mut state, kind, d);
                for (name, _) in LISTS {
                    if !self.keeps(name) && name != "members" {
                        state[name] = json!([]);
                    }
                }
                if !self.keeps("members") {
                    let own = self.own_user;
                    drop_from(&mut state, "members", |it| id_of("members", it) != own);
                }
                self.guilds.insert(id, Some(state));
            }
        }
    }

    fn created(&self, d: &Value) -> Option<Value> {
        if d["unavailable"] == json!(true) {
            return None;
        }
        let mut state = d.clone();
        for (name, _) in LISTS {
            if !self.keeps(name) {
                let own = |it: &Value| name == "members" && id_of(name, it) == self.own_user;
                state[name] = list(d, name).iter().filter(|it| own(it)).cloned().collect();
            }
        }
        Some(state)
    }

    fn user_update(&mut self, d: &Value) {
        if number(&d["id"]) != self.own_user {
            return;
        }
        for state in self.guilds.values_mut().flatten() {
            let Some(own) = find(state, "members", self.own_user) else { continue };
            for (key, value) in own["user"].as_object_mut().unwrap() {
                if let Some(new) = d.get(key) {
                    *value = new.clone();
                }
            }
        }
    }

    fn change(&self, state: &mut Value, kind: EventKind, d: &Value) {
        use EventKind as E;
        match kind {
            E::GuildUpdate => guild_update(state, d),
            E::GuildEmojisUpdate => state["emojis"] = d["emojis"].clone(),
            E::GuildStickersUpdate => state["stickers"] = d["stickers"].clone(),
            E::SoundboardSounds => state["soundboard_sounds"] = d["soundboard_sounds"].clone(),
            E::GuildSoundboardSoundsUpdate => {
                for sound in list(d, "soundboard_sounds") {
                    put(state, "soundboard_sounds", sound.clone());
                }
            }
            E::GuildSoundboardSoundCreate | E::GuildSoundboardSoundUpdate => {
                put(state, "soundboard_sounds", d.clone());
            }
            E::GuildSoundboardSoundDelete => {
                drop_from(state, "soundboard_sounds", |it| it["sound_id"] == d["sound_id"]);
            }
            E::GuildRoleCreate | E::GuildRoleUpdate => put(state, "roles", d["role"].clone()),
            E::GuildRoleDelete => drop_from(state, "roles", |it| it["id"] == d["role_id"]),
            E::StageInstanceCreate | E::StageInstanceUpdate => put(state, "stage_instances", d.clone()),
            E::StageInstanceDelete => drop_from(state, "stage_instances", |it| it["id"] == d["id"]),
            E::GuildScheduledEventCreate => put(state, "guild_scheduled_events", d.clone()),
            E::GuildScheduledEventUpdate if [json!(3), json!(4)].contains(&d["status"]) => {
                drop_from(state, "guild_scheduled_events", |it| it["id"] == d["id"]);
            }
            E::GuildScheduledEventUpdate => {
                put_over(state, "guild_scheduled_events", d.clone(), Some(&["user_count"]));
            }
            E::GuildScheduledEventDelete => {
                drop_from(state, "guild_scheduled_events", |it| it["id"] == d["id"]);
            }
            E::GuildScheduledEventUserAdd => {
                add(state, "guild_scheduled_events", &d["guild_scheduled_event_id"], "user_count", 1);
            }
            E::GuildScheduledEventUserRemove => {
                add(state, "guild_scheduled_events", &d["guild_scheduled_event_id"], "user_count", -1);
            }
            _ => self.change_channels(state, kind, d),
        }
    }

    fn change_channels(&self, state: &mut Value, kind: EventKind, d: &Value) {
        use EventKind as E;
        match kind {
            E::ChannelCreate => put(state, "channels", without(d, &["guild_id"])),
            E::ChannelUpdate => {
                put_over(state, "channels", without(d, &["guild_id"]), Some(CHANNEL_STAYS));
            }
            E::ChannelDelete => {
                drop_from(state, "channels", |it| it["id"] == d["id"]);
                drop_from(state, "threads", |it| it["parent_id"] == d["id"]);
            }
            E::ChannelPinsUpdate => {
                let pinned = d.get("last_pin_timestamp").cloned().unwrap_or(Value::Null);
                for name in ["channels", "threads"] {
                    if let Some(channel) = find(state, name, number(&d["channel_id"])) {
                        channel.insert("last_pin_timestamp".into(), pinned.clone());
                    }
                }
            }
            E::VoiceChannelStatusUpdate => replace(state, &d["id"], "status", d),
            E::VoiceChannelStartTimeUpdate => replace(state, &d["id"], "voice_start_time", d),
            E::ThreadCreate | E::ThreadUpdate => self.put_thread(state, d),
            E::ThreadDelete => drop_from(state, "threads", |it| it["id"] == d["id"]),
            E::ThreadListSync => self.sync_threads(state, d),
            E::ThreadMemberUpdate => {
                if d.get("user_id").is_none_or(|user| number(user) == self.own_user)
                    && let Some(thread) = find(state, "threads", number(&d["id"]))
                {
                    thread.insert("member".into(), thread_member(d));
                }
            }
            E::ThreadMembersUpdate => {
                let Some(thread) = find(state, "threads", number(&d["id"])) else { return };
                thread.insert("member_count".into(), d["member_count"].clone());
                let own = list(d, "added_members").iter().rfind(|it| number(&it["user_id"]) == self.own_user);
                if let Some(own) = own {
                    thread.insert("member".into(), thread_member(own));
                } else if list(d, "removed_member_ids").iter().any(|id| number(id) == self.own_user) {
                    thread.remove("member");
                }
            }
            E::MessageCreate => {
                for name in ["channels", "threads"] {
                    if let Some(channel) = find(state, name, number(&d["channel_id"])) {
                        channel.insert("last_message_id".into(), d["id"].clone());
                    }
                }
                if d["id"] != d["channel_id"] {
                    add(state, "threads", &d["channel_id"], "message_count", 1);
                    add(state, "threads", &d["channel_id"], "total_message_sent", 1);
                }
            }
            E::MessageDelete if d["id"] != d["channel_id"] => {
                add(state, "threads", &d["channel_id"], "message_count", -1);
            }
            E::MessageDeleteBulk => {
                let count = list(d, "ids").iter().filter(|id| **id != d["channel_id"]).count();
                add(state, "threads", &d["channel_id"], "message_count", -(count as i64));
            }
            _ => self.change_members(state, kind, d),
        }
    }

    fn put_thread(&self, state: &mut Value, d: &Value) {
        if d["newly_created"] == json!(true)
            && let Some(parent) = find(state, "channels", number(&d["parent_id"]))
            && [json!(15), json!(16)].contains(&parent["type"])
        {
            parent.insert("last_message_id".into(), d["id"].clone());
        }
        if d["thread_metadata"]["archived"] == json!(true) {
            return drop_from(state, "threads", |it| it["id"] == d["id"]);
        }
        let mut thread = without(d, &["newly_created"]);
        if thread["member"].is_object() {
            thread["member"] = thread_member(&d["member"]);
        }
        put_over(state, "threads", thread, Some(THREAD_STAYS));
    }

    fn sync_threads(&self, state: &mut Value, d: &Value) {
        match d.get("channel_ids").and_then(Value::as_array) {
            Some(channels) => drop_from(state, "threads", |it| channels.contains(&it["parent_id"])),
            None => drop_from(state, "threads", |_| true),
        }
        for thread in list(d, "threads") {
            let mut thread = thread.clone();
            if let Some(own) = list(d, "members").iter().find(|it| it["id"] == thread["id"]) {
                thread["member"] = thread_member(own);
            }
            put(state, "threads", thread);
        }
    }

    fn change_members(&self, state: &mut Value, kind: EventKind, d: &Value) {
        use EventKind as E;
        let id = number(&d["user"]["id"]);
        match kind {
            E::GuildMemberAdd => {
                if !list(state, "members").iter().any(|it| id_of("members", it) == id) {
                    count(state, 1);
                }
                put(state, "members", without(d, &["guild_id"]));
            }
            E::GuildMemberUpdate => put_over(state, "members", without(d, &["guild_id"]), None),
            E::GuildMemberRemove => {
                count(state, -1);
                for name in ["members", "voice_states", "presences"] {
                    drop_from(state, name, |it| id_of(name, it) == id);
                }
            }
            E::GuildMembersChunk => {
                for member in list(d, "members") {
                    put_over(state, "members", member.clone(), None);
                }
                for presence in list(d, "presences") {
                    put_presence(state, presence);
                }
            }
            E::PresenceUpdate => put_presence(state, d),
            E::VoiceStateUpdate => {
                let id = number(&d["user_id"]);
                if d["channel_id"].is_null() {
                    return drop_from(state, "voice_states", |it| id_of("voice_states", it) == id);
                }
                put(state, "voice_states", without(d, &["guild_id", "member"]));
                if d["member"].is_object() {
                    put_over(state, "members", d["member"].clone(), None);
                }
            }
            _ => {}
        }
    }
}

fn guild_update(state: &mut Value, d: &Value) {
    for (key, value) in d.as_object().unwrap() {
        if !(value.is_null() && LISTS.iter().any(|(name, _)| name == key)) {
            state[key] = value.clone();
        }
    }
}

fn put_presence(state: &mut Value, presence: &Value) {
    let id = id_of("presences", presence);
    if presence["status"] == json!("offline") {
        drop_from(state, "presences", |it| id_of("presences", it) == id);
    } else {
        put_over(state, "presences", without(presence, &["guild_id"]), None);
    }
}

fn thread_member(member: &Value) -> Value {
    let mut member = member.clone();
    for key in ["id", "user_id", "guild_id", "member", "presence"] {
        member.as_object_mut().unwrap().remove(key);
    }
    member
}

fn count(state: &mut Value, change: i64) {
    if let Some(count) = state["member_count"].as_i64() {
        state["member_count"] = json!((count + change).max(0));
    }
}

fn add(state: &mut Value, name: &str, id: &Value, key: &str, change: i64) {
    if let Some(entity) = find(state, name, number(id))
        && let Some(count) = entity.get(key).and_then(Value::as_i64)
    {
        entity.insert(key.into(), json!((count + change).max(0)));
    }
}

fn replace(state: &mut Value, id: &Value, key: &str, d: &Value) {
    for name in ["channels", "threads"] {
        if let Some(channel) = find(state, name, number(id))
            && let Some(old) = channel.get_mut(key)
        {
            *old = d.get(key).cloned().unwrap_or(Value::Null);
        }
    }
}
