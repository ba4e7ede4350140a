// SPDX-License-Identifier: AGPL-3.0-only
//! What a command comes to for one shard. In: the command, about the shard. Out: the payload for Discord and what
//! answers it, or why it can't be done. Pure: nothing that changes from moment to moment is asked here.

use std::collections::BTreeSet;

use holdfast_contract::v1::{
    Activity, Command, Error, ErrorCode, RequestChannelInfo, RequestGuildMembers, RequestSoundboardSounds,
    UpdatePresence, UpdateVoiceState, command,
};
use holdfast_discord::shard_of;
use serde_json::{Value, json, value::RawValue};

use super::decode::{Destination, destination};
use crate::shard::{MAX_PAYLOAD, MAX_QUERY, Priority};

const GUILD_MEMBERS: u64 = 1 << 1;
const GUILD_PRESENCES: u64 = 1 << 8;

/// For whom a command is checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) shard: u32,
    pub(super) total: u32,
    /// Id of the bot's application.
    pub(super) application: u64,
    /// What the shard identifies with.
    pub(super) intents: u64,
}

/// A command that may be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) priority: Priority,
    pub(super) op: u64,
    /// `d`, but for a nonce.
    pub(super) data: Value,
    pub(super) what: What,
}

/// What it is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Presence,
    /// A channel, or none to leave.
    Voice {
        guild: u64,
        channel: Option<u64>,
    },
    Members {
        guild: u64,
        ask: RequestGuildMembers,
    },
    Sounds(BTreeSet<u64>),
    ChannelInfo {
        guild: u64,
    },
    Raw(RawData),
}

/// `d` of a raw payload, as it came.
#[derive(Clone, Debug)]
pub(super) struct RawData(Box<RawValue>);

