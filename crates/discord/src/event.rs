// SPDX-License-Identifier: AGPL-3.0-only
//! The dispatch events that Discord documents ("Gateway Events", section "Receive Events").
//! In: the name in `t`. Out: a one-byte kind, and the name back.
//! An event that isn't listed here is `Unknown` and travels under its own name.

macro_rules! events {
    ($($kind:ident = $number:literal $name:literal,)*) => {
        /// A dispatch event's kind. The numbers are stored on disk: they are only ever added to, never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum EventKind {
            /// Not documented when this was written, or no dispatch at all.
            Unknown = 0,
            $(#[doc = concat!("`", $name, "`")] $kind = $number,)*
        }

        impl EventKind {
            /// Every documented kind in the order of its number; the one with number `n` stands at `n - 1`.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$kind,)*];

            /// Discord's name of the event, and `""` for [`EventKind::Unknown`].
            #[must_use]
            pub fn name(self) -> &'static str {
                NAMES[self as usize]
            }
        }

        const NAMES: &[&str] = &["", $($name,)*];
    };
}

events! {
    Ready = 1 "READY",
    Resumed = 2 "RESUMED",
    RateLimited = 3 "RATE_LIMITED",
    ApplicationCommandPermissionsUpdate = 4 "APPLICATION_COMMAND_PERMISSIONS_UPDATE",
    AutoModerationRuleCreate = 5 "AUTO_MODERATION_RULE_CREATE",
    AutoModerationRuleUpdate = 6 "AUTO_MODERATION_RULE_UPDATE",
    AutoModerationRuleDelete = 7 "AUTO_MODERATION_RULE_DELETE",
    AutoModerationActionExecution = 8 "AUTO_MODERATION_ACTION_EXECUTION",
    ChannelCreate = 9 "CHANNEL_CREATE",
    ChannelUpdate = 10 "CHANNEL_UPDATE",
    ChannelDelete = 11 "CHANNEL_DELETE",
    ChannelInfo = 12 "CHANNEL_INFO",
    ChannelPinsUpdate = 13 "CHANNEL_PINS_UPDATE",
    ThreadCreate = 14 "THREAD_CREATE",
    ThreadUpdate = 15 "THREAD_UPDATE",
    ThreadDelete = 16 "THREAD_DELETE",
    ThreadListSync = 17 "THREAD_LIST_SYNC",
    ThreadMemberUpdate = 18 "THREAD_MEMBER_UPDATE",
    ThreadMembersUpdate = 19 "THREAD_MEMBERS_UPDATE",
    EntitlementCreate = 20 "ENTITLEMENT_CREATE",
    EntitlementUpdate = 21 "ENTITLEMENT_UPDATE",
    EntitlementDelete = 22 "ENTITLEMENT_DELETE",
    GuildCreate = 23 "GUILD_CREATE",
    GuildUpdate = 24 "GUILD_UPDATE",
    GuildDelete = 25 "GUILD_DELETE",
    GuildAuditLogEntryCreate = 26 "GUILD_AUDIT_LOG_ENTRY_CREATE",
    GuildBanAdd = 27 "GUILD_BAN_ADD",
    GuildBanRemove = 28 "GUILD_BAN_REMOVE",
    GuildEmojisUpdate = 29 "GUILD_EMOJIS_UPDATE",
    GuildStickersUpdate = 30 "GUILD_STICKERS_UPDATE",
    GuildIntegrationsUpdate = 31 "GUILD_INTEGRATIONS_UPDATE",
    GuildMemberAdd = 32 "GUILD_MEMBER_ADD",
    GuildMemberRemove = 33 "GUILD_MEMBER_REMOVE",
    GuildMemberUpdate = 34 "GUILD_MEMBER_UPDATE",
    GuildMembersChunk = 35 "GUILD_MEMBERS_CHUNK",
    GuildRoleCreate = 36 "GUILD_ROLE_CREATE",
    GuildRoleUpdate = 37 "GUILD_ROLE_UPDATE",
    GuildRoleDelete = 38 "GUILD_ROLE_DELETE",
    GuildScheduledEventCreate = 39 "GUILD_SCHEDULED_EVENT_CREATE",
    GuildScheduledEventUpdate = 40 "GUILD_SCHEDULED_EVENT_UPDATE",
    GuildScheduledEventDelete = 41 "GUILD_SCHEDULED_EVENT_DELETE",
    GuildScheduledEventUserAdd = 42 "GUILD_SCHEDULED_EVENT_USER_ADD",
    GuildScheduledEventUserRemove = 43 "GUILD_SCHEDULED_EVENT_USER_REMOVE",
    GuildSoundboardSoundCreate = 44 "GUILD_SOUNDBOARD_SOUND_CREATE",
    GuildSoundboardSoundUpdate = 45 "GUILD_SOUNDBOARD_SOUND_UPDATE",
    GuildSoundboardSoundDelete = 46 "GUILD_SOUNDBOARD_SOUND_DELETE",
    GuildSoundboardSoundsUpdate = 47 "GUILD_SOUNDBOARD_SOUNDS_UPDATE",
    SoundboardSounds = 48 "SOUNDBOARD_SOUNDS",
    IntegrationCreate = 49 "INTEGRATION_CREATE",
    IntegrationUpdate = 50 "INTEGRATION_UPDATE",
    IntegrationDelete = 51 "INTEGRATION_DELETE",
    InteractionCreate = 52 "INTERACTION_CREATE",
    InviteCreate = 53 "INVITE_CREATE",
    InviteDelete = 54 "INVITE_DELETE",
    MessageCreate = 55 "MESSAGE_CREATE",
    MessageUpdate = 56 "MESSAGE_UPDATE",
    MessageDelete = 57 "MESSAGE_DELETE",
    MessageDeleteBulk = 58 "MESSAGE_DELETE_BULK",
    MessageReactionAdd = 59 "MESSAGE_REACTION_ADD",
    MessageReactionRemove = 60 "MESSAGE_REACTION_REMOVE",
    MessageReactionRemoveAll = 61 "MESSAGE_REACTION_REMOVE_ALL",
    MessageReactionRemoveEmoji = 62 "MESSAGE_REACTION_REMOVE_EMOJI",
    PresenceUpdate = 63 "PRESENCE_UPDATE",
    StageInstanceCreate = 64 "STAGE_INSTANCE_CREATE",
    StageInstanceUpdate = 65 "STAGE_INSTANCE_UPDATE",
    StageInstanceDelete = 66 "STAGE_INSTANCE_DELETE",
    SubscriptionCreate = 67 "SUBSCRIPTION_CREATE",
    SubscriptionUpdate = 68 "SUBSCRIPTION_UPDATE",
    SubscriptionDelete = 69 "SUBSCRIPTION_DELETE",
    TypingStart = 70 "TYPING_START",
    UserUpdate = 71 "USER_UPDATE",
    VoiceChannelEffectSend = 72 "VOICE_CHANNEL_EFFECT_SEND",
    VoiceChannelStartTimeUpdate = 73 "VOICE_CHANNEL_START_TIME_UPDATE",
    VoiceChannelStatusUpdate = 74 "VOICE_CHANNEL_STATUS_UPDATE",
    VoiceStateUpdate = 75 "VOICE_STATE_UPDATE",
    VoiceServerUpdate = 76 "VOICE_SERVER_UPDATE",
    WebhooksUpdate = 77 "WEBHOOKS_UPDATE",
    MessagePollVoteAdd = 78 "MESSAGE_POLL_VOTE_ADD",
    MessagePollVoteRemove = 79 "MESSAGE_POLL_VOTE_REMOVE",
}

