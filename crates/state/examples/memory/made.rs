// SPDX-License-Identifier: AGPL-3.0-only
//! Guilds as large as those of a busy bot, and an hour of what happens in them. In: a number. Out: payloads with the
//! entropy of real ones: ids spread over years, hashes, names of many lengths, few large activities.

use std::fmt::Write as _;

use holdfast_discord::EventKind;

const WORDS: [&str; 40] = [
    "night", "river", "pixel", "storm", "coffee", "lunar", "echo", "ghost", "maple", "nova", "amber",
    "frost", "tiger", "cloud", "ember", "raven", "solar", "velvet", "wander", "zephyr", "crimson", "drift",
    "hollow", "ivory", "jade", "karma", "lotus", "mirage", "nectar", "onyx", "prism", "quartz", "ripple",
    "sage", "topaz", "umbra", "vortex", "willow", "xenon", "yarrow",
];
const GAMES: [&str; 8] = [
    "Minecraft",
    "VALORANT",
    "League of Legends",
    "Genshin Impact",
    "Spotify",
    "Visual Studio Code",
    "Roblox",
    "Counter-Strike 2",
];

pub(crate) struct Made {
    pub(crate) id: u64,
    rng: fastrand::Rng,
    users: Vec<u64>,
    channels: Vec<u64>,
    roles: Vec<u64>,
    next: u64,
}

impl Made {
    pub(crate) fn new(seed: u64, members: u64) -> Made {
        let mut rng = fastrand::Rng::with_seed(seed);
        let id = snowflake(&mut rng);
        let users = (1..members).map(|_| snowflake(&mut rng)).collect();
        let channels = (0..50).map(|_| snowflake(&mut rng)).collect();
        let roles = std::iter::once(id).chain((1..50).map(|_| snowflake(&mut rng))).collect();
        Made { id, rng, users, channels, roles, next: 1_175_000_000_000_000_000 }
    }

