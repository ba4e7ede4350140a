// SPDX-License-Identifier: AGPL-3.0-only
//! Events of all kinds that happen in a guild.
//!
//! In: a guild's present state, a seeded source of chance. Out: an event that could happen now. The caller applies
//! it; lists stay about as long as the world began with.
use serde_json::{Value, json};

use crate::chatter::{message_change, reaction, typing};
use crate::clock::{Snowflakes, iso8601, unix};
use crate::model::guild_object;
use crate::world::World;

/// An event's name and data.
pub(crate) type Made = (&'static str, Value);

/// Lists grow to their original length and this many more.
const SPARE: usize = 8;
/// Ids from here on were given by traffic, not by the world's template.
const FIRST_OWN: u64 = 1_400_000_000_000_000_000;

/// What a maker looks at.
pub(crate) struct Scene<'a> {
    guild: &'a Value,
    pub(crate) guild_id: String,
    pub(crate) random: &'a mut fastrand::Rng,
    ids: &'a Snowflakes,
}

/// Every kind once per its weight; members, presences and reactions are the bulk, as in reality.
const MAKERS: [fn(&mut Scene) -> Option<Made>; 32] = [
    member_add,
    member_add,
    member_update,
    member_update,
    member_update,
    member_remove,
    member_remove,
    presence,
    presence,
    presence,
    presence,
    voice_state,
    voice_state,
    voice_state,
    role,
    role,
    channel,
    channel,
    pins,
    thread,
    thread,
    thread_members,
    emojis,
    stickers,
    stage,
    scheduled_event,
    sound,
    guild_update,
    reaction,
    reaction,
    typing,
    message_change,
];

/// One event that could happen in the guild now.
pub(crate) fn event(
    world: &mut World,
    guild: u64,
    random: &mut fastrand::Rng,
    ids: &Snowflakes,
) -> Option<(&'static str, Value)> {
    let tree = world.tree(guild)?;
    let mut scene = Scene { guild: tree, guild_id: guild.to_string(), random, ids };
    let maker = MAKERS[scene.random.usize(..MAKERS.len())];
    maker(&mut scene)
}

impl Scene<'_> {
    pub(crate) fn list(&self, key: &str) -> &[Value] {
        self.guild[key].as_array().map_or(&[], Vec::as_slice)
    }

    fn any(&mut self, key: &str) -> Option<Value> {
        let count = self.list(key).len();
        (count > 0).then(|| self.random.usize(..count)).map(|at| self.list(key)[at].clone())
    }

    /// A member other than the bot.
    pub(crate) fn somebody(&mut self) -> Option<Value> {
        let count = self.list("members").len();
        (count > 1).then(|| self.random.usize(1..count)).map(|at| self.list("members")[at].clone())
    }

    fn id(&self) -> String {
        self.ids.next().to_string()
    }

    fn name(&mut self) -> String {
        (0..9).map(|_| self.random.lowercase()).collect()
    }

    /// The entities that traffic created.
    fn own(&self, list: &str, key: &str) -> Vec<Value> {
        self.list(list).iter().filter(|item| own_id(&item[key])).cloned().collect()
    }

    fn with_guild(&self, mut value: Value) -> Value {
        value["guild_id"] = json!(self.guild_id);
        value
    }

    /// Creates one like `pattern`, changes or deletes one of those that traffic created: which, by chance and by
    /// how many there are.
    fn cycle(&mut self, list: &str, key: &str, pattern: Option<Value>) -> Option<Cycle> {
        let own = self.own(list, key);
        let chosen = (!own.is_empty()).then(|| own[self.random.usize(..own.len())].clone());
        match (chosen, self.random.u8(..3)) {
            (Some(old), 0) => Some(Cycle::Delete(old)),
            (Some(old), 1) => Some(Cycle::Change(old)),
            (Some(old), _) if own.len() >= SPARE => Some(Cycle::Delete(old)),
            _ => {
                let mut new = pattern?;
                new[key] = json!(self.id());
                Some(Cycle::Create(new))
            }
        }
    }
}

