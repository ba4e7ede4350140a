// SPDX-License-Identifier: AGPL-3.0-only
//! Gateway intents and the events that each of them brings ("Gateway", section "List of Intents").
//! In: names or a number from settings or IDENTIFY, and an event's kind. Out: whether it is delivered.

use std::fmt;
use std::ops::{BitAnd, BitOr};

use crate::EventKind;

/// A set of intents, bit for bit as in IDENTIFY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Intents(pub u64);

/// A name that is no intent's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown intent {0:?}")]
pub struct UnknownIntent(pub String);

macro_rules! intents {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Intents {
            $($(#[$doc])* pub const $name: Intents = Intents(1 << $bit);)*
            /// Every documented intent, the privileged ones included.
            pub const ALL: Intents = Intents($(1 << $bit)|*);
        }

        const NAMES: &[(&str, Intents)] = &[$((stringify!($name), Intents::$name),)*];
    };
}

intents! {
    /// Guilds, roles, channels, threads, stage instances.
    GUILDS = 0;
    /// Members joining, changing, leaving. Privileged.
    GUILD_MEMBERS = 1;
    /// Bans and the audit log.
    GUILD_MODERATION = 2;
    /// Emojis, stickers, soundboard sounds.
    GUILD_EXPRESSIONS = 3;
    /// Integrations.
    GUILD_INTEGRATIONS = 4;
    /// Webhooks.
    GUILD_WEBHOOKS = 5;
    /// Invites.
    GUILD_INVITES = 6;
    /// Voice states and effects in voice channels.
    GUILD_VOICE_STATES = 7;
    /// Presences. Privileged.
    GUILD_PRESENCES = 8;
    /// Messages in guilds.
    GUILD_MESSAGES = 9;
    /// Reactions in guilds.
    GUILD_MESSAGE_REACTIONS = 10;
    /// Typing in guilds.
    GUILD_MESSAGE_TYPING = 11;
    /// Messages in direct messages, and their pins.
    DIRECT_MESSAGES = 12;
    /// Reactions in direct messages.
    DIRECT_MESSAGE_REACTIONS = 13;
    /// Typing in direct messages.
    DIRECT_MESSAGE_TYPING = 14;
    /// No events of its own: fills the content fields of messages. Privileged.
    MESSAGE_CONTENT = 15;
    /// Scheduled events and who is interested.
    GUILD_SCHEDULED_EVENTS = 16;
    /// Rules of auto moderation.
    AUTO_MODERATION_CONFIGURATION = 20;
    /// Actions of auto moderation.
    AUTO_MODERATION_EXECUTION = 21;
    /// Votes in polls in guilds.
    GUILD_MESSAGE_POLLS = 24;
    /// Votes in polls in direct messages.
    DIRECT_MESSAGE_POLLS = 25;
}

impl Intents {
    /// No intent.
    pub const NONE: Intents = Intents(0);
    /// The intents that must be enabled in the Developer Portal ("Privileged Intents").
    pub const PRIVILEGED: Intents = Intents(1 << 1 | 1 << 8 | 1 << 15);

    /// The set of the named intents. Case and `-` for `_` don't matter.
    ///
    /// # Errors
    /// The first name that is no intent's.
    pub fn from_names<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Intents, UnknownIntent> {
        let mut set = Intents::NONE;
        for name in names {
            let wanted = name.as_ref().trim().replace('-', "_");
            let found = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(&wanted));
            let (_, bit) = found.ok_or_else(|| UnknownIntent(name.as_ref().to_owned()))?;
            set = set | *bit;
        }
        Ok(set)
    }

    /// The names of the documented intents in this set, by rising bit.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        NAMES.iter().filter(|(_, bit)| self.intersects(*bit)).map(|(name, _)| *name).collect()
    }

    /// Every documented name, by rising bit.
    pub fn all_names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// The number as in IDENTIFY.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether no intent is held.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are held.
    #[must_use]
    pub fn contains(self, other: Intents) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is held.
    #[must_use]
    pub fn intersects(self, other: Intents) -> bool {
        self.0 & other.0 != 0
    }

    /// What is held here and not in `other`, undocumented bits included.
    #[must_use]
    pub fn without(self, other: Intents) -> Intents {
        Intents(self.0 & !other.0)
    }

    /// Whether an event reaches a connection that identified with these intents; see [`Intents::needs`].
    #[must_use]
    pub fn admits(self, kind: EventKind, in_guild: bool) -> bool {
        let needed = Self::needs(kind, in_guild);
        needed.is_empty() || self.intersects(needed)
    }

    /// The intents of which any one brings this event; none for an event that always comes.
    ///
    /// `in_guild`: whether the event carries a guild. Two things depend on more than that, and are the caller's:
    /// GUILD_MEMBER_UPDATE of the bot's own user comes without GUILD_MEMBERS too, and THREAD_MEMBERS_UPDATE
    /// comes with GUILDS alone only for the bot's own joining and leaving ("Caveats").
    #[must_use]
    pub fn needs(kind: EventKind, in_guild: bool) -> Intents {
        use EventKind as E;
        match kind {
            E::MessageCreate | E::MessageUpdate | E::MessageDelete => Self::place(in_guild, 9, 12),
            E::MessageReactionAdd
            | E::MessageReactionRemove
            | E::MessageReactionRemoveAll
            | E::MessageReactionRemoveEmoji => Self::place(in_guild, 10, 13),
            E::TypingStart => Self::place(in_guild, 11, 14),
            E::MessagePollVoteAdd | E::MessagePollVoteRemove => Self::place(in_guild, 24, 25),
            E::ChannelPinsUpdate => Self::place(in_guild, 0, 12),
            kind => Self::of_guild(kind),
        }
    }

    /// The bit for an event that has one intent in guilds and another in direct messages.
    fn place(in_guild: bool, guild: u32, direct: u32) -> Intents {
        Intents(1 << if in_guild { guild } else { direct })
    }

    fn of_guild(kind: EventKind) -> Intents {
        use EventKind as E;
        match kind {
            E::GuildCreate | E::GuildUpdate | E::GuildDelete => Self::GUILDS,
            E::GuildRoleCreate | E::GuildRoleUpdate | E::GuildRoleDelete => Self::GUILDS,
            E::ChannelCreate | E::ChannelUpdate | E::ChannelDelete => Self::GUILDS,
            E::ThreadCreate | E::ThreadUpdate | E::ThreadDelete => Self::GUILDS,
            E::ThreadListSync | E::ThreadMemberUpdate => Self::GUILDS,
            E::ThreadMembersUpdate => Self::GUILDS | Self::GUILD_MEMBERS,
            E::StageInstanceCreate | E::StageInstanceUpdate | E::StageInstanceDelete => Self::GUILDS,
            E::VoiceChannelStatusUpdate | E::VoiceChannelStartTimeUpdate => Self::GUILDS,
            E::GuildMemberAdd | E::GuildMemberUpdate | E::GuildMemberRemove => Self::GUILD_MEMBERS,
            E::GuildAuditLogEntryCreate | E::GuildBanAdd | E::GuildBanRemove => Self::GUILD_MODERATION,
            E::GuildEmojisUpdate | E::GuildStickersUpdate => Self::GUILD_EXPRESSIONS,
            E::GuildSoundboardSoundCreate
            | E::GuildSoundboardSoundUpdate
            | E::GuildSoundboardSoundDelete
            | E::GuildSoundboardSoundsUpdate => Self::GUILD_EXPRESSIONS,
            E::GuildIntegrationsUpdate => Self::GUILD_INTEGRATIONS,
            E::IntegrationCreate | E::IntegrationUpdate | E::IntegrationDelete => Self::GUILD_INTEGRATIONS,
            E::WebhooksUpdate => Self::GUILD_WEBHOOKS,
            E::InviteCreate | E::InviteDelete => Self::GUILD_INVITES,
            E::VoiceStateUpdate | E::VoiceChannelEffectSend => Self::GUILD_VOICE_STATES,
            E::PresenceUpdate => Self::GUILD_PRESENCES,
            E::MessageDeleteBulk => Self::GUILD_MESSAGES,
            E::GuildScheduledEventCreate
            | E::GuildScheduledEventUpdate
            | E::GuildScheduledEventDelete
            | E::GuildScheduledEventUserAdd
            | E::GuildScheduledEventUserRemove => Self::GUILD_SCHEDULED_EVENTS,
            E::AutoModerationRuleCreate | E::AutoModerationRuleUpdate | E::AutoModerationRuleDelete => {
                Self::AUTO_MODERATION_CONFIGURATION
            }
            E::AutoModerationActionExecution => Self::AUTO_MODERATION_EXECUTION,
            _ => Self::NONE,
        }
    }
}