    pub(crate) fn create(&mut self, own: u64) -> Vec<u8> {
        let mut out = String::with_capacity(200_000);
        let id = self.id;
        let name = self.name(2);
        let _ = write!(
            out,
            r#"{{"id":"{id}","name":"{name}","icon":"{}","description":null,"home_header":null,"splash":null,"discovery_splash":null,"features":["COMMUNITY","NEWS","ANIMATED_ICON","INVITE_SPLASH","SOUNDBOARD","AUTO_MODERATION"],"banner":null,"owner_id":"{}","application_id":null,"region":"europe","afk_channel_id":null,"afk_timeout":300,"system_channel_id":"{}","system_channel_flags":0,"widget_enabled":false,"widget_channel_id":null,"verification_level":2,"default_message_notifications":1,"mfa_level":0,"explicit_content_filter":2,"max_presences":null,"max_members":500000,"max_video_channel_users":25,"vanity_url_code":null,"premium_tier":2,"premium_subscription_count":9,"preferred_locale":"en-US","rules_channel_id":null,"safety_alerts_channel_id":null,"public_updates_channel_id":null,"hub_type":null,"premium_progress_bar_enabled":true,"latest_onboarding_question_id":null,"nsfw":false,"nsfw_level":0,"inventory_settings":null,"incidents_data":null,"joined_at":"{}","large":true,"unavailable":false,"member_count":{}"#,
            hash(&mut self.rng),
            self.users[0],
            self.channels[0],
            time(&mut self.rng),
            self.users.len() + 1
        );
        self.roles_and_emojis(&mut out);
        self.channel_list(&mut out);
        out.push_str(r#","members":["#);
        self.member(own, &mut out);
        for at in 0..self.users.len() {
            out.push(',');
            self.member(self.users[at], &mut out);
        }
        out.push_str(r#"],"presences":["#);
        for at in 0..self.users.len() * 3 / 10 {
            if at > 0 {
                out.push(',');
            }
            let (status, rest) = self.presence();
            let _ = write!(out, r#"{{"user":{{"id":"{}"}},"status":"{status}",{rest}}}"#, self.users[at]);
        }
        out.push_str(r#"],"voice_states":["#);
        for at in 0..6.min(self.users.len()) {
            if at > 0 {
                out.push(',');
            }
            let state = self.voice(self.users[at], true);
            let _ = write!(out, "{{{state}}}");
        }
        out.push_str(r#"],"stage_instances":[],"guild_scheduled_events":[],"soundboard_sounds":[]}"#);
        out.into_bytes()
    }

    fn roles_and_emojis(&mut self, out: &mut String) {
        out.push_str(r#","roles":["#);
        for at in 0..self.roles.len() {
            let comma = if at > 0 { "," } else { "" };
            let (name, color) = (self.name(2), self.rng.u32(0..0xff_ffff));
            let _ = write!(
                out,
                r#"{comma}{{"version":{},"unicode_emoji":null,"tags":{{}},"position":{at},"permissions":"{}","name":"{name}","mentionable":false,"managed":false,"id":"{}","icon":null,"hoist":{},"flags":0,"color":{color},"colors":{{"primary_color":{color},"secondary_color":null,"tertiary_color":null}}}}"#,
                self.rng.u64(1_600_000_000_000..1_700_000_000_000),
                self.rng.u64(0..1 << 50),
                self.roles[at],
                self.rng.bool()
            );
        }
        out.push_str(r#"],"stickers":[],"emojis":["#);
        for at in 0..20 {
            let comma = if at > 0 { "," } else { "" };
            let (name, id) = (self.name(1), snowflake(&mut self.rng));
            let _ = write!(
                out,
                r#"{comma}{{"version":0,"roles":[],"require_colons":true,"name":"{name}","managed":false,"id":"{id}","available":true,"animated":false}}"#
            );
        }
        out.push(']');
    }

    fn channel_list(&mut self, out: &mut String) {
        out.push_str(r#","threads":[],"channels":["#);
        for at in 0..self.channels.len() {
            if at > 0 {
                out.push(',');
            }
            let channel = self.channel(self.channels[at]);
            let _ = write!(out, "{{{channel}}}");
        }
        out.push(']');
    }

    fn channel(&mut self, id: u64) -> String {
        let mut overwrites = String::new();
        for at in 0..self.rng.usize(1..4) {
            let comma = if at > 0 { "," } else { "" };
            let role = self.roles[self.rng.usize(0..self.roles.len())];
            let _ = write!(
                overwrites,
                r#"{comma}{{"type":0,"id":"{role}","deny":"{}","allow":"{}"}}"#,
                self.rng.u64(0..1 << 12) << 10,
                self.rng.u64(0..1 << 12) << 10
            );
        }
        let topic = if self.rng.u8(0..3) == 0 { format!("\"{}\"", self.name(9)) } else { "null".to_owned() };
        let (parent, name) = (self.channels[0], self.name(2));
        format!(
            r#""version":{},"type":0,"topic":{topic},"rate_limit_per_user":0,"position":{},"permission_overwrites":[{overwrites}],"parent_id":"{}","nsfw":false,"name":"{}","last_pin_timestamp":"{}","last_message_id":"{}","id":"{id}","icon_emoji":{{"name":"👋","id":null}},"theme_color":null,"flags":0"#,
            self.rng.u64(1_600_000_000_000..1_700_000_000_000),
            self.rng.u8(0..50),
            parent,
            name,
            time(&mut self.rng),
            snowflake(&mut self.rng)
        )
    }

    fn member(&mut self, id: u64, out: &mut String) {
        let member = self.member_fields(id);
        let _ = write!(out, "{{{member}}}");
    }

    fn member_fields(&mut self, id: u64) -> String {
        let mut roles = String::new();
        for at in 0..self.rng.usize(0..6) {
            let comma = if at > 0 { "," } else { "" };
            let _ = write!(roles, "{comma}\"{}\"", self.roles[self.rng.usize(0..self.roles.len())]);
        }
        let avatar =
            if self.rng.u8(0..5) > 0 { format!("\"{}\"", hash(&mut self.rng)) } else { "null".to_owned() };
        let nick = if self.rng.u8(0..4) == 0 { format!("\"{}\"", self.name(2)) } else { "null".to_owned() };
        let global = if self.rng.u8(0..3) > 0 { format!("\"{}\"", self.name(1)) } else { "null".to_owned() };
        format!(
            r#""user":{{"username":"{}","public_flags":{},"primary_guild":null,"id":"{id}","global_name":{global},"display_name_styles":null,"display_name":{global},"discriminator":"0","collectibles":null,"clan":null,"bot":false,"avatar_decoration_data":null,"avatar":{avatar}}},"roles":[{roles}],"premium_since":null,"pending":false,"nick":{nick},"mute":false,"joined_at":"{}","flags":{},"deaf":false,"communication_disabled_until":null,"banner":null,"avatar":null"#,
            self.name(2).replace(' ', "_"),
            self.rng.u8(..),
            time(&mut self.rng),
            self.rng.u8(0..3)
        )
    }

    fn presence(&mut self) -> (&'static str, String) {
        let status = ["online", "idle", "dnd"][self.rng.usize(0..3)];
        let activities = match self.rng.u8(0..3) {
            0 => String::new(),
            1 => format!(
                r#"{{"type":4,"state":"{}","name":"Custom Status","id":"custom","created_at":{}}}"#,
                self.name(4),
                self.rng.u64(1_690_000_000_000..1_700_000_000_000)
            ),
            _ => format!(
                r#"{{"type":0,"timestamps":{{"start":{}}},"name":"{}","id":"{:x}","details":"{}","created_at":{},"application_id":"{}","assets":{{"large_text":"{}","large_image":"{}"}}}}"#,
                self.rng.u64(1_690_000_000_000..1_700_000_000_000),
                GAMES[self.rng.usize(0..GAMES.len())],
                self.rng.u64(..),
                self.name(3),
                self.rng.u64(1_690_000_000_000..1_700_000_000_000),
                356_875_570_916_753_438_u64 + self.rng.u64(0..8),
                self.name(2),
                hash(&mut self.rng)
            ),
        };
        let client = ["desktop", "mobile", "web"][self.rng.usize(0..3)];
        (status, format!(r#""client_status":{{"{client}":"{status}"}},"activities":[{activities}]"#))
    }

    fn voice(&mut self, user: u64, joined: bool) -> String {
        let channel = self.channels[self.rng.usize(0..self.channels.len())];
        let channel = if joined { format!("\"{channel}\"") } else { "null".to_owned() };
        format!(
            r#""user_id":"{user}","suppress":false,"session_id":"{}","self_video":false,"self_mute":{},"self_deaf":{},"request_to_speak_timestamp":null,"mute":false,"deaf":false,"channel_id":{channel}"#,
            hash(&mut self.rng),
            self.rng.bool(),
            self.rng.bool()
        )
    }

    /// Of a hundred: 50 presences, 30 messages, 10 members, 6 voice states, 4 others.
    pub(crate) fn change(&mut self) -> (EventKind, Vec<u8>) {
        let guild = self.id;
        let user = self.users[self.rng.usize(0..self.users.len())];
        self.next += self.rng.u64(1..1 << 30);
        let message = self.next;
        let (kind, d) = match self.rng.u8(0..100) {
            0..50 => {
                let (status, rest) = self.presence();
                let d = if self.rng.u8(0..10) < 7 {
                    format!(
                        r#"{{"user":{{"id":"{user}"}},"status":"offline","guild_id":"{guild}","client_status":{{}},"activities":[]}}"#
                    )
                } else {
                    format!(r#"{{"user":{{"id":"{user}"}},"status":"{status}","guild_id":"{guild}",{rest}}}"#)
                };
                (EventKind::PresenceUpdate, d)
            }
            50..80 => {
                let channel = self.channels[self.rng.usize(0..self.channels.len())];
                let d = format!(
                    r#"{{"id":"{message}","channel_id":"{channel}","guild_id":"{guild}","content":""}}"#
                );
                (EventKind::MessageCreate, d)
            }
            80..88 => {
                let d = format!(r#"{{{},"guild_id":"{guild}"}}"#, self.member_fields(user));
                (EventKind::GuildMemberUpdate, d)
            }
            88 => {
                let user = message;
                self.users.push(user);
                (
                    EventKind::GuildMemberAdd,
                    format!(r#"{{{},"guild_id":"{guild}"}}"#, self.member_fields(user)),
                )
            }
            89 if self.users.len() > 1 => {
                let at = self.rng.usize(1..self.users.len());
                let user = self.users.swap_remove(at);
                let d = format!(r#"{{"user":{{"id":"{user}","username":"gone"}},"guild_id":"{guild}"}}"#);
                (EventKind::GuildMemberRemove, d)
            }
            89..96 => {
                let joined = self.rng.u8(0..3) > 0;
                let (voice, member) = (self.voice(user, joined), self.member_fields(user));
                let d = format!(r#"{{{voice},"member":{{{member}}},"guild_id":"{guild}"}}"#);
                (EventKind::VoiceStateUpdate, d)
            }
            96..98 => {
                let channel = self.channels[self.rng.usize(0..self.channels.len())];
                (EventKind::ChannelUpdate, format!(r#"{{{},"guild_id":"{guild}"}}"#, self.channel(channel)))
            }
            _ => {
                let channel = self.channels[self.rng.usize(0..self.channels.len())];
                let time = time(&mut self.rng);
                let d = format!(
                    r#"{{"last_pin_timestamp":"{time}","channel_id":"{channel}","guild_id":"{guild}"}}"#
                );
                (EventKind::ChannelPinsUpdate, d)
            }
        };
        (kind, d.into_bytes())
    }

    fn name(&mut self, words: usize) -> String {
        let mut name = String::new();
        for at in 0..self.rng.usize(1..=words) {
            if at > 0 {
                name.push(' ');
            }
            name.push_str(WORDS[self.rng.usize(0..WORDS.len())]);
            if self.rng.u8(0..3) == 0 {
                let _ = write!(name, "{}", self.rng.u16(0..2000));
            }
        }
        name
    }
}

/// An id of 2016 to 2023.
fn snowflake(rng: &mut fastrand::Rng) -> u64 {
    (rng.u64(31_000_000_000..280_000_000_000) << 22) | rng.u64(0..1 << 22)
}

fn hash(rng: &mut fastrand::Rng) -> String {
    format!("{:016x}{:016x}", rng.u64(..), rng.u64(..))
}

fn time(rng: &mut fastrand::Rng) -> String {
    format!(
        "202{}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}+00:00",
        rng.u8(0..4),
        rng.u8(1..13),
        rng.u8(1..29),
        rng.u8(0..24),
        rng.u8(0..60),
        rng.u8(0..60),
        rng.u32(0..1_000_000)
    )
}