enum Cycle {
    Create(Value),
    Change(Value),
    Delete(Value),
}

fn member_add(scene: &mut Scene) -> Option<Made> {
    if joined(scene).len() > SPARE {
        return None;
    }
    let mut member = scene.somebody()?;
    (member["nick"], member["roles"]) = (Value::Null, json!([]));
    member["user"]["id"] = json!(scene.id());
    member["user"]["username"] = json!(scene.name());
    member["user"]["global_name"] = Value::Null;
    member["joined_at"] = json!(iso8601(unix()));
    Some(("GUILD_MEMBER_ADD", scene.with_guild(member)))
}

fn member_update(scene: &mut Scene) -> Option<Made> {
    let member = scene.somebody()?;
    let nick = if scene.random.bool() { json!(scene.name()) } else { Value::Null };
    let roles = scene.list("roles").len();
    let role = (roles > 1).then(|| scene.list("roles")[1]["id"].clone());
    let roles: Vec<Value> = role.into_iter().filter(|_| scene.random.bool()).collect();
    let update = json!({"user": member["user"], "nick": nick, "roles": roles, "avatar": null, "banner": null,
        "joined_at": member["joined_at"], "premium_since": null, "flags": 0, "pending": false,
        "communication_disabled_until": null, "avatar_decoration_data": null, "collectibles": null});
    Some(("GUILD_MEMBER_UPDATE", scene.with_guild(update)))
}

/// The users who joined through traffic.
fn joined(scene: &Scene) -> Vec<Value> {
    let users = scene.list("members").iter().map(|member| &member["user"]);
    users.filter(|user| own_id(&user["id"])).cloned().collect()
}

/// Whether traffic gave the id.
fn own_id(id: &Value) -> bool {
    id.as_str().and_then(|id| id.parse().ok()).is_some_and(|id: u64| id >= FIRST_OWN)
}

/// Only who joined through traffic, so that the world keeps its members.
fn member_remove(scene: &mut Scene) -> Option<Made> {
    let joined = joined(scene);
    let user = (!joined.is_empty()).then(|| joined[scene.random.usize(..joined.len())].clone())?;
    Some(("GUILD_MEMBER_REMOVE", json!({"guild_id": scene.guild_id, "user": user})))
}

fn presence(scene: &mut Scene) -> Option<Made> {
    let user = scene.somebody()?["user"]["id"].clone();
    let status = ["online", "idle", "dnd", "offline"][scene.random.usize(..4)];
    let activities = if status == "offline" {
        json!([])
    } else {
        json!([{"id": "custom", "type": 4,
        "name": "Custom Status", "state": scene.name(), "created_at": 1_700_000_000_000_u64, "emoji": null}])
    };
    let client = if status == "offline" { json!({}) } else { json!({"mobile": status}) };
    Some((
        "PRESENCE_UPDATE",
        json!({"user": {"id": user}, "guild_id": scene.guild_id, "status": status,
        "activities": activities, "client_status": client, "processed_at_timestamp": 0, "game": null}),
    ))
}

fn voice_state(scene: &mut Scene) -> Option<Made> {
    let channel = scene.list("channels").iter().find(|channel| channel["type"] == 2)?["id"].clone();
    let member = scene.somebody()?;
    let user = member["user"]["id"].clone();
    let inside = scene.list("voice_states").iter().any(|state| state["user_id"] == user);
    let leaves = inside && (scene.random.bool() || scene.list("voice_states").len() > SPARE);
    let channel = if leaves { Value::Null } else { channel };
    Some((
        "VOICE_STATE_UPDATE",
        json!({"guild_id": scene.guild_id, "user_id": user, "member": member,
        "channel_id": channel, "session_id": scene.name(), "deaf": false, "mute": false,
        "self_deaf": scene.random.bool(), "self_mute": scene.random.bool(), "self_video": false,
        "suppress": false, "request_to_speak_timestamp": null}),
    ))
}

