// SPDX-License-Identifier: AGPL-3.0-only
//! What an event does to a guild, on full JSON trees.
//!
//! In: a guild as GUILD_CREATE shows it, an event. Out: the guild as GUILD_CREATE would show it afterwards. Written
//! from the documentation (events/gateway-events), naive on purpose: tests compare the services' state with it.
use serde_json::Value;

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

/// Whether the event changes what GUILD_CREATE shows.
pub(crate) fn changes(_name: &str) -> bool {
    false
}

/// Changes the guild.
pub(crate) fn apply(_guild: &mut Value, _name: &str, _event: &Value) {}
