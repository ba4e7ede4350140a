// SPDX-License-Identifier: AGPL-3.0-only
//! What each event does to a guild. In: an event's kind and `d`. Out: entries, patches and notes in the record's
//! changes. Only the top level of `d` is taken apart. The rules stand in README.md, and in the test's model.

mod channels;
mod guild;
mod members;

use holdfast_discord::EventKind;
use serde::de::Error as _;

use crate::json::{Error, Fields};
use crate::patch;
use crate::record::Record;
use crate::section::{Kept, Section};

/// What the reducer must know besides the record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) kept: Kept,
    pub(crate) own_user: u64,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unchanged,
    /// Only presences changed: no need to save.
    Presences,
    Changed,
}

/// Whether this kind changes a guild that is there, in what is kept. GUILD_CREATE and GUILD_DELETE stand apart.
pub(crate) fn concerns(kind: EventKind, kept: Kept) -> bool {
    use EventKind as E;
    match kind {
        E::GuildUpdate
        | E::GuildMemberAdd
        | E::GuildMemberRemove
        | E::GuildMemberUpdate
        | E::GuildMembersChunk
        | E::VoiceStateUpdate => true,
        E::GuildEmojisUpdate => kept.has(Section::Emojis),
        E::GuildStickersUpdate => kept.has(Section::Stickers),
        E::GuildRoleCreate | E::GuildRoleUpdate | E::GuildRoleDelete => kept.has(Section::Roles),
        E::ChannelCreate | E::ChannelUpdate => kept.has(Section::Channels),
        E::ChannelDelete
        | E::ChannelPinsUpdate
        | E::ThreadCreate
        | E::VoiceChannelStatusUpdate
        | E::VoiceChannelStartTimeUpdate
        | E::MessageCreate => kept.has(Section::Channels) || kept.has(Section::Threads),
        E::ThreadUpdate
        | E::ThreadDelete
        | E::ThreadListSync
        | E::ThreadMemberUpdate
        | E::ThreadMembersUpdate
        | E::MessageDelete
        | E::MessageDeleteBulk => kept.has(Section::Threads),
        E::StageInstanceCreate | E::StageInstanceUpdate | E::StageInstanceDelete => {
            kept.has(Section::StageInstances)
        }
        E::GuildScheduledEventCreate
        | E::GuildScheduledEventUpdate
        | E::GuildScheduledEventDelete
        | E::GuildScheduledEventUserAdd
        | E::GuildScheduledEventUserRemove => kept.has(Section::ScheduledEvents),
        E::GuildSoundboardSoundCreate
        | E::GuildSoundboardSoundUpdate
        | E::GuildSoundboardSoundDelete
        | E::GuildSoundboardSoundsUpdate
        | E::SoundboardSounds => kept.has(Section::Sounds),
        E::PresenceUpdate => kept.has(Section::Presences),
        _ => false,
    }
}

/// Works an event into a guild that is there.
pub(crate) fn reduce(
    record: &mut Record,
    context: Context,
    kind: EventKind,
    d: &[u8],
) -> Result<Outcome, Error> {
    use EventKind as E;
    match kind {
        E::GuildUpdate => guild::update(record, context, d),
        E::GuildEmojisUpdate => guild::whole(record, Section::Emojis, d),
        E::GuildStickersUpdate => guild::whole(record, Section::Stickers, d),
        E::SoundboardSounds => guild::whole(record, Section::Sounds, d),
        E::GuildRoleCreate => guild::put_role(record, d, true),
        E::GuildRoleUpdate => guild::put_role(record, d, false),
        E::GuildRoleDelete => gone(record, Section::Roles, d, "role_id"),
        E::GuildSoundboardSoundCreate => put(record, Section::Sounds, d, "sound_id", true),
        E::GuildSoundboardSoundUpdate => put(record, Section::Sounds, d, "sound_id", false),
        E::GuildSoundboardSoundDelete => gone(record, Section::Sounds, d, "sound_id"),
        E::GuildSoundboardSoundsUpdate => guild::sounds(record, d),
        E::StageInstanceCreate => put(record, Section::StageInstances, d, "id", true),
        E::StageInstanceUpdate => put(record, Section::StageInstances, d, "id", false),
        E::StageInstanceDelete => gone(record, Section::StageInstances, d, "id"),
        E::GuildScheduledEventCreate => guild::put_scheduled_event(record, d, true),
        E::GuildScheduledEventUpdate => guild::put_scheduled_event(record, d, false),
        E::GuildScheduledEventDelete => gone(record, Section::ScheduledEvents, d, "id"),
        E::GuildScheduledEventUserAdd => guild::count_users(record, d, 1),
        E::GuildScheduledEventUserRemove => guild::count_users(record, d, -1),
        E::ChannelCreate => put(record, Section::Channels, d, "id", true),
        E::ChannelUpdate => put(record, Section::Channels, d, "id", false),
        E::ChannelDelete => channels::delete(record, context, d),
        E::ChannelPinsUpdate => channels::pins(record, d),
        E::VoiceChannelStatusUpdate => channels::voice_field(record, d, "status"),
        E::VoiceChannelStartTimeUpdate => channels::voice_field(record, d, "voice_start_time"),
        E::ThreadCreate => channels::put_thread(record, context, d, true),
        E::ThreadUpdate => channels::put_thread(record, context, d, false),
        E::ThreadDelete => gone(record, Section::Threads, d, "id"),
        E::ThreadListSync => channels::sync_threads(record, context, d),
        E::ThreadMemberUpdate => channels::own_thread_member(record, context, d),
        E::ThreadMembersUpdate => channels::thread_members(record, context, d),
        E::MessageCreate => channels::message_create(record, d),
        E::MessageDelete => channels::message_delete(record, d),
        E::MessageDeleteBulk => channels::message_delete_bulk(record, d),
        E::GuildMemberAdd => members::add(record, context, d),
        E::GuildMemberUpdate => members::update(record, context, d),
        E::GuildMemberRemove => members::remove(record, context, d),
        E::GuildMembersChunk => members::chunk(record, context, d),
        E::PresenceUpdate => members::presence(record, d),
        E::VoiceStateUpdate => members::voice_state(record, context, d),
        _ => Ok(Outcome::Unchanged),
    }
}

pub(crate) use channels::note_message;
pub(crate) use members::update_own_user;

/// An event whose `d` is the entity.
fn put(record: &mut Record, section: Section, d: &[u8], key: &str, fresh: bool) -> Result<Outcome, Error> {
    let fields = Fields::parse(d)?;
    let id = required(&fields, key)?;
    record.changes.put(section, id, &patch::as_stored(section, &fields), fresh);
    Ok(Outcome::Changed)
}

/// An event that names the id of the entity that is gone.
fn gone(record: &mut Record, section: Section, d: &[u8], key: &str) -> Result<Outcome, Error> {
    let id = required(&Fields::parse(d)?, key)?;
    record.changes.gone(section, id);
    Ok(Outcome::Changed)
}

fn required(fields: &Fields<'_>, key: &str) -> Result<u64, Error> {
    fields.snowflake(key).ok_or_else(|| missing(key))
}

fn missing(what: &str) -> Error {
    Error::custom(format_args!("no snowflake in `{what}`"))
}
