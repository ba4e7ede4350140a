// SPDX-License-Identifier: AGPL-3.0-only
//! The lists of GUILD_CREATE that are kept per entity ("Guild Create Extra Fields" and the guild object).
//! In: nothing. Out: for each list its name, where an entity's id stands, which fields of an event do not
//! belong in it, and which fields an update may leave out. Everything else is a field of the guild itself.

use crate::Options;

/// One list of a guild.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Section {
    Roles,
    Emojis,
    Stickers,
    Channels,
    Threads,
    StageInstances,
    ScheduledEvents,
    Sounds,
    VoiceStates,
    Members,
    Presences,
}

use Section::{
    Channels, Emojis, Members, Presences, Roles, ScheduledEvents, Sounds, StageInstances, Stickers, Threads,
    VoiceStates,
};

/// How a list's entity names its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdAt {
    Id,
    SoundId,
    UserId,
    /// `user.id`
    User,
}

/// What an update of an entity leaves as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carry {
    /// All fields that the update doesn't have.
    All,
    /// These fields, if the update doesn't have them.
    Fields(&'static [&'static str]),
}

/// A part of the base that is compressed, and compacted, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Block {
    /// The guild's own fields and what seldom changes.
    Guild,
    /// Members and voice states.
    Members,
    /// Presences: most of all changes, and never part of a checkpoint.
    Presences,
}

/// How many blocks there are.
pub(crate) const BLOCKS: usize = 3;

impl Block {
    pub(crate) const ALL: [Block; BLOCKS] = [Block::Guild, Block::Members, Block::Presences];

    /// The lists in this block, in their stored order.
    pub(crate) fn sections(self) -> &'static [Section] {
        match self {
            Block::Guild => {
                &[Roles, Emojis, Stickers, Channels, Threads, StageInstances, ScheduledEvents, Sounds]
            }
            Block::Members => &[VoiceStates, Members],
            Block::Presences => &[Presences],
        }
    }
}

impl Section {
    pub(crate) const ALL: [Section; 11] = [
        Roles,
        Emojis,
        Stickers,
        Channels,
        Threads,
        StageInstances,
        ScheduledEvents,
        Sounds,
        VoiceStates,
        Members,
        Presences,
    ];

    /// The key in GUILD_CREATE.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Roles => "roles",
            Emojis => "emojis",
            Stickers => "stickers",
            Channels => "channels",
            Threads => "threads",
            StageInstances => "stage_instances",
            ScheduledEvents => "guild_scheduled_events",
            Sounds => "soundboard_sounds",
            VoiceStates => "voice_states",
            Members => "members",
            Presences => "presences",
        }
    }

    pub(crate) fn block(self) -> Block {
        match self {
            VoiceStates | Members => Block::Members,
            Presences => Block::Presences,
            _ => Block::Guild,
        }
    }

    pub(crate) fn id_at(self) -> IdAt {
        match self {
            Members | Presences => IdAt::User,
            VoiceStates => IdAt::UserId,
            Sounds => IdAt::SoundId,
            _ => IdAt::Id,
        }
    }

    /// Fields that events add and GUILD_CREATE doesn't have.
    pub(crate) fn event_only(self) -> &'static [&'static str] {
        match self {
            Channels | Members | Presences => &["guild_id"],
            VoiceStates => &["guild_id", "member"],
            Threads => &["newly_created"],
            _ => &[],
        }
    }

    pub(crate) fn carry(self) -> Carry {
        match self {
            Members | Presences => Carry::All,
            Channels => {
                Carry::Fields(&["last_message_id", "last_pin_timestamp", "status", "voice_start_time"])
            }
            Threads => Carry::Fields(&[
                "last_message_id",
                "last_pin_timestamp",
                "message_count",
                "total_message_sent",
                "member_count",
                "member",
            ]),
            ScheduledEvents => Carry::Fields(&["user_count"]),
            _ => Carry::Fields(&[]),
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The set of lists that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept(u16);

impl Kept {
    pub(crate) fn new(options: &Options) -> Kept {
        let flags = [
            (Roles, options.roles),
            (Emojis, options.emojis),
            (Stickers, options.stickers),
            (Channels, options.channels),
            (Threads, options.threads),
            (StageInstances, options.stage_instances),
            (ScheduledEvents, options.scheduled_events),
            (Sounds, options.soundboard_sounds),
            (VoiceStates, options.voice_states),
            (Members, options.members),
            (Presences, options.presences),
        ];
        Kept(flags.iter().filter(|(_, kept)| *kept).fold(0, |bits, (section, _)| bits | section.bit()))
    }

    pub(crate) fn has(self, section: Section) -> bool {
        self.0 & section.bit() != 0
    }

    /// The set as a number, for checkpoints: a list's bit is its place in `Section`.
    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn from_bits(bits: u16) -> Kept {
        Kept(bits)
    }

    /// Whether all of `other`, presences aside, are in this set.
    pub(crate) fn covers(self, other: Kept) -> bool {
        other.0 & !Presences.bit() & !self.0 == 0
    }
}
