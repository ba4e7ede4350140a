// SPDX-License-Identifier: AGPL-3.0-only
//! Values of kinds that only this service knows: what was written comes in, what is meant goes out, or nothing.

use std::ops::RangeInclusive;

use holdfast_discord::Intents;
use holdfast_service::settings::{Node, Origin, Section, Value};
use serde_json::json;

pub(super) const PRESENCE_KIND: &str = "a presence such as { status = \"online\", activity = { type = 0, name = \"on shard \
                             {{shard}}\" } }, with status one of online, idle, dnd, invisible, offline";

/// Accepts Discord's own form and the shorter one with a single `activity`; gives the `d` of op 3.
pub(super) fn presence(value: &Value) -> Option<serde_json::Value> {
    let written = value.to_json();
    let written = written.as_object()?;
    let known = ["status", "activity", "activities", "afk", "since"];
    let status = written.get("status").map_or(Some("online"), |status| status.as_str())?;
    if !["online", "idle", "dnd", "invisible", "offline"].contains(&status)
        || written.keys().any(|key| !known.contains(&key.as_str()))
    {
        return None;
    }
    let activities = match (written.get("activity"), written.get("activities")) {
        (Some(activity), None) => json!([activity]),
        (None, Some(activities)) => activities.clone(),
        (None, None) => json!([]),
        (Some(_), Some(_)) => return None,
    };
    let named = |activity: &serde_json::Value| activity.get("name").is_some_and(serde_json::Value::is_string);
    if !activities.as_array()?.iter().all(named) {
        return None;
    }
    let afk = written.get("afk").map_or(Some(false), serde_json::Value::as_bool)?;
    let since = written.get("since").cloned().unwrap_or_default();
    Some(json!({ "since": since, "activities": activities, "status": status, "afk": afk }))
}

/// JSON as the settings file would have it.
pub(super) fn shown(json: &serde_json::Value) -> String {
    let origin = Origin::Argument(String::new());
    Value::from_json(json, &origin).map_or_else(String::new, |value| value.to_string())
}

/// The sum of Discord's bits, or a list of names. By default all that need no approval.
pub(super) fn intents(discord: &Section<'_>) -> Intents {
    let parse = |value: &Value| match value {
        Value::Integer(bits) => u64::try_from(*bits).ok().map(Intents),
        Value::Text(text) => match text.trim().parse::<u64>() {
            Ok(bits) => Some(Intents(bits)),
            Err(_) => Intents::from_names(text.split(',').map(str::trim)).ok(),
        },
        Value::List(nodes) => {
            let name = |node: &Node| match &node.value {
                Value::Text(name) => Some(name.clone()),
                _ => None,
            };
            Intents::from_names(nodes.iter().map(name).collect::<Option<Vec<_>>>()?).ok()
        }
        _ => None,
    };
    let expected =
        "the sum of Discord's intent bits, or a list of their names such as [\"GUILDS\", \"GUILD_MESSAGES\"]";
    let default = Intents::ALL.without(Intents::PRIVILEGED);
    discord.custom("intents", default, expected, parse, |intents| intents.0.to_string())
}

/// A number, or the word that leaves it to us.
pub(super) fn number_or(
    section: &Section<'_>,
    key: &'static str,
    word: &str,
    range: RangeInclusive<u64>,
) -> Option<u64> {
    let expected = format!("\"{word}\" or a whole number from {} to {}", range.start(), range.end());
    let within = |number: Option<u64>| number.filter(|number| range.contains(number)).map(Some);
    let parse = |value: &Value| match value {
        Value::Text(text) if text == word => Some(None),
        Value::Text(text) => within(text.parse().ok()),
        Value::Integer(number) => within(u64::try_from(*number).ok()),
        _ => None,
    };
    let show = |number: &Option<u64>| number.map_or(format!("\"{word}\""), |number| number.to_string());
    section.custom(key, None, &expected, parse, show)
}

/// Bounds of memory fit the machine's word: their ranges end far below its end.
pub(super) fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