impl EventKind {
    /// The kind with this name; names are case-sensitive.
    #[must_use]
    pub fn from_name(name: &str) -> EventKind {
        let mut at = slot(name.as_bytes());
        while INDEX[at] != 0 {
            let number = INDEX[at];
            if NAMES[usize::from(number)] == name {
                return Self::from_u8(number);
            }
            at = (at + 1) % INDEX.len();
        }
        EventKind::Unknown
    }

    /// The kind with this number; [`EventKind::Unknown`] for a number not yet given.
    #[must_use]
    pub fn from_u8(number: u8) -> EventKind {
        match usize::from(number).checked_sub(1) {
            Some(at) => Self::ALL.get(at).copied().unwrap_or(EventKind::Unknown),
            None => EventKind::Unknown,
        }
    }
}

/// Numbers by hash of their name, open addressing; 0 is free. A lookup happens for each event, and comparing
/// with all names in turn would be a good part of what scanning the whole header costs.
static INDEX: [u8; 512] = index();

const fn index() -> [u8; 512] {
    let mut index = [0; 512];
    let mut number = 1;
    while number < NAMES.len() {
        let mut at = slot(NAMES[number].as_bytes());
        while index[at] != 0 {
            at = (at + 1) % index.len();
        }
        index[at] = number as u8;
        number += 1;
    }
    index
}

/// Where the search for a name starts: five of its bytes and its length tell most names apart.
const fn slot(name: &[u8]) -> usize {
    let n = name.len();
    if n == 0 {
        return 0;
    }
    // The factors were searched for: with them 9 of the names above are not found at once.
    let hash = 45 * n
        + 33 * name[0] as usize
        + 57 * name[n / 4] as usize
        + 51 * name[n / 2] as usize
        + 5 * name[n - 1 - n / 4] as usize
        + 52 * name[n - 1] as usize;
    hash % 512
}

#[cfg(test)]
mod tests {
    use super::{EventKind, INDEX, NAMES};

    #[test]
    fn every_kind_is_found_by_its_name_and_by_its_number() {
        assert_eq!(EventKind::ALL.len() + 1, NAMES.len());
        for (at, kind) in EventKind::ALL.iter().enumerate() {
            assert_eq!(EventKind::from_name(kind.name()), *kind);
            assert_eq!(EventKind::from_u8(*kind as u8), *kind);
            assert_eq!(usize::from(*kind as u8), at + 1);
        }
    }

    #[test]
    fn what_is_not_documented_is_unknown() {
        for name in [
            "",
            "R",
            "ready",
            "READY ",
            "MESSAGE_CREATEX",
            "MESSAGE",
            "GUILD_JOIN_REQUEST_CREATE",
            "\u{1F980}",
        ] {
            assert_eq!(EventKind::from_name(name), EventKind::Unknown, "{name}");
        }
        for number in [0, 80, 255] {
            assert_eq!(EventKind::from_u8(number), EventKind::Unknown);
        }
        assert_eq!(EventKind::Unknown.name(), "");
    }

    #[test]
    fn numbers_that_are_on_disk_stay() {
        assert_eq!(EventKind::Ready as u8, 1);
        assert_eq!(EventKind::GuildCreate as u8, 23);
        assert_eq!(EventKind::MessageCreate as u8, 55);
        assert_eq!(EventKind::MessagePollVoteRemove as u8, 79);
    }

    #[test]
    fn names_are_found_in_a_few_steps() {
        let longest = INDEX.split(|number| *number == 0).map(<[u8]>::len).max().unwrap_or_default();
        assert!(longest <= 6, "a run of {longest} occupied slots");
    }
}