impl BitOr for Intents {
    type Output = Intents;

    fn bitor(self, other: Intents) -> Intents {
        Intents(self.0 | other.0)
    }
}

impl BitAnd for Intents {
    type Output = Intents;

    fn bitand(self, other: Intents) -> Intents {
        Intents(self.0 & other.0)
    }
}

impl fmt::Display for Intents {
    /// The names, separated by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::Intents;
    use crate::EventKind as E;

    #[test]
    fn the_table_is_the_documented_one() {
        for (event, place, documented) in documented() {
            let in_guild = place == "guild";
            let mut bits = Intents::needs(event, in_guild).names();
            bits.sort_unstable();
            assert_eq!(bits, documented, "{} in {place}", event.name());
        }
    }

    #[test]
    fn what_no_intent_lists_always_comes() {
        let always = [
            E::Ready,
            E::Resumed,
            E::RateLimited,
            E::InteractionCreate,
            E::UserUpdate,
            E::VoiceServerUpdate,
            E::GuildMembersChunk,
            E::SoundboardSounds,
            E::ChannelInfo,
            E::ApplicationCommandPermissionsUpdate,
            E::EntitlementCreate,
            E::EntitlementUpdate,
            E::EntitlementDelete,
            E::SubscriptionCreate,
            E::SubscriptionUpdate,
            E::SubscriptionDelete,
        ];
        for kind in E::ALL {
            for in_guild in [true, false] {
                let free = Intents::needs(*kind, in_guild).is_empty();
                assert_eq!(free, always.contains(kind), "{}", kind.name());
                assert_eq!(Intents::NONE.admits(*kind, in_guild), free);
            }
        }
        assert!(Intents::NONE.admits(E::Unknown, true));
    }

