// SPDX-License-Identifier: AGPL-3.0-only
//! What is kept of a guild, and how tightly. In: settings. Out: a value for `Guilds::new`.

/// What is kept of a guild. What isn't appears as an empty list; the own member is always kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `channels`
    pub channels: bool,
    /// `roles`
    pub roles: bool,
    /// `emojis`
    pub emojis: bool,
    /// `stickers`
    pub stickers: bool,
    /// `members`; without them the own member is still there, and `member_count` still right.
    pub members: bool,
    /// `presences`
    pub presences: bool,
    /// `voice_states`
    pub voice_states: bool,
    /// `threads`
    pub threads: bool,
    /// `stage_instances`
    pub stage_instances: bool,
    /// `guild_scheduled_events`
    pub scheduled_events: bool,
    /// `soundboard_sounds`
    pub soundboard_sounds: bool,
    /// Changes of a part of a guild (its fields and channels; its members; its presences) are compacted into that
    /// part when they take more bytes than this, and more than `compact_percent` of the part's compressed size.
    pub compact_min_bytes: u32,
    /// See `compact_min_bytes`. More saves CPU, less saves memory.
    pub compact_percent: u32,
    /// zstd's level for the parts. Level 1 takes about 2 µs per KiB.
    pub level: i32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            channels: true,
            roles: true,
            emojis: true,
            stickers: true,
            members: true,
            presences: true,
            voice_states: true,
            threads: true,
            stage_instances: true,
            scheduled_events: true,
            soundboard_sounds: true,
            compact_min_bytes: 1024,
            compact_percent: 12,
            level: 1,
        }
    }
}
