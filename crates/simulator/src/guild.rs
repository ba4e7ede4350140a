// SPDX-License-Identifier: AGPL-3.0-only
//! A guild as GUILD_CREATE shows it, with placeholders.
//!
//! In: how many of each entity. Out: one JSON tree from which every guild of the world is rendered. It has what the
//! documentation lists, and as in reality fields it doesn't list and explicit nulls.
use serde_json::{Value, json};

use crate::template::{GUILD, LAST_MESSAGE, hex, id, word};
use crate::world::{BOT_USER, Kind, WorldSpec};

/// Gives out slot numbers and the entities.
struct Builder<'a> {
    spec: &'a WorldSpec,
    slot: u32,
}

/// The whole guild.
pub(crate) fn template(spec: &WorldSpec) -> Value {
    let mut builder = Builder { spec, slot: 0 };
    let mut guild = builder.properties();
    for (key, list) in [
        ("roles", builder.list(spec.roles, Builder::role)),
        ("emojis", builder.list(spec.emojis, Builder::emoji)),
        ("stickers", builder.list(spec.stickers, Builder::sticker)),
        ("channels", builder.list(spec.channels, Builder::channel)),
        ("members", builder.list(spec.members, Builder::member)),
        ("presences", builder.list(spec.presences.min(spec.members.saturating_sub(1)), Builder::presence)),
        ("voice_states", builder.list(spec.voice_states.min(spec.members.saturating_sub(1)), Builder::voice)),
        ("threads", builder.list(spec.threads, Builder::thread)),
        ("stage_instances", builder.list(spec.stage_instances, Builder::stage)),
        ("guild_scheduled_events", builder.list(spec.scheduled_events, Builder::event)),
        ("soundboard_sounds", builder.list(spec.soundboard_sounds, Builder::sound)),
    ] {
        guild[key] = list;
    }
    guild
}

fn entity(kind: Kind, n: u32) -> String {
    id(kind as u8, n)
}

/// A moment in the past that differs from entity to entity.
fn moment(n: u32) -> String {
    format!(
        "2023-{:02}-{:02}T{:02}:{:02}:17.{:06}+00:00",
        n % 12 + 1,
        n % 28 + 1,
        n % 24,
        n % 60,
        n * 7919 % 1_000_000
    )
}