fn role(scene: &mut Scene) -> Option<Made> {
    let pattern = scene.list("roles").last().cloned();
    let name = scene.name();
    Some(match scene.cycle("roles", "id", pattern)? {
        Cycle::Delete(role) => {
            ("GUILD_ROLE_DELETE", json!({"guild_id": scene.guild_id, "role_id": role["id"]}))
        }
        Cycle::Create(mut role) => {
            role["name"] = json!(name);
            ("GUILD_ROLE_CREATE", json!({"guild_id": scene.guild_id, "role": role}))
        }
        Cycle::Change(mut role) => {
            (role["name"], role["color"]) = (json!(name), json!(scene.random.u32(..0xFF_FFFF)));
            ("GUILD_ROLE_UPDATE", json!({"guild_id": scene.guild_id, "role": role}))
        }
    })
}

fn channel(scene: &mut Scene) -> Option<Made> {
    let mut pattern = scene.list("channels").first().cloned();
    if let Some(pattern) = &mut pattern {
        pattern["last_message_id"] = Value::Null;
    }
    let name = scene.name();
    Some(match scene.cycle("channels", "id", pattern)? {
        Cycle::Create(mut channel) => {
            channel["name"] = json!(name);
            ("CHANNEL_CREATE", scene.with_guild(channel))
        }
        Cycle::Change(mut channel) => {
            (channel["name"], channel["topic"]) = (json!(name), Value::Null);
            ("CHANNEL_UPDATE", scene.with_guild(channel))
        }
        Cycle::Delete(channel) => ("CHANNEL_DELETE", scene.with_guild(channel)),
    })
}

fn pins(scene: &mut Scene) -> Option<Made> {
    let channel = scene.list("channels").first()?["id"].clone();
    Some((
        "CHANNEL_PINS_UPDATE",
        json!({"guild_id": scene.guild_id, "channel_id": channel,
        "last_pin_timestamp": iso8601(unix())}),
    ))
}

fn thread(scene: &mut Scene) -> Option<Made> {
    let pattern = scene.list("threads").first().cloned();
    let forum = scene.list("channels").iter().find(|channel| channel["type"] == 15).map(|c| c["id"].clone());
    let name = scene.name();
    Some(match scene.cycle("threads", "id", pattern)? {
        Cycle::Create(mut thread) => {
            (thread["name"], thread["newly_created"]) = (json!(name), json!(true));
            if let (Some(forum), true) = (forum, scene.random.bool()) {
                thread["parent_id"] = forum;
            }
            ("THREAD_CREATE", scene.with_guild(thread))
        }
        Cycle::Change(mut thread) => {
            thread["name"] = json!(name);
            thread["thread_metadata"]["archived"] = json!(scene.random.bool());
            ("THREAD_UPDATE", scene.with_guild(thread))
        }
        Cycle::Delete(thread) => (
            "THREAD_DELETE",
            json!({"id": thread["id"], "guild_id": scene.guild_id,
            "parent_id": thread["parent_id"], "type": thread["type"]}),
        ),
    })
}

fn thread_members(scene: &mut Scene) -> Option<Made> {
    let thread = scene.any("threads")?;
    let member = scene.somebody()?;
    let user = member["user"]["id"].clone();
    Some((
        "THREAD_MEMBERS_UPDATE",
        json!({"id": thread["id"], "guild_id": scene.guild_id,
        "member_count": scene.random.u8(1..50), "added_members": [{"id": thread["id"], "user_id": user,
            "join_timestamp": iso8601(unix()), "flags": 1, "member": member, "presence": null}],
        "removed_member_ids": []}),
    ))
}

/// Emojis and stickers come as whole lists: one is renamed, or one is added to or taken from the end.
fn whole_list(scene: &mut Scene, key: &str) -> Option<Value> {
    let mut list = scene.list(key).to_vec();
    let name = scene.name();
    let at = (!list.is_empty()).then(|| scene.random.usize(..list.len()))?;
    match scene.random.u8(..3) {
        0 if scene.own(key, "id").len() < SPARE => {
            let mut new = list[at].clone();
            (new["id"], new["name"]) = (json!(scene.id()), json!(name));
            list.push(new);
        }
        1 if !scene.own(key, "id").is_empty() => drop(list.pop()),
        _ => list[at]["name"] = json!(name),
    }
    Some(Value::Array(list))
}

