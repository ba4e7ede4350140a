// SPDX-License-Identifier: AGPL-3.0-only
//! Events given as JSON, from tests and from "mixed" traffic.
//!
//! In: a name and data. Out: the world after it, and the event in the sessions that may see it.
use bytes::Bytes;
use serde_json::Value;

use crate::hub::{Event, Hub};
use crate::limits::Limits;
use crate::model;
use crate::world::{BOT_USER, World};

impl Hub {
    /// Applies the event to the world and hands it out.
    pub(crate) fn emit(
        &self,
        world: &mut World,
        limits: &Limits,
        name: &str,
        data: &Value,
        guild: Option<u64>,
        shard: Option<u32>,
    ) {
        let guild = guild.or_else(|| guild_of(name, data));
        if let Some(guild) = guild {
            change(world, guild, name, data);
        }
        let about_self = about_self(data);
        let (name, data) = (Bytes::copy_from_slice(name.as_bytes()), Bytes::from(data.to_string()));
        self.dispatch(world, limits, &Event { guild, shard, name, data, about_self });
    }
}

fn change(world: &mut World, guild: u64, name: &str, data: &Value) {
    match name {
        "GUILD_CREATE" => world.put(guild, data.clone()),
        "GUILD_DELETE" => world.take_away(guild, data["unavailable"] == true),
        "MESSAGE_CREATE" => {
            let id = |key: &str| data[key].as_str().and_then(|id| id.parse().ok());
            if let (Some(channel), Some(message)) = (id("channel_id"), id("id")) {
                world.message(guild, channel, message);
            }
        }
        "VOICE_CHANNEL_STATUS_UPDATE" | "VOICE_CHANNEL_START_TIME_UPDATE" => {
            let channel = data["id"].as_str().unwrap_or_default().to_owned();
            let info = world.voice_info.entry(channel).or_insert(Value::Null);
            for field in ["status", "voice_start_time"] {
                if let Some(value) = data.get(field) {
                    info[field] = value.clone();
                }
            }
        }
        _ if model::changes(name) => {
            if let Some(tree) = world.tree(guild) {
                model::apply(tree, name, data);
            }
        }
        _ => {}
    }
}

fn guild_of(name: &str, data: &Value) -> Option<u64> {
    let key =
        if matches!(name, "GUILD_CREATE" | "GUILD_UPDATE" | "GUILD_DELETE") { "id" } else { "guild_id" };
    data[key].as_str()?.parse().ok()
}

fn about_self(data: &Value) -> bool {
    let own = BOT_USER.to_string();
    let is_own = |value: &Value| value.as_str() == Some(own.as_str());
    let has_own = |list: &Value, key: &str| {
        list.as_array().into_iter().flatten().any(|item| is_own(item) || item.get(key).is_some_and(is_own))
    };
    is_own(&data["user"]["id"])
        || is_own(&data["user_id"])
        || has_own(&data["added_members"], "user_id")
        || has_own(&data["removed_member_ids"], "")
}
