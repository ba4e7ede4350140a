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