fn emojis(scene: &mut Scene) -> Option<Made> {
    let emojis = whole_list(scene, "emojis")?;
    Some(("GUILD_EMOJIS_UPDATE", json!({"guild_id": scene.guild_id, "emojis": emojis})))
}

fn stickers(scene: &mut Scene) -> Option<Made> {
    let stickers = whole_list(scene, "stickers")?;
    Some(("GUILD_STICKERS_UPDATE", json!({"guild_id": scene.guild_id, "stickers": stickers})))
}

fn stage(scene: &mut Scene) -> Option<Made> {
    let pattern = scene.list("stage_instances").first().cloned();
    let topic = scene.name();
    Some(match scene.cycle("stage_instances", "id", pattern)? {
        Cycle::Create(stage) => ("STAGE_INSTANCE_CREATE", stage),
        Cycle::Change(mut stage) => {
            stage["topic"] = json!(topic);
            ("STAGE_INSTANCE_UPDATE", stage)
        }
        Cycle::Delete(stage) => ("STAGE_INSTANCE_DELETE", stage),
    })
}

fn scheduled_event(scene: &mut Scene) -> Option<Made> {
    let pattern = scene.list("guild_scheduled_events").first().cloned();
    let name = scene.name();
    Some(match scene.cycle("guild_scheduled_events", "id", pattern)? {
        Cycle::Create(event) => ("GUILD_SCHEDULED_EVENT_CREATE", event),
        Cycle::Change(mut event) => {
            (event["name"], event["status"]) = (json!(name), json!(2));
            ("GUILD_SCHEDULED_EVENT_UPDATE", event)
        }
        Cycle::Delete(event) => ("GUILD_SCHEDULED_EVENT_DELETE", event),
    })
}

fn sound(scene: &mut Scene) -> Option<Made> {
    let pattern = scene.list("soundboard_sounds").first().cloned();
    let name = scene.name();
    Some(match scene.cycle("soundboard_sounds", "sound_id", pattern)? {
        Cycle::Create(sound) => ("GUILD_SOUNDBOARD_SOUND_CREATE", sound),
        Cycle::Change(mut sound) => {
            sound["name"] = json!(name);
            ("GUILD_SOUNDBOARD_SOUND_UPDATE", sound)
        }
        Cycle::Delete(sound) => (
            "GUILD_SOUNDBOARD_SOUND_DELETE",
            json!({"sound_id": sound["sound_id"],
            "guild_id": scene.guild_id}),
        ),
    })
}

fn guild_update(scene: &mut Scene) -> Option<Made> {
    let mut guild = guild_object(scene.guild);
    guild.insert("name".to_owned(), json!(scene.name()));
    guild.insert("premium_subscription_count".to_owned(), json!(scene.random.u8(..30)));
    Some(("GUILD_UPDATE", Value::Object(guild)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;
    use crate::view::View;
    use crate::world::{WorldSpec, guild_id};

    #[test]
    fn a_thousand_events_leave_a_guild_of_about_its_size_and_every_kind_happens() {
        let mut world = World::new(WorldSpec { guilds: 1, ..WorldSpec::default() });
        let before = world.guild_create(guild_id(0), View::default()).unwrap().len();
        let (mut random, ids) = (fastrand::Rng::with_seed(7), Snowflakes::default());
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..3_000 {
            if let Some((name, data)) = event(&mut world, guild_id(0), &mut random, &ids) {
                let named = data["guild_id"].as_str() == Some(guild_id(0).to_string().as_str());
                assert!(named || name == "GUILD_UPDATE", "{name}");
                model::apply(world.tree(guild_id(0)).unwrap(), name, &data);
                names.insert(name);
            }
        }
        let after = world.guild_create(guild_id(0), View::default()).unwrap().len();
        assert!(after < before * 3, "{before} bytes became {after}");
        assert_eq!(names.len(), 33, "{names:?}");
    }
}