impl Builder<'_> {
    fn list(&mut self, count: u32, make: fn(&mut Self, u32) -> Value) -> Value {
        (0..count).map(|n| make(self, n)).collect()
    }

    fn hex(&mut self, len: usize) -> String {
        self.slot += 1;
        hex(len, self.slot)
    }

    fn word(&mut self, len: usize) -> String {
        self.slot += 1;
        word(len, self.slot)
    }

    fn properties(&mut self) -> Value {
        let description = (self.spec.description_bytes > 0)
            .then(|| "All about it, and then some more. ".repeat(self.spec.description_bytes / 34 + 1))
            .map(|text| text[..self.spec.description_bytes].to_owned());
        let mut guild = json!({
            "id": GUILD, "name": self.word(14), "icon": self.hex(32), "splash": null, "discovery_splash": null,
            "owner_id": entity(Kind::User, 1), "region": "deprecated", "afk_channel_id": null, "afk_timeout": 300,
            "verification_level": 1, "default_message_notifications": 0, "explicit_content_filter": 2,
            "features": ["COMMUNITY", "NEWS", "SOUNDBOARD", "CHANNEL_ICON_EMOJIS_GENERATED"], "mfa_level": 0,
            "application_id": null, "system_channel_id": entity(Kind::Channel, 0), "system_channel_flags": 0,
            "rules_channel_id": entity(Kind::Channel, 0), "max_presences": null, "max_members": 25_000_000,
            "vanity_url_code": null, "description": description, "banner": null, "premium_tier": 1,
            "premium_subscription_count": 3, "preferred_locale": "en-US",
            "public_updates_channel_id": entity(Kind::Channel, 0), "max_video_channel_users": 25,
            "max_stage_video_channel_users": 50, "nsfw_level": 0, "premium_progress_bar_enabled": true,
            "safety_alerts_channel_id": null, "incidents_data": null,
        });
        let extra = json!({
            // Not in the documentation, in every real guild all the same.
            "nsfw": false, "lazy": true, "home_header": null, "hub_type": null, "latest_onboarding_question_id": null,
            "application_command_counts": {"1": 3}, "embedded_activities": [], "activity_instances": [],
            "version": 1_700_000_000_000_u64, "profile": null, "inventory_settings": null, "guild_hashes": {},
            "clan": null, "premium_features": null, "owner_configured_content_level": 0,
            // GUILD_CREATE's own.
            "joined_at": moment(3), "large": self.spec.members > 50, "unavailable": false,
            "member_count": self.spec.members,
        });
        if let (Some(guild), Value::Object(extra)) = (guild.as_object_mut(), extra) {
            guild.extend(extra);
        }
        guild
    }

    fn role(&mut self, n: u32) -> Value {
        let role = if n == 0 { GUILD.to_owned() } else { entity(Kind::Role, n) };
        let name = if n == 0 { "@everyone".to_owned() } else { self.word(11) };
        json!({"id": role, "name": name, "color": n * 65_793, "hoist": n % 3 == 1, "icon": null,
            "colors": {"primary_color": n * 65_793, "secondary_color": null, "tertiary_color": null},
            "unicode_emoji": null, "position": n, "permissions": "2248473465835073", "managed": false,
            "mentionable": n % 2 == 1, "flags": 0, "version": 1_690_000_000_000_u64 + u64::from(n), "tags": {}})
    }

    fn emoji(&mut self, n: u32) -> Value {
        json!({"id": entity(Kind::Emoji, n), "name": self.word(10), "roles": [], "require_colons": true,
            "managed": false, "animated": n.is_multiple_of(4), "available": true, "version": 1})
    }

    fn sticker(&mut self, n: u32) -> Value {
        json!({"id": entity(Kind::Sticker, n), "guild_id": GUILD, "name": self.word(12), "tags": "smile",
            "description": null, "type": 2, "format_type": 1, "available": true, "asset": ""})
    }

    fn channel(&mut self, n: u32) -> Value {
        let overwrites: Vec<_> = (0..n % 3)
            .map(|role| {
                let id = if role == 0 { GUILD.to_owned() } else { entity(Kind::Role, role) };
                json!({"id": id, "type": 0, "allow": "1024", "deny": "2048"})
            })
            .collect();
        let mut channel = json!({"id": entity(Kind::Channel, n), "name": self.word(13), "position": n, "flags": 0,
            "permission_overwrites": overwrites, "version": 1_700_000_000_000_u64 + u64::from(n)});
        let category = if self.spec.channels > 2 { json!(entity(Kind::Channel, 2)) } else { Value::Null };
        let own = match n {
            2 => json!({"type": 4}),
            1 | 3 => json!({"type": if n == 1 { 2 } else { 13 }, "parent_id": category, "bitrate": 64_000,
                "user_limit": 0, "rtc_region": null, "rate_limit_per_user": 0, "nsfw": false,
                "last_message_id": null}),
            4 => json!({"type": 15, "parent_id": category, "topic": "Ask here", "nsfw": false,
                "rate_limit_per_user": 0, "last_message_id": null, "template": "", "default_sort_order": null,
                "default_forum_layout": 0, "default_reaction_emoji": null, "available_tags": [
                    {"id": entity(Kind::Emoji, 9_000), "name": "solved", "moderated": false, "emoji_id": null,
                     "emoji_name": null}]}),
            5 => {
                json!({"type": 5, "parent_id": category, "topic": null, "nsfw": false, "rate_limit_per_user": 0,
                "last_message_id": null, "last_pin_timestamp": null})
            }
            _ => json!({"type": 0, "parent_id": if n == 0 { Value::Null } else { category }, "nsfw": false,
                "topic": (n.is_multiple_of(2)).then(|| self.word(40)), "rate_limit_per_user": n % 5,
                "last_message_id": if n == 0 { json!(LAST_MESSAGE) } else { Value::Null },
                "last_pin_timestamp": null, "icon_emoji": {"id": null, "name": "📘"}, "theme_color": null}),
        };
        if let (Some(channel), Value::Object(own)) = (channel.as_object_mut(), own) {
            channel.extend(own);
        }
        channel
    }

    fn user(&mut self, n: u32) -> Value {
        if n == 0 {
            return json!({"id": BOT_USER.to_string(), "username": "simulated", "global_name": null,
                "display_name": null, "discriminator": "0001", "avatar": null, "bot": true, "public_flags": 0,
                "avatar_decoration_data": null, "clan": null, "primary_guild": null});
        }
        json!({"id": entity(Kind::User, n), "username": self.word(12), "global_name": self.word(9),
            "display_name": null, "discriminator": "0", "avatar": self.hex(32), "bot": false, "public_flags": 0,
            "avatar_decoration_data": null, "collectibles": null, "clan": null, "primary_guild": null})
    }

    fn member(&mut self, n: u32) -> Value {
        let count = if self.spec.roles > 1 { n % 3 } else { 0 };
        let roles: Vec<_> =
            (0..count).map(|role| entity(Kind::Role, 1 + (n + role) % (self.spec.roles - 1))).collect();
        json!({"user": self.user(n), "nick": (n % 4 == 3).then(|| self.word(9)), "avatar": null, "banner": null,
            "roles": roles, "joined_at": moment(n), "premium_since": null, "deaf": false, "mute": false,
            "flags": 0, "pending": false, "communication_disabled_until": null, "unusual_dm_activity_until": null,
            "avatar_decoration_data": null, "collectibles": null})
    }

    fn presence(&mut self, n: u32) -> Value {
        let status = ["online", "idle", "dnd"][n as usize % 3];
        let activities = if n.is_multiple_of(2) {
            json!([{"id": self.hex(16), "name": self.word(12), "type": 0, "created_at": 1_700_000_000_000_u64,
                "state": null, "details": self.word(18), "session_id": self.hex(32)}])
        } else {
            json!([])
        };
        json!({"user": {"id": entity(Kind::User, n + 1)}, "status": status, "activities": activities,
            "client_status": {"desktop": status}, "processed_at_timestamp": 0, "game": null})
    }

    fn voice(&mut self, n: u32) -> Value {
        json!({"user_id": entity(Kind::User, n + 1), "channel_id": entity(Kind::Channel, 1), "session_id": self.hex(32),
            "deaf": false, "mute": false, "self_deaf": n.is_multiple_of(2), "self_mute": true, "self_video": false,
            "suppress": false, "request_to_speak_timestamp": null})
    }

    fn thread(&mut self, n: u32) -> Value {
        json!({"id": entity(Kind::Thread, n), "guild_id": GUILD, "parent_id": entity(Kind::Channel, 0), "type": 11,
            "owner_id": entity(Kind::User, 1), "name": self.word(16), "message_count": n, "member_count": 2,
            "total_message_sent": n, "rate_limit_per_user": 0, "flags": 0, "last_message_id": null,
            "member_ids_preview": [entity(Kind::User, 1)],
            "thread_metadata": {"archived": false, "archive_timestamp": moment(n), "auto_archive_duration": 1440,
                "locked": false, "create_timestamp": moment(n)}})
    }

    fn stage(&mut self, n: u32) -> Value {
        json!({"id": entity(Kind::Stage, n), "guild_id": GUILD, "channel_id": entity(Kind::Channel, 3),
            "topic": self.word(20), "privacy_level": 2, "discoverable_disabled": true,
            "guild_scheduled_event_id": null, "invite_code": null})
    }

    fn event(&mut self, n: u32) -> Value {
        json!({"id": entity(Kind::Event, n), "guild_id": GUILD, "channel_id": entity(Kind::Channel, 1),
            "creator_id": entity(Kind::User, 1), "name": self.word(18), "description": null,
            "scheduled_start_time": "2027-03-01T18:00:00+00:00", "scheduled_end_time": null, "privacy_level": 2,
            "status": 1, "entity_type": 2, "entity_id": null, "entity_metadata": null, "image": null, "sku_ids": [],
            "recurrence_rule": null, "auto_start": false, "guild_scheduled_event_exceptions": []})
    }

    fn sound(&mut self, n: u32) -> Value {
        json!({"sound_id": entity(Kind::Sound, n), "guild_id": GUILD, "name": self.word(9), "volume": 1.0,
            "emoji_id": null, "emoji_name": "🔔", "available": true, "user_id": entity(Kind::User, 1)})
    }
}