impl PartialEq for RawData {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Plan {
    /// The whole payload, with a nonce for what has one.
    pub(super) fn payload(&self, nonce: Option<&str>) -> Result<Vec<u8>, Error> {
        let payload = match (&self.what, nonce) {
            (What::Raw(data), _) => format!(r#"{{"op":{},"d":{}}}"#, self.op, data.0.get()).into_bytes(),
            (_, Some(nonce)) => {
                let mut data = self.data.clone();
                data["nonce"] = nonce.into();
                json!({ "op": self.op, "d": data }).to_string().into_bytes()
            }
            (_, None) => json!({ "op": self.op, "d": self.data }).to_string().into_bytes(),
        };
        if payload.len() > MAX_PAYLOAD {
            let text = format!("the payload has {} bytes: Discord takes {MAX_PAYLOAD}", payload.len());
            return Err(Error::new(ErrorCode::TooLarge, text));
        }
        Ok(payload)
    }

    /// The guilds that the shard must know and Discord must have at hand.
    pub(super) fn guilds(&self) -> Vec<u64> {
        match &self.what {
            What::Voice { guild, .. } | What::Members { guild, .. } | What::ChannelInfo { guild } => {
                vec![*guild]
            }
            What::Sounds(guilds) => guilds.iter().copied().collect(),
            What::Presence | What::Raw(_) => Vec::new(),
        }
    }
}

/// A kind of command, as metrics name it.
pub(super) fn kind(command: &Command) -> &'static str {
    match &command.payload {
        Some(command::Payload::UpdatePresence(_)) => "update_presence",
        Some(command::Payload::UpdateVoiceState(_)) => "update_voice_state",
        Some(command::Payload::RequestGuildMembers(_)) => "request_guild_members",
        Some(command::Payload::RequestSoundboardSounds(_)) => "request_soundboard_sounds",
        Some(command::Payload::RequestChannelInfo(_)) => "request_channel_info",
        Some(command::Payload::Raw(_)) => "raw",
        Some(command::Payload::DeliverInteraction(_)) => "deliver_interaction",
        None => "unknown",
    }
}

/// Checks a command for a shard.
pub(super) fn plan(command: &Command, about: &About) -> Result<Plan, Error> {
    let Some(payload) = &command.payload else {
        return Err(Error::new(ErrorCode::Unsupported, "no payload that this version knows"));
    };
    if command.application != 0 && command.application != about.application {
        let text = format!("this is application {}", about.application);
        return Err(Error::new(ErrorCode::WrongApplication, text));
    }
    let guild = target(command, about)?;
    let normal = |op, data, what| Plan { priority: Priority::Normal, op, data, what };
    let plan = match payload {
        command::Payload::UpdatePresence(presence) => normal(3, presence_data(presence)?, What::Presence),
        command::Payload::UpdateVoiceState(voice) => {
            let guild = about_a_guild(guild)?;
            let channel = Some(voice.channel_id).filter(|channel| *channel != 0);
            let plan = normal(4, voice_data(guild, voice), What::Voice { guild, channel });
            Plan { priority: Priority::High, ..plan }
        }
        command::Payload::RequestGuildMembers(ask) => {
            let guild = about_a_guild(guild)?;
            check_members(ask, about.intents)?;
            normal(8, members_data(guild, ask), What::Members { guild, ask: ask.clone() })
        }
        command::Payload::RequestSoundboardSounds(ask) => {
            let guilds = sounds_of(ask, command, guild, about)?;
            let ids: Vec<String> = guilds.iter().map(u64::to_string).collect();
            normal(31, json!({ "guild_ids": ids }), What::Sounds(guilds))
        }
        command::Payload::RequestChannelInfo(ask) => {
            let guild = about_a_guild(guild)?;
            normal(43, info_data(guild, ask)?, What::ChannelInfo { guild })
        }
        command::Payload::Raw(raw) => {
            check_opcode(raw.opcode)?;
            let data: Box<RawValue> = serde_json::from_slice(&raw.data)
                .map_err(|error| invalid(format!("raw.data is no JSON value: {error}")))?;
            normal(raw.opcode.into(), Value::Null, What::Raw(RawData(data)))
        }
        command::Payload::DeliverInteraction(_) => {
            return Err(Error::new(ErrorCode::Unsupported, "an interaction is nothing to send to Discord"));
        }
    };
    let priority = match command.priority {
        1 => Priority::Low,
        2 => Priority::Normal,
        3 => Priority::High,
        // Not told, or a word from the future.
        _ => plan.priority,
    };
    Ok(Plan { priority, ..plan })
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArgument, text)
}

/// The guild of the target, if it names one; the target is this shard.
fn target(command: &Command, about: &About) -> Result<Option<u64>, Error> {
    let guild = match &command.target {
        Some(command::Target::GuildId(guild)) => Some(*guild),
        _ => None,
    };
    match destination(command, about.total)? {
        Destination::Shard(shard) if shard != about.shard => {
            let what = guild.map_or("the target".to_owned(), |guild| format!("guild {guild}"));
            let text = format!("{what} is on shard {shard} of {}, this is {}", about.total, about.shard);
            Err(Error::new(ErrorCode::WrongShard, text))
        }
        _ => Ok(guild),
    }
}

fn about_a_guild(guild: Option<u64>) -> Result<u64, Error> {
    guild.ok_or_else(|| Error::new(ErrorCode::InvalidTarget, "the target of this command is a guild"))
}

