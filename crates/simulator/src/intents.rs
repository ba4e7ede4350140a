// SPDX-License-Identifier: AGPL-3.0-only
//! Which intent lets which event through.
//!
//! In: an event's name and where it happened. Out: the intents of which one must be held. The table follows
//! Discord's list of intents (events/gateway, "List of Intents") and is deliberately not shared with the services.

pub(crate) const GUILDS: u64 = 1 << 0;
pub(crate) const GUILD_MEMBERS: u64 = 1 << 1;
pub(crate) const GUILD_VOICE_STATES: u64 = 1 << 7;
pub(crate) const GUILD_PRESENCES: u64 = 1 << 8;
pub(crate) const MESSAGE_CONTENT: u64 = 1 << 15;
pub(crate) const GUILD_SCHEDULED_EVENTS: u64 = 1 << 16;

/// Every bit that the documentation gives a name: 0 to 16, 20, 21, 24, 25.
pub(crate) const KNOWN: u64 = 0x1_FFFF | 1 << 20 | 1 << 21 | 1 << 24 | 1 << 25;

/// Not tied to any intent.
const ALWAYS: u64 = 0;

/// The intents of which at least one lets `name` through; none means always.
pub(crate) fn needed(name: &str, in_guild: bool) -> u64 {
    let either = |guild: u32, direct: u32| if in_guild { 1 << guild } else { 1 << direct };
    match name {
        "GUILD_CREATE"
        | "GUILD_UPDATE"
        | "GUILD_DELETE"
        | "GUILD_ROLE_CREATE"
        | "GUILD_ROLE_UPDATE"
        | "GUILD_ROLE_DELETE"
        | "CHANNEL_CREATE"
        | "CHANNEL_UPDATE"
        | "CHANNEL_DELETE"
        | "THREAD_CREATE"
        | "THREAD_UPDATE"
        | "THREAD_DELETE"
        | "THREAD_LIST_SYNC"
        | "THREAD_MEMBER_UPDATE"
        | "STAGE_INSTANCE_CREATE"
        | "STAGE_INSTANCE_UPDATE"
        | "STAGE_INSTANCE_DELETE"
        | "VOICE_CHANNEL_STATUS_UPDATE"
        | "VOICE_CHANNEL_START_TIME_UPDATE" => GUILDS,
        "CHANNEL_PINS_UPDATE" => either(0, 12),
        "GUILD_MEMBER_ADD" | "GUILD_MEMBER_UPDATE" | "GUILD_MEMBER_REMOVE" | "THREAD_MEMBERS_UPDATE" => {
            GUILD_MEMBERS
        }
        "GUILD_AUDIT_LOG_ENTRY_CREATE" | "GUILD_BAN_ADD" | "GUILD_BAN_REMOVE" => 1 << 2,
        "GUILD_EMOJIS_UPDATE"
        | "GUILD_STICKERS_UPDATE"
        | "GUILD_SOUNDBOARD_SOUND_CREATE"
        | "GUILD_SOUNDBOARD_SOUND_UPDATE"
        | "GUILD_SOUNDBOARD_SOUND_DELETE"
        | "GUILD_SOUNDBOARD_SOUNDS_UPDATE" => 1 << 3,
        "GUILD_INTEGRATIONS_UPDATE" | "INTEGRATION_CREATE" | "INTEGRATION_UPDATE" | "INTEGRATION_DELETE" => {
            1 << 4
        }
        "WEBHOOKS_UPDATE" => 1 << 5,
        "INVITE_CREATE" | "INVITE_DELETE" => 1 << 6,
        "VOICE_STATE_UPDATE" | "VOICE_CHANNEL_EFFECT_SEND" => GUILD_VOICE_STATES,
        "PRESENCE_UPDATE" => GUILD_PRESENCES,
        "MESSAGE_CREATE" | "MESSAGE_UPDATE" | "MESSAGE_DELETE" => either(9, 12),
        "MESSAGE_DELETE_BULK" => 1 << 9,
        "MESSAGE_REACTION_ADD"
        | "MESSAGE_REACTION_REMOVE"
        | "MESSAGE_REACTION_REMOVE_ALL"
        | "MESSAGE_REACTION_REMOVE_EMOJI" => either(10, 13),
        "TYPING_START" => either(11, 14),
        "GUILD_SCHEDULED_EVENT_CREATE"
        | "GUILD_SCHEDULED_EVENT_UPDATE"
        | "GUILD_SCHEDULED_EVENT_DELETE"
        | "GUILD_SCHEDULED_EVENT_USER_ADD"
        | "GUILD_SCHEDULED_EVENT_USER_REMOVE" => GUILD_SCHEDULED_EVENTS,
        "AUTO_MODERATION_RULE_CREATE" | "AUTO_MODERATION_RULE_UPDATE" | "AUTO_MODERATION_RULE_DELETE" => {
            1 << 20
        }
        "AUTO_MODERATION_ACTION_EXECUTION" => 1 << 21,
        "MESSAGE_POLL_VOTE_ADD" | "MESSAGE_POLL_VOTE_REMOVE" => either(24, 25),
        _ => ALWAYS,
    }
}

/// Whether a session that holds `held` receives the event. `about_self`: it is about the bot's own user, whose
/// member updates and thread memberships need less (events/gateway, "Caveats").
pub(crate) fn lets_through(held: u64, name: &str, in_guild: bool, about_self: bool) -> bool {
    if about_self {
        match name {
            "GUILD_MEMBER_UPDATE" => return true,
            "THREAD_MEMBERS_UPDATE" => return held & (GUILDS | GUILD_MEMBERS) != 0,
            _ => {}
        }
    }
    let needed = needed(name, in_guild);
    needed == ALWAYS || held & needed != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_the_documented_ones() {
        assert_eq!(needed("GUILD_CREATE", true), 1);
        assert_eq!(needed("MESSAGE_CREATE", true), 512);
        assert_eq!(needed("MESSAGE_CREATE", false), 4096);
        assert_eq!(needed("MESSAGE_POLL_VOTE_ADD", false), 1 << 25);
        assert_eq!(KNOWN, 53_608_447, "the sum of all documented intents");
    }

    #[test]
    fn events_without_an_intent_always_pass() {
        for name in ["INTERACTION_CREATE", "VOICE_SERVER_UPDATE", "GUILD_MEMBERS_CHUNK", "SOMETHING_NEW"] {
            assert!(lets_through(0, name, true, false), "{name}");
        }
        assert!(!lets_through(0, "TYPING_START", true, false));
    }

    #[test]
    fn the_bots_own_member_update_needs_no_intent() {
        assert!(lets_through(0, "GUILD_MEMBER_UPDATE", true, true));
        assert!(!lets_through(GUILDS, "GUILD_MEMBER_UPDATE", true, false));
        assert!(lets_through(GUILDS, "THREAD_MEMBERS_UPDATE", true, true));
    }
}
