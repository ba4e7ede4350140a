// SPDX-License-Identifier: AGPL-3.0-only
//! What happens in a guild without changing it: reactions, typing, edits.
//!
//! In: the scene. Out: events about the latest message of the first text channel.
use serde_json::json;

use crate::clock::{iso8601, unix};
use crate::mixed::{Made, Scene};

pub(crate) fn reaction(scene: &mut Scene) -> Option<Made> {
    let channel = scene.list("channels").first()?.clone();
    let member = scene.somebody()?;
    let base = json!({"guild_id": scene.guild_id, "channel_id": channel["id"], "message_id": channel["last_message_id"],
        "user_id": member["user"]["id"], "emoji": {"id": null, "name": "🔥"}, "burst": false, "type": 0});
    if scene.random.bool() {
        return Some(("MESSAGE_REACTION_REMOVE", base));
    }
    let mut added = base;
    (added["member"], added["message_author_id"]) = (member.clone(), member["user"]["id"].clone());
    Some(("MESSAGE_REACTION_ADD", added))
}

pub(crate) fn typing(scene: &mut Scene) -> Option<Made> {
    let channel = scene.list("channels").first()?["id"].clone();
    let member = scene.somebody()?;
    Some((
        "TYPING_START",
        json!({"guild_id": scene.guild_id, "channel_id": channel,
        "user_id": member["user"]["id"], "timestamp": unix().as_secs(), "member": member}),
    ))
}

pub(crate) fn message_change(scene: &mut Scene) -> Option<Made> {
    let channel = scene.list("channels").first()?.clone();
    let id = channel["last_message_id"].clone();
    if scene.random.bool() {
        return Some((
            "MESSAGE_DELETE",
            json!({"id": id, "channel_id": channel["id"], "guild_id": scene.guild_id}),
        ));
    }
    let author = scene.somebody()?["user"].clone();
    Some((
        "MESSAGE_UPDATE",
        json!({"id": id, "channel_id": channel["id"], "guild_id": scene.guild_id,
        "author": author, "content": "edited", "edited_timestamp": iso8601(unix()), "tts": false, "type": 0,
        "timestamp": iso8601(unix()), "mentions": [], "mention_roles": [], "mention_everyone": false,
        "attachments": [], "embeds": [], "pinned": false, "components": [], "flags": 0, "channel_type": 0}),
    ))
}