    #[test]
    fn a_message_in_a_guild_and_one_in_private_need_different_intents() {
        assert!(Intents::GUILD_MESSAGES.admits(E::MessageCreate, true));
        assert!(!Intents::GUILD_MESSAGES.admits(E::MessageCreate, false));
        assert!(Intents::DIRECT_MESSAGES.admits(E::MessageCreate, false));
        assert!(!Intents::DIRECT_MESSAGES.admits(E::MessageCreate, true));
    }

    #[test]
    fn either_of_two_intents_brings_the_members_of_a_thread() {
        assert!(Intents::GUILDS.admits(E::ThreadMembersUpdate, true));
        assert!(Intents::GUILD_MEMBERS.admits(E::ThreadMembersUpdate, true));
        assert!(!Intents::GUILD_MESSAGES.admits(E::ThreadMembersUpdate, true));
    }

    #[test]
    fn names_go_both_ways() {
        let set = Intents::from_names(["guilds", " GUILD-MEMBERS", "Direct_Message_Polls"]).unwrap();
        assert_eq!(set, Intents(1 | 1 << 1 | 1 << 25));
        assert_eq!(set.to_string(), "GUILDS, GUILD_MEMBERS, DIRECT_MESSAGE_POLLS");
        assert_eq!(Intents::from_names(Intents::ALL.names()).unwrap(), Intents::ALL);
        let error = Intents::from_names(["GUILDS", "GUILD"]).unwrap_err();
        assert_eq!(error.to_string(), "unknown intent \"GUILD\"");
        assert_eq!(Intents(1 << 40 | 1).names(), ["GUILDS"]);
    }

    #[test]
    fn all_and_privileged_are_what_the_documentation_lists() {
        let gaps: u64 = 0b111 << 17 | 0b11 << 22;
        assert_eq!(Intents::ALL.bits(), (1 << 26) - 1 - gaps);
        assert_eq!(Intents::PRIVILEGED.names(), ["GUILD_MEMBERS", "GUILD_PRESENCES", "MESSAGE_CONTENT"]);
        assert_eq!(Intents::ALL.without(Intents::PRIVILEGED).bits() & Intents::PRIVILEGED.bits(), 0);
    }

