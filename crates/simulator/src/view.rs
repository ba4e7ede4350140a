// SPDX-License-Identifier: AGPL-3.0-only
//! What of a guild a session is shown in GUILD_CREATE.
//!
//! In: a guild in full. Out: the same less what intents and large_threshold withhold
//! (events/gateway-events, "Guild Create", "Request Guild Members").
use std::collections::HashSet;

use serde_json::Value;

use crate::intents;

/// Above this many members, presences and members shrink as if the intent were missing.
const HUGE: u64 = 75_000;

/// A session's view of guilds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) presences: bool,
    pub(crate) voice_states: bool,
    pub(crate) scheduled_events: bool,
    /// `None` shows every member.
    pub(crate) large_threshold: Option<u64>,
}

impl Default for View {
    /// Everything.
    fn default() -> Self {
        Self { presences: true, voice_states: true, scheduled_events: true, large_threshold: None }
    }
}

impl View {
    /// The view of a session that identified so.
    pub(crate) fn of(held: u64, large_threshold: u64) -> Self {
        Self {
            presences: held & intents::GUILD_PRESENCES != 0,
            voice_states: held & intents::GUILD_VOICE_STATES != 0,
            scheduled_events: held & intents::GUILD_SCHEDULED_EVENTS != 0,
            large_threshold: Some(large_threshold.clamp(50, 250)),
        }
    }

    /// Takes away what the session isn't shown. `own_user`: the bot, always among the members.
    pub(crate) fn apply(&self, guild: &mut Value, own_user: &str) {
        let Some(threshold) = self.large_threshold else { return };
        let count = guild["member_count"].as_u64().unwrap_or_default();
        guild["large"] = Value::Bool(count > threshold);
        let mut shown = ids(&guild["voice_states"], |state| state["user_id"].as_str());
        shown.insert(own_user.to_owned());
        let voice_only = !self.presences || count > HUGE;
        if !voice_only {
            shown.extend(ids(&guild["presences"], |presence| presence["user"]["id"].as_str()));
        }
        if voice_only || count > threshold {
            retain(&mut guild["members"], |member| {
                let distinct = member["roles"].as_array().is_some_and(|roles| !roles.is_empty())
                    || member["nick"].is_string();
                (distinct && !voice_only)
                    || member["user"]["id"].as_str().is_some_and(|id| shown.contains(id))
            });
        }
        if !self.presences {
            retain(&mut guild["presences"], |_| false);
        } else if voice_only {
            retain(&mut guild["presences"], |presence| {
                presence["user"]["id"].as_str().is_some_and(|id| shown.contains(id))
            });
        }
        if !self.voice_states {
            retain(&mut guild["voice_states"], |_| false);
        }
        if !self.scheduled_events {
            retain(&mut guild["guild_scheduled_events"], |_| false);
        }
    }
}

fn ids(list: &Value, id: impl Fn(&Value) -> Option<&str>) -> HashSet<String> {
    list.as_array().into_iter().flatten().filter_map(id).map(str::to_owned).collect()
}

fn retain(list: &mut Value, keep: impl FnMut(&Value) -> bool) {
    if let Some(list) = list.as_array_mut() {
        list.retain(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn guild(count: u64) -> Value {
        let member = |id: &str, roles: Value| json!({"user": {"id": id}, "roles": roles, "nick": null});
        json!({"member_count": count, "large": false,
            "members": [member("1", json!([])), member("2", json!(["r"])), member("3", json!([])),
                member("4", json!([])), member("5", json!([]))],
            "presences": [{"user": {"id": "3"}, "status": "idle"}],
            "voice_states": [{"user_id": "4"}], "guild_scheduled_events": [{"id": "9"}]})
    }

    fn members(view: View, count: u64) -> Vec<String> {
        let mut guild = guild(count);
        view.apply(&mut guild, "1");
        let id = |member: &Value| member["user"]["id"].as_str().unwrap_or_default().to_owned();
        guild["members"].as_array().unwrap().iter().map(id).collect()
    }

    #[test]
    fn a_small_guild_shows_all_a_large_one_the_distinct_and_without_presences_only_voice() {
        assert_eq!(members(View::of(u64::MAX, 50), 50).len(), 5);
        assert_eq!(members(View::of(u64::MAX, 50), 51), ["1", "2", "3", "4"]);
        assert_eq!(members(View::of(u64::MAX, 250), 80_000), ["1", "4"]);
        assert_eq!(members(View::of(1, 50), 5), ["1", "4"]);
    }

    #[test]
    fn large_follows_the_threshold_that_the_client_gave() {
        for (threshold, large) in [(50, true), (100, false), (1, true)] {
            let mut guild = guild(80);
            View::of(u64::MAX, threshold).apply(&mut guild, "1");
            assert_eq!(guild["large"], large);
        }
    }
}
