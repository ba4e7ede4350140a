// SPDX-License-Identifier: AGPL-3.0-only
//! Signatures only: replaced within the hour by the implementation.
#![allow(missing_docs, unused_variables, dead_code, clippy::allow_attributes, clippy::allow_attributes_without_reason)]
use holdfast_discord::EventKind;
use std::ops::Range;

/// What is kept, and when changes are compacted.
#[derive(Clone, Debug)]
pub struct Options {
    pub channels: bool, pub roles: bool, pub emojis: bool, pub stickers: bool, pub members: bool,
    pub presences: bool, pub voice_states: bool, pub threads: bool, pub stage_instances: bool,
    pub scheduled_events: bool, pub soundboard_sounds: bool,
    /// Bytes of changes of a part of a guild below which it is never compacted.
    pub compact_min_bytes: u32,
    /// Percent of the part's compacted size that changes may reach.
    pub compact_percent: u32,
    /// zstd level.
    pub level: i32,
}
impl Default for Options {
    fn default() -> Self {
        Self { channels: true, roles: true, emojis: true, stickers: true, members: true, presences: true, voice_states: true,
            threads: true, stage_instances: true, scheduled_events: true, soundboard_sounds: true,
            compact_min_bytes: 2048, compact_percent: 25, level: 1 }
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied { /// The guild is different now.
    Changed, /// Nothing that is kept changed.
    Unchanged, /// At or below the guild's position.
    Skipped, /// No such guild.
    UnknownGuild, /// Not what the documentation says; counted.
    Malformed, /// The guild is gone (left).
    Removed }
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory { pub guilds: usize, pub unavailable: usize, pub members: u64, pub base_bytes: usize, pub change_bytes: usize,
    pub changes: usize, pub overhead_bytes: usize, pub malformed: u64, pub skipped: u64 }
#[derive(Clone, Debug)]
pub struct View { pub presences: bool, pub members: bool, pub voice_states: bool, pub scheduled_events: bool,
    pub large_threshold: u32, pub own_user: u64 }
#[derive(Debug, thiserror::Error)]
pub enum ReadError { #[error("the stored guild is damaged")] Damaged }
#[derive(Debug, thiserror::Error)]
pub enum RestoreError { #[error("the checkpoint is damaged")] Damaged, #[error("the checkpoint has format {0}, which this version cannot read")] Format(u8) }
pub struct Guilds;
#[derive(Clone)]
pub struct GuildSnapshot;
#[derive(Clone)]
pub struct Snapshot;
pub struct Compaction;
pub struct Compacted;
/// Which members op 8 asks for.
pub enum Members<'a> { All, Ids(&'a [u64]), /** username or nickname begins with, at most so many */ Prefix(&'a str, usize) }
/// Raw JSON objects with their user ids.
pub struct Found { bytes: Vec<u8>, items: Vec<(u64, Range<usize>)> }
impl Found { pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> { self.items.iter().map(|(id, r)| (*id, &self.bytes[r.clone()])) }
    pub fn len(&self) -> usize { self.items.len() } pub fn is_empty(&self) -> bool { self.items.is_empty() } }
impl Guilds {
    pub fn new(options: Options) -> Self { Guilds }
    /// The bot's own user, when it is known from elsewhere than READY.
    pub fn set_user(&mut self, user_id: u64) {}
    pub fn ready(&mut self, user_id: u64, listed: &[u64]) -> Vec<u64> { Vec::new() }
    pub fn apply(&mut self, kind: EventKind, guild: Option<u64>, d: &[u8], position: u64) -> Applied { Applied::Unchanged }
    /// MESSAGE_CREATE.
    pub fn message(&mut self, guild: u64, channel: u64, id: u64, position: u64) -> Applied { Applied::Unchanged }
    pub fn snapshot(&self) -> Snapshot { Snapshot }
    pub fn get(&self, id: u64) -> Option<GuildSnapshot> { None }
    pub fn len(&self) -> usize { 0 }
    pub fn is_empty(&self) -> bool { true }
    pub fn compactable(&mut self) -> Option<Compaction> { None }
    pub fn finish(&mut self, compacted: Compacted) {}
    /// Records changed since their checkpoint, whose first such change is below `before`; oldest first, at most `max`.
    pub fn dirty(&self, before: u64, max: usize) -> Vec<(u64, GuildSnapshot)> { Vec::new() }
    /// Guilds that were removed and whose checkpoints should go: guild and the position of its removal.
    pub fn removed(&self) -> Vec<(u64, u64)> { Vec::new() }
    pub fn oldest_unsaved(&self) -> Option<u64> { None }
    /// The guild's checkpoint of this position is stored (or, after removal, erased).
    pub fn saved(&mut self, guild: u64, position: u64) {}
    pub fn restore(&mut self, guild: u64, checkpoint: &[u8]) -> Result<(), RestoreError> { Ok(()) }
    pub fn memory(&self) -> Memory { Memory::default() }
}
impl Snapshot { pub fn guilds(&self) -> &[GuildSnapshot] { &[] } }
impl GuildSnapshot {
    pub fn id(&self) -> u64 { 0 }
    pub fn position(&self) -> u64 { 0 }
    pub fn unavailable(&self) -> bool { false }
    pub fn guild_create(&self, view: &View, out: &mut Vec<u8>) -> Result<(), ReadError> { Ok(()) }
    pub fn members_complete(&self) -> bool { false }
    pub fn members(&self, which: &Members<'_>) -> Result<Found, ReadError> { Err(ReadError::Damaged) }
    pub fn presences(&self, users: &[u64]) -> Result<Found, ReadError> { Err(ReadError::Damaged) }
    /// The JSON array of SOUNDBOARD_SOUNDS.
    pub fn soundboard_sounds(&self, out: &mut Vec<u8>) -> Result<(), ReadError> { Ok(()) }
    pub fn checkpoint(&self) -> Vec<u8> { Vec::new() }
}
impl Compaction { pub fn run(self) -> Compacted { Compacted } }