    /// The list of section "List of Intents": intent by intent, turned into event by event.
    fn documented() -> Vec<(E, &'static str, Vec<&'static str>)> {
        let mut table: Vec<(E, &str, Vec<&str>)> = Vec::new();
        let mut intent = "";
        for line in LIST.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let Some(event) = line.strip_prefix("- ") else {
                intent = line;
                continue;
            };
            let kind = E::from_name(event);
            assert_ne!(kind, E::Unknown, "{event}");
            let place = if intent.starts_with("DIRECT_") { "private" } else { "guild" };
            match table.iter_mut().find(|(known, at, _)| *known == kind && *at == place) {
                Some((_, _, intents)) => intents.push(intent),
                None => table.push((kind, place, vec![intent])),
            }
        }
        table
    }

    const LIST: &str = "
        GUILDS
          - GUILD_CREATE
          - GUILD_UPDATE
          - GUILD_DELETE
          - GUILD_ROLE_CREATE
          - GUILD_ROLE_UPDATE
          - GUILD_ROLE_DELETE
          - CHANNEL_CREATE
          - CHANNEL_UPDATE
          - CHANNEL_DELETE
          - CHANNEL_PINS_UPDATE
          - THREAD_CREATE
          - THREAD_UPDATE
          - THREAD_DELETE
          - THREAD_LIST_SYNC
          - THREAD_MEMBER_UPDATE
          - THREAD_MEMBERS_UPDATE
          - STAGE_INSTANCE_CREATE
          - STAGE_INSTANCE_UPDATE
          - STAGE_INSTANCE_DELETE
          - VOICE_CHANNEL_STATUS_UPDATE
          - VOICE_CHANNEL_START_TIME_UPDATE
        GUILD_MEMBERS
          - GUILD_MEMBER_ADD
          - GUILD_MEMBER_UPDATE
          - GUILD_MEMBER_REMOVE
          - THREAD_MEMBERS_UPDATE
        GUILD_MODERATION
          - GUILD_AUDIT_LOG_ENTRY_CREATE
          - GUILD_BAN_ADD
          - GUILD_BAN_REMOVE
        GUILD_EXPRESSIONS
          - GUILD_EMOJIS_UPDATE
          - GUILD_STICKERS_UPDATE
          - GUILD_SOUNDBOARD_SOUND_CREATE
          - GUILD_SOUNDBOARD_SOUND_UPDATE
          - GUILD_SOUNDBOARD_SOUND_DELETE
          - GUILD_SOUNDBOARD_SOUNDS_UPDATE
        GUILD_INTEGRATIONS
          - GUILD_INTEGRATIONS_UPDATE
          - INTEGRATION_CREATE
          - INTEGRATION_UPDATE
          - INTEGRATION_DELETE
        GUILD_WEBHOOKS
          - WEBHOOKS_UPDATE
        GUILD_INVITES
          - INVITE_CREATE
          - INVITE_DELETE
        GUILD_VOICE_STATES
          - VOICE_CHANNEL_EFFECT_SEND
          - VOICE_STATE_UPDATE
        GUILD_PRESENCES
          - PRESENCE_UPDATE
        GUILD_MESSAGES
          - MESSAGE_CREATE
          - MESSAGE_UPDATE
          - MESSAGE_DELETE
          - MESSAGE_DELETE_BULK
        GUILD_MESSAGE_REACTIONS
          - MESSAGE_REACTION_ADD
          - MESSAGE_REACTION_REMOVE
          - MESSAGE_REACTION_REMOVE_ALL
          - MESSAGE_REACTION_REMOVE_EMOJI
        GUILD_MESSAGE_TYPING
          - TYPING_START
        DIRECT_MESSAGES
          - MESSAGE_CREATE
          - MESSAGE_UPDATE
          - MESSAGE_DELETE
          - CHANNEL_PINS_UPDATE
        DIRECT_MESSAGE_REACTIONS
          - MESSAGE_REACTION_ADD
          - MESSAGE_REACTION_REMOVE
          - MESSAGE_REACTION_REMOVE_ALL
          - MESSAGE_REACTION_REMOVE_EMOJI
        DIRECT_MESSAGE_TYPING
          - TYPING_START
        GUILD_SCHEDULED_EVENTS
          - GUILD_SCHEDULED_EVENT_CREATE
          - GUILD_SCHEDULED_EVENT_UPDATE
          - GUILD_SCHEDULED_EVENT_DELETE
          - GUILD_SCHEDULED_EVENT_USER_ADD
          - GUILD_SCHEDULED_EVENT_USER_REMOVE
        AUTO_MODERATION_CONFIGURATION
          - AUTO_MODERATION_RULE_CREATE
          - AUTO_MODERATION_RULE_UPDATE
          - AUTO_MODERATION_RULE_DELETE
        AUTO_MODERATION_EXECUTION
          - AUTO_MODERATION_ACTION_EXECUTION
        GUILD_MESSAGE_POLLS
          - MESSAGE_POLL_VOTE_ADD
          - MESSAGE_POLL_VOTE_REMOVE
        DIRECT_MESSAGE_POLLS
          - MESSAGE_POLL_VOTE_ADD
          - MESSAGE_POLL_VOTE_REMOVE
    ";
}