fn presence_data(presence: &UpdatePresence) -> Result<Value, Error> {
    let activities = presence.activities.iter().enumerate().map(|(index, activity)| {
        if activity.name.is_empty() {
            return Err(invalid(format!("activities[{index}].name is missing")));
        }
        let Activity { name, r#type, url, state } = activity;
        let mut data = json!({ "name": name, "type": r#type });
        for (key, value) in [("url", url), ("state", state)] {
            if let Some(value) = value {
                data[key] = value.as_str().into();
            }
        }
        Ok(data)
    });
    let activities = activities.collect::<Result<Vec<Value>, Error>>()?;
    let status = if presence.status.is_empty() { "online" } else { &presence.status };
    Ok(json!({
        "since": presence.since_ms, "activities": activities, "status": status, "afk": presence.afk,
    }))
}

fn voice_data(guild: u64, voice: &UpdateVoiceState) -> Value {
    let channel = (voice.channel_id != 0).then(|| voice.channel_id.to_string());
    json!({
        "guild_id": guild.to_string(), "channel_id": channel,
        "self_mute": voice.self_mute, "self_deaf": voice.self_deaf,
    })
}

fn check_members(ask: &RequestGuildMembers, intents: u64) -> Result<(), Error> {
    let missing = |name| {
        let text = format!("{name} isn't among discord.intents");
        Error::new(ErrorCode::MissingIntent, text)
    };
    match &ask.query {
        Some(_) if !ask.user_ids.is_empty() => return Err(invalid("query and user_ids exclude each other")),
        None if ask.user_ids.is_empty() => return Err(invalid("query or user_ids is needed")),
        None if ask.user_ids.len() > MAX_QUERY => {
            return Err(invalid(format!("user_ids has {}: at most {MAX_QUERY}", ask.user_ids.len())));
        }
        Some(query) if query.is_empty() && intents & GUILD_MEMBERS == 0 => {
            return Err(missing("GUILD_MEMBERS"));
        }
        _ => {}
    }
    if ask.presences && intents & GUILD_PRESENCES == 0 {
        return Err(missing("GUILD_PRESENCES"));
    }
    Ok(())
}

fn members_data(guild: u64, ask: &RequestGuildMembers) -> Value {
    let guild = guild.to_string();
    match &ask.query {
        Some(query) => {
            json!({ "guild_id": guild, "query": query, "limit": ask.limit, "presences": ask.presences })
        }
        None => {
            let ids: Vec<String> = ask.user_ids.iter().map(u64::to_string).collect();
            json!({ "guild_id": guild, "user_ids": ids, "presences": ask.presences })
        }
    }
}

fn sounds_of(
    ask: &RequestSoundboardSounds,
    command: &Command,
    guild: Option<u64>,
    about: &About,
) -> Result<BTreeSet<u64>, Error> {
    if matches!(command.target, Some(command::Target::All(_))) {
        let text = "the target of this command is a guild, or a shard with its guilds";
        return Err(Error::new(ErrorCode::InvalidTarget, text));
    }
    let guilds: BTreeSet<u64> = match guild {
        Some(guild) if ask.guild_ids.is_empty() => BTreeSet::from([guild]),
        _ => ask.guild_ids.iter().copied().collect(),
    };
    if guilds.is_empty() {
        return Err(invalid("guild_ids is empty, and the target is no guild"));
    }
    let elsewhere = guilds.iter().find(|guild| shard_of(**guild, about.total) != about.shard);
    if let Some(guild) = elsewhere {
        let (shard, total) = (shard_of(*guild, about.total), about.total);
        let text = format!("guild {guild} is on shard {shard} of {total}, this is {}", about.shard);
        return Err(Error::new(ErrorCode::WrongShard, text));
    }
    Ok(guilds)
}

fn info_data(guild: u64, ask: &RequestChannelInfo) -> Result<Value, Error> {
    if ask.fields.is_empty() {
        return Err(invalid("fields is empty"));
    }
    Ok(json!({ "guild_id": guild.to_string(), "fields": ask.fields }))
}

fn check_opcode(opcode: u32) -> Result<(), Error> {
    match opcode {
        1 | 2 | 6 => {
            let text = format!("opcode {opcode} is Holdfast's own to send");
            Err(Error::new(ErrorCode::Forbidden, text))
        }
        0 | 7 | 9 | 10 | 11 => {
            let text = format!("opcode {opcode} is Discord's to send");
            Err(Error::new(ErrorCode::RefusedByDiscord, text))
        }
        _ => Ok(()),
    }
}
