// SPDX-License-Identifier: AGPL-3.0-only
//! Random guilds and events, small enough that ids meet again. In: a generator of random numbers and the naive
//! model's state. Out: events as trees, and their bytes with keys in any order, spaces and escapes.

use holdfast_discord::EventKind;
use serde_json::{Value, json};

use crate::naive::{Model, list, number};

/// Discord's ids of late 2023, beyond the date before which threads stopped counting.
pub(crate) const ID: u64 = 1_160_000_000_000_000_000;

pub(crate) struct World {
    pub(crate) rng: fastrand::Rng,
    /// For ids that were never used.
    next: u64,
}

pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) guild: Option<u64>,
    pub(crate) d: Value,
}

fn text(id: u64) -> Value {
    Value::String(id.to_string())
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        World { rng: fastrand::Rng::with_seed(seed), next: ID + 900_000_000 }
    }

    fn fresh(&mut self) -> u64 {
        self.next += self.rng.u64(1..5_000_000);
        self.next
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(0..n) == 0
    }

    /// A value of no known field.
    pub(crate) fn oddity(&mut self) -> Value {
        match self.rng.u8(0..8) {
            0 => Value::Null,
            1 => json!(self.rng.bool()),
            2 => json!("quote \" backslash \\ tab \t, \u{1F986} [}{] \"id\":\"5\""),
            3 => json!({"id": "77", "user": {"id": null}, "members": [{"id": 1}], "s": 4, "t": "X"}),
            4 => json!([[], {}, [{"guild_id": "9"}]]),
            5 => json!(-1.5e-7),
            6 => json!(u64::MAX),
            _ => json!(""),
        }
    }

    fn odd_field(&mut self, value: &mut Value) {
        if self.one_in(4) {
            let key = ["new_field", "x\"y\\z", "unknown", "täst"][self.rng.usize(0..4)];
            value[key] = self.oddity();
        }
    }

    fn pick(&mut self, ids: std::ops::Range<u64>) -> u64 {
        ID + self.rng.u64(ids)
    }

    fn user_id(&mut self) -> u64 {
        self.pick(1..12)
    }

    pub(crate) fn user(&mut self, id: u64) -> Value {
        let name = format!("user{}", self.rng.u8(..));
        let mut user = json!({"id": text(id), "username": name, "avatar": null, "bot": false});
        self.odd_field(&mut user);
        user
    }

    fn member(&mut self, id: u64) -> Value {
        let roles: Vec<Value> = (0..self.rng.u64(0..3)).map(|role| text(ID + 100 + role)).collect();
        let nick = if self.rng.bool() { json!(format!("nick{}", self.rng.u8(..))) } else { Value::Null };
        let mut member = json!({"user": self.user(id), "roles": roles, "nick": nick, "avatar": null,
            "joined_at": "2023-01-02T03:04:05.678000+00:00", "flags": self.rng.u8(0..3)});
        self.odd_field(&mut member);
        member
    }

    fn partial_member(&mut self, id: u64) -> Value {
        let mut member = self.member(id);
        for key in ["nick", "flags", "joined_at", "avatar"] {
            if self.rng.bool() {
                member.as_object_mut().unwrap().remove(key);
            }
        }
        member
    }

    fn presence(&mut self, id: u64) -> Value {
        let status = ["online", "idle", "dnd", "offline"][self.rng.usize(0..4)];
        let mut presence = json!({"user": {"id": text(id)}, "status": status});
        if self.rng.bool() {
            presence["activities"] = json!([{"name": "x", "type": 0, "created_at": self.rng.u32(..)}]);
        }
        if self.rng.bool() {
            presence["client_status"] = json!({"desktop": status});
        }
        self.odd_field(&mut presence);
        presence
    }

    fn channel(&mut self, id: u64) -> Value {
        let kind = [0, 0, 2, 5, 13, 15][(id % 6) as usize];
        let mut channel = json!({"id": text(id), "type": kind, "position": self.rng.u8(0..9),
            "name": format!("channel{}", self.rng.u8(..)), "parent_id": null, "topic": null,
            "permission_overwrites": [{"id": text(ID), "type": 0, "allow": "0", "deny": "1024"}]});
        if self.rng.bool() {
            channel["last_message_id"] = if self.rng.bool() { Value::Null } else { text(self.fresh()) };
        }
        if self.one_in(3) {
            channel["last_pin_timestamp"] = json!("2023-05-05T05:05:05+00:00");
        }
        if self.one_in(3) {
            channel["status"] = json!("listening");
        }
        self.odd_field(&mut channel);
        channel
    }

    fn thread(&mut self, id: u64, guild: u64) -> Value {
        // A thread never changes its parent.
        let parent = ID + 200 + id % 6;
        let mut thread = json!({"id": text(id), "guild_id": text(guild), "type": 11, "parent_id": text(parent),
            "name": format!("thread{}", self.rng.u8(..)), "message_count": self.rng.u8(5..),
            "total_message_sent": self.rng.u8(..), "member_count": self.rng.u8(1..50),
            "last_message_id": text(self.fresh()),
            "thread_metadata": {"archived": false, "locked": false, "auto_archive_duration": 60}});
        for key in ["message_count", "total_message_sent", "member_count", "last_message_id"] {
            if self.one_in(4) {
                thread.as_object_mut().unwrap().remove(key);
            }
        }
        self.odd_field(&mut thread);
        thread
    }

    fn thread_member(&mut self, thread: u64, user: u64) -> Value {
        let mut member = json!({"id": text(thread), "user_id": text(user), "flags": self.rng.u8(..),
            "join_timestamp": "2023-06-06T06:06:06+00:00"});
        self.odd_field(&mut member);
        member
    }

    fn role(&mut self) -> Value {
        let mut role = json!({"id": text(self.pick(100..106)), "name": format!("role{}", self.rng.u8(..)),
            "permissions": "1071698660929", "color": self.rng.u32(..0xff_ffff), "icon": null});
        self.odd_field(&mut role);
        role
    }

    fn with_id(&mut self, key: &str, ids: std::ops::Range<u64>) -> Value {
        let mut entity =
            json!({"name": format!("entity{}", self.rng.u8(..)), "available": true, "user": null});
        entity[key] = text(self.pick(ids));
        self.odd_field(&mut entity);
        entity
    }

    fn scheduled(&mut self, guild: u64) -> Value {
        let mut event = self.with_id("id", 500..504);
        event["guild_id"] = text(guild);
        event["status"] = json!(self.rng.u8(1..3));
        if self.rng.bool() {
            event["user_count"] = json!(self.rng.u8(20..));
        }
        event
    }

    fn several<T>(&mut self, max: usize, mut one: impl FnMut(&mut Self, u64) -> T) -> Vec<T> {
        (0..self.rng.usize(0..=max) as u64).map(|at| one(self, at)).collect()
    }

    fn unique(&mut self, max: usize, key: &str, one: impl Fn(&mut Self) -> Value) -> Value {
        let mut list: Vec<Value> = Vec::new();
        for _ in 0..self.rng.usize(0..=max) {
            let entity = one(self);
            if !list.iter().any(|it| it[key] == entity[key]) {
                list.push(entity);
            }
        }
        Value::Array(list)
    }

    pub(crate) fn guild(&mut self, guild: u64, own_user: u64) -> Value {
        let mut d = json!({"id": text(guild), "name": "a guild", "unavailable": false, "icon": null,
            "owner_id": text(ID + 1), "features": ["COMMUNITY"], "joined_at": "2022-02-02T02:02:02+00:00",
            "large": self.rng.bool(), "member_count": self.rng.u32(20..400), "premium_tier": 2});
        let mut members = vec![self.member(own_user)];
        members.extend(self.several(6, |world, at| world.member(ID + 1 + at)));
        let others = members.split_off(1).into_iter();
        members.extend(others.filter(|it| number(&it["user"]["id"]) != own_user));
        d["members"] = members.into();
        let presences = self.several(6, |world, at| world.presence(ID + 1 + at));
        d["presences"] = presences.into();
        d["voice_states"] = self.several(3, |_, at| json!({"user_id": text(ID + 1 + at), "channel_id": "5", "session_id": "s", "deaf": false})).into();
        d["channels"] = self.several(6, |world, at| world.channel(ID + 200 + at)).into();
        d["threads"] = self.several(4, |world, at| world.thread(ID + 300 + at, guild)).into();
        for thread in d["threads"].as_array_mut().unwrap() {
            if self.rng.bool() {
                thread["member"] = json!({"flags": 1, "join_timestamp": "2023-06-06T06:06:06+00:00"});
            }
        }
        d["roles"] = self.unique(6, "id", Self::role);
        d["emojis"] = self.unique(4, "id", |world| world.with_id("id", 400..410));
        d["stickers"] = self.unique(4, "id", |world| world.with_id("id", 420..430));
        d["stage_instances"] = self.unique(2, "id", |world| world.with_id("id", 440..444));
        d["guild_scheduled_events"] = self.unique(3, "id", |world| world.scheduled(guild));
        d["soundboard_sounds"] = self.unique(3, "sound_id", |world| world.with_id("sound_id", 460..464));
        for name in ["soundboard_sounds", "stage_instances", "emojis", "threads"] {
            match self.rng.u8(0..30) {
                0 => drop(d.as_object_mut().unwrap().remove(name)),
                1 => d[name] = Value::Null,
                _ => {}
            }
        }
        self.odd_field(&mut d);
        d
    }

    fn existing(&mut self, state: &Value, names: &[&str]) -> Option<u64> {
        let ids: Vec<u64> = names
            .iter()
            .flat_map(|name| list(state, name).iter().map(|it| crate::naive::id_of(name, it)))
            .collect();
        if ids.is_empty() || self.one_in(20) {
            // One that never was and never will be.
            return Some(self.fresh());
        }
        Some(ids[self.rng.usize(0..ids.len())])
    }

    /// An event that Discord might send for this guild now.
    pub(crate) fn event(&mut self, model: &Model, guild: u64, kind: EventKind) -> Option<Event> {
        let state = model.guilds.get(&guild).cloned().flatten().unwrap_or(Value::Null);
        let mut d = self.data(model, &state, guild, kind)?;
        if kind != EventKind::UserUpdate && kind != EventKind::GuildCreate && d.get("guild_id").is_none() {
            d["guild_id"] = text(guild);
        }
        Some(Event { kind, guild: (kind != EventKind::UserUpdate).then_some(guild), d })
    }

    fn data(&mut self, model: &Model, state: &Value, guild: u64, kind: EventKind) -> Option<Value> {
        use EventKind as E;
        Some(match kind {
            E::GuildCreate if self.one_in(10) => json!({"id": text(guild), "unavailable": true}),
            E::GuildCreate => self.guild(guild, model.own_user),
            E::GuildDelete if self.rng.bool() => json!({"id": text(guild), "unavailable": true}),
            E::GuildDelete => json!({"id": text(guild)}),
            E::GuildUpdate => {
                let mut d = json!({"id": text(guild)});
                for (key, value) in
                    [("name", json!("renamed")), ("icon", json!("i")), ("banner", Value::Null)]
                {
                    if self.rng.bool() {
                        d[key] = value;
                    }
                }
                if self.one_in(3) {
                    d["roles"] = self.unique(6, "id", Self::role);
                }
                if self.one_in(4) {
                    d["emojis"] = self.unique(4, "id", |world| world.with_id("id", 400..410));
                }
                if self.one_in(6) {
                    d["stickers"] = Value::Null;
                }
                if self.one_in(6) {
                    d["member_count"] = json!(self.rng.u32(20..400));
                }
                self.odd_field(&mut d);
                d
            }
            E::GuildEmojisUpdate => json!({"emojis": self.unique(4, "id", |it| it.with_id("id", 400..410))}),
            E::GuildStickersUpdate => {
                json!({"stickers": self.unique(4, "id", |it| it.with_id("id", 420..430))})
            }
            E::GuildRoleCreate | E::GuildRoleUpdate => json!({"role": self.role()}),
            E::GuildRoleDelete => json!({"role_id": text(self.pick(100..106))}),
            E::GuildSoundboardSoundCreate | E::GuildSoundboardSoundUpdate => {
                self.with_id("sound_id", 460..464)
            }
            E::GuildSoundboardSoundDelete => json!({"sound_id": text(self.pick(460..464))}),
            E::GuildSoundboardSoundsUpdate | E::SoundboardSounds => {
                json!({"soundboard_sounds": self.unique(3, "sound_id", |it| it.with_id("sound_id", 460..464))})
            }
            E::StageInstanceCreate | E::StageInstanceUpdate | E::StageInstanceDelete => {
                self.with_id("id", 440..444)
            }
            E::GuildScheduledEventCreate | E::GuildScheduledEventDelete => self.scheduled(guild),
            E::GuildScheduledEventUpdate => {
                let mut d = self.scheduled(guild);
                if self.one_in(5) {
                    d["status"] = json!(self.rng.u8(3..5));
                }
                d
            }
            E::GuildScheduledEventUserAdd | E::GuildScheduledEventUserRemove => {
                let id = self.existing(state, &["guild_scheduled_events"])?;
                json!({"guild_scheduled_event_id": text(id), "user_id": text(self.user_id())})
            }
            _ => return self.channel_data(model, state, guild, kind),
        })
    }

    #[expect(clippy::too_many_lines, reason = "one arm per event")]
    fn channel_data(&mut self, model: &Model, state: &Value, guild: u64, kind: EventKind) -> Option<Value> {
        use EventKind as E;
        let own = model.own_user;
        let thread = self.pick(300..306);
        let channel = self.pick(200..206);
        Some(match kind {
            E::ChannelCreate | E::ChannelUpdate | E::ChannelDelete => self.channel(channel),
            E::ChannelPinsUpdate => {
                let mut d = json!({"channel_id": text(self.existing(state, &["channels", "threads"])?)});
                match self.rng.u8(0..3) {
                    0 => {}
                    1 => d["last_pin_timestamp"] = Value::Null,
                    _ => d["last_pin_timestamp"] = json!("2024-07-07T07:07:07+00:00"),
                }
                d
            }
            E::VoiceChannelStatusUpdate => {
                json!({"id": text(self.existing(state, &["channels"])?), "status": self.oddity()})
            }
            E::VoiceChannelStartTimeUpdate => {
                json!({"id": text(self.existing(state, &["channels"])?), "voice_start_time": self.rng.u32(..)})
            }
            E::ThreadCreate | E::ThreadUpdate => {
                let mut d = self.thread(thread, guild);
                // Nobody opens a thread in a channel that isn't there.
                let parent = list(state, "channels").iter().any(|it| it["id"] == d["parent_id"]);
                if kind == E::ThreadCreate && (parent || !model.keeps("channels")) && self.rng.bool() {
                    d["newly_created"] = json!(true);
                }
                if kind == E::ThreadCreate && self.one_in(3) {
                    d["member"] = self.thread_member(thread, own);
                }
                if self.one_in(5) {
                    d["thread_metadata"]["archived"] = json!(true);
                }
                d
            }
            E::ThreadDelete => json!({"id": text(thread), "parent_id": text(channel), "type": 11}),
            E::ThreadListSync => {
                let threads = self.unique(4, "id", |world| {
                    let id = world.pick(300..306);
                    world.thread(id, guild)
                });
                let members: Vec<Value> = threads
                    .as_array()?
                    .iter()
                    .map(|it| number(&it["id"]))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .filter(|_| self.rng.bool())
                    .collect::<Vec<_>>()
                    .into_iter()
                    .map(|id| self.thread_member(id, own))
                    .collect();
                let mut d = json!({"threads": threads, "members": members});
                if !self.one_in(4) {
                    // All parents of the threads, as Discord would.
                    let mut ids: Vec<Value> =
                        threads.as_array()?.iter().map(|it| it["parent_id"].clone()).collect();
                    ids.push(text(channel));
                    d["channel_ids"] = ids.into();
                }
                d
            }
            E::ThreadMemberUpdate => {
                let id = self.existing(state, &["threads"])?;
                self.thread_member(id, own)
            }
            E::ThreadMembersUpdate => {
                let id = self.existing(state, &["threads"])?;
                let mut d = json!({"id": text(id), "member_count": self.rng.u8(0..50)});
                let other = self.user_id();
                if self.rng.bool() {
                    let mut added = vec![self.thread_member(id, other)];
                    if self.rng.bool() {
                        added.push(self.thread_member(id, own));
                    }
                    for it in &mut added {
                        it["member"] = self.member(other);
                        it["presence"] = Value::Null;
                    }
                    d["added_members"] = added.into();
                } else if self.rng.bool() {
                    d["removed_member_ids"] = json!([text(other), text(own)]);
                }
                d
            }
            E::MessageCreate => {
                let id = self.existing(state, &["channels", "threads"])?;
                // "Messages cannot be sent directly in forum channels."
                let mut channels = list(state, "channels").iter();
                if channels.any(|it| number(&it["id"]) == id && it["type"] == json!(15)) {
                    return None;
                }
                let message = if self.one_in(8) { id } else { self.fresh() };
                json!({"id": text(message), "channel_id": text(id), "content": self.oddity(), "type": 0})
            }
            E::MessageDelete | E::MessageDeleteBulk => {
                let threads = list(state, "threads").iter();
                let full = threads.filter(|it| it["message_count"].as_u64().is_none_or(|count| count > 3));
                let ids: Vec<u64> = full.map(|it| number(&it["id"])).collect();
                let id = if ids.is_empty() { self.fresh() } else { ids[self.rng.usize(0..ids.len())] };
                let messages = [text(self.fresh()), text(id), text(self.fresh())];
                if kind == E::MessageDelete {
                    json!({"id": messages[self.rng.usize(0..2)], "channel_id": text(id)})
                } else {
                    json!({"ids": messages, "channel_id": text(id)})
                }
            }
            _ => return self.member_data(model, state, kind),
        })
    }

    fn member_data(&mut self, model: &Model, state: &Value, kind: EventKind) -> Option<Value> {
        use EventKind as E;
        let id = self.user_id();
        let own = model.own_user;
        Some(match kind {
            E::GuildMemberAdd if id != own => self.member(id),
            E::GuildMemberUpdate => self.partial_member(id),
            E::GuildMemberRemove => {
                let id = self.existing(state, &["members"]).filter(|id| *id != own)?;
                json!({"user": self.user(id)})
            }
            E::GuildMembersChunk => {
                let mut members = vec![self.member(id)];
                let other = self.user_id();
                if other != id {
                    members.push(self.member(other));
                }
                let mut d =
                    json!({"members": members, "chunk_index": 0, "chunk_count": 1, "not_found": ["1"]});
                if self.rng.bool() {
                    d["presences"] = json!([self.presence(id)]);
                }
                d
            }
            E::PresenceUpdate => self.presence(id),
            E::VoiceStateUpdate => {
                let channel = if self.one_in(3) { Value::Null } else { text(self.pick(200..206)) };
                let mut d = json!({"user_id": text(id), "channel_id": channel, "session_id": "abc",
                    "self_mute": self.rng.bool(), "suppress": false});
                if self.rng.bool() {
                    d["member"] = self.member(id);
                }
                d
            }
            E::UserUpdate => {
                let id = if self.one_in(5) { id } else { own };
                let mut d = self.user(id);
                d["email"] = Value::Null;
                d
            }
            _ => return None,
        })
    }

    /// JSON with its keys in any order, with spaces, and with some characters escaped.
    pub(crate) fn bytes(&mut self, value: &Value) -> Vec<u8> {
        let mut out = String::new();
        self.write(value, &mut out);
        out.into_bytes()
    }

    fn write(&mut self, value: &Value, out: &mut String) {
        self.space(out);
        match value {
            Value::Array(list) => {
                out.push('[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    self.write(value, out);
                }
                self.space(out);
                out.push(']');
            }
            Value::Object(map) => {
                let mut fields: Vec<_> = map.iter().collect();
                self.rng.shuffle(&mut fields);
                out.push('{');
                for (at, (key, value)) in fields.into_iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    self.space(out);
                    self.string(key, out);
                    self.space(out);
                    out.push(':');
                    self.write(value, out);
                }
                self.space(out);
                out.push('}');
            }
            Value::String(text) => self.string(text, out),
            other => out.push_str(&other.to_string()),
        }
        self.space(out);
    }

    fn string(&mut self, text: &str, out: &mut String) {
        let first = text.chars().next().filter(|first| first.is_ascii_alphabetic());
        if let (Some(first), true) = (first, self.one_in(40)) {
            let rest = Value::from(&text[1..]).to_string();
            out.push_str(&format!("\"\\u{:04x}{}", first as u32, &rest[1..]));
        } else {
            out.push_str(&Value::from(text).to_string());
        }
    }

    fn space(&mut self, out: &mut String) {
        if self.one_in(30) {
            out.push_str([" ", "\n", "\t ", "\r\n"][self.rng.usize(0..4)]);
        }
    }
}
