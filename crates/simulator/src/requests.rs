// SPDX-License-Identifier: AGPL-3.0-only
//! Requests about guilds: members, voice, presence, soundboard sounds, channel info.
//!
//! In: op 3, 4, 8, 31 and 43 of an identified client. Out: the events that answer them
//! (events/gateway-events, "Send Events").
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::commands::{DECODE, Refusal};
use crate::connection::Connection;
use crate::hub::{Event, lock};
use crate::intents;
use crate::session::Session;
use crate::world::BOT_USER;

/// Members in one chunk.
const CHUNK: usize = 1_000;
/// Members that a prefix or a list of ids brings at most.
const LIMITED: usize = 100;
/// Longer nonces are ignored.
const MAX_NONCE: usize = 32;

impl Connection {
    /// Answers one request. Unknown guilds are ignored, as Discord does.
    pub(crate) fn request(&mut self, op: u64, data: &Value, session: &Arc<Session>) -> Result<(), Refusal> {
        if !data.is_object() {
            return Err(DECODE);
        }
        match op {
            3 => match data["status"].as_str() {
                Some("online" | "dnd" | "idle" | "invisible" | "offline") => Ok(()),
                _ => Err(DECODE),
            },
            4 => self.voice_state(data, session),
            8 => self.members(data, session),
            31 => self.sounds(data, session),
            _ => self.channel_info(data, session),
        }
    }

    fn answer(&self, session: &Session, name: &'static str, data: &Value) {
        let (name, data) = (Bytes::from_static(name.as_bytes()), Bytes::from(data.to_string()));
        session.push(None, &name, &data, &self.hub.limits());
    }

    fn members(&mut self, data: &Value, session: &Arc<Session>) -> Result<(), Refusal> {
        let guild = snowflake(&data["guild_id"]).ok_or(DECODE)?;
        let nonce = data["nonce"].as_str().filter(|nonce| nonce.len() <= MAX_NONCE);
        let wanted = Wanted::read(data)?;
        let whole = matches!(&wanted, Wanted::Query { prefix, .. } if prefix.is_empty());
        if whole && session.intents & intents::GUILD_MEMBERS == 0 {
            self.note("members_without_intent", "all members need GUILD_MEMBERS".to_owned());
            return Ok(());
        }
        if whole && let Some(retry_after) = self.too_often(guild) {
            self.note("members_too_often", guild.to_string());
            let mut meta = json!({"guild_id": guild.to_string()});
            if let Some(nonce) = nonce {
                meta["nonce"] = json!(nonce);
            }
            let limited = json!({"opcode": 8, "retry_after": retry_after, "meta": meta});
            self.answer(session, "RATE_LIMITED", &limited);
            return Ok(());
        }
        if !session.holds(Some(guild)) {
            return Ok(());
        }
        let presences =
            data["presences"].as_bool() == Some(true) && session.intents & intents::GUILD_PRESENCES != 0;
        let tree = lock(&self.hub.world).tree(guild).map(|tree| wanted.pick(tree));
        let Some((members, known, not_found)) = tree else { return Ok(()) };
        let chunks: Vec<&[Value]> =
            if members.is_empty() { vec![&[]] } else { members.chunks(CHUNK).collect() };
        for (index, chunk) in chunks.iter().enumerate() {
            let mut answer = json!({"guild_id": guild.to_string(), "members": chunk, "chunk_index": index,
                "chunk_count": chunks.len(), "not_found": not_found});
            if presences {
                answer["presences"] = present(&known, chunk);
            }
            if let Some(nonce) = nonce {
                answer["nonce"] = json!(nonce);
            }
            self.answer(session, "GUILD_MEMBERS_CHUNK", &answer);
        }
        Ok(())
    }

    /// Whether all members of the guild were asked for too recently; then, seconds to wait.
    fn too_often(&self, guild: u64) -> Option<f64> {
        let window = self.hub.limits().members_request_seconds;
        let mut asked = lock(&self.hub.whole_requests);
        asked.retain(|_, at| at.elapsed().as_secs_f64() < window);
        let since = asked.get(&guild).map(Instant::elapsed);
        match since {
            Some(since) => Some(window - since.as_secs_f64()),
            None => {
                asked.insert(guild, Instant::now());
                None
            }
        }
    }

    fn voice_state(&mut self, data: &Value, session: &Arc<Session>) -> Result<(), Refusal> {
        let guild = snowflake(&data["guild_id"]).ok_or(DECODE)?;
        let channel = match &data["channel_id"] {
            Value::Null => None,
            id => Some(snowflake(id).ok_or(DECODE)?),
        };
        if !session.holds(Some(guild)) || !lock(&self.hub.world).available(guild) {
            return Ok(());
        }
        let own = BOT_USER.to_string();
        let limits = self.hub.limits();
        let mut world = lock(&self.hub.world);
        let member = world.tree(guild).and_then(|tree| {
            tree["members"].as_array()?.iter().find(|m| m["user"]["id"] == own.as_str()).cloned()
        });
        let state = json!({"guild_id": guild.to_string(), "channel_id": channel.map(|id| id.to_string()),
            "user_id": own, "member": member, "session_id": session.id, "deaf": false, "mute": false,
            "self_deaf": data["self_deaf"].as_bool().unwrap_or(false),
            "self_mute": data["self_mute"].as_bool().unwrap_or(false), "self_video": false, "suppress": false,
            "request_to_speak_timestamp": null});
        if let Some(tree) = world.tree(guild) {
            crate::model::apply(tree, "VOICE_STATE_UPDATE", &state);
        }
        let event = |name: &'static str, data: Value, about_self| Event {
            guild: Some(guild),
            shard: None,
            name: Bytes::from_static(name.as_bytes()),
            data: Bytes::from(data.to_string()),
            about_self,
        };
        self.hub.dispatch(&world, &limits, &event("VOICE_STATE_UPDATE", state, true));
        if channel.is_some() {
            let server = json!({"token": format!("{:016x}", fastrand::u64(..)), "guild_id": guild.to_string(),
                "endpoint": "rotterdam-sim.discord.media:443"});
            self.hub.dispatch(&world, &limits, &event("VOICE_SERVER_UPDATE", server, true));
        }
        Ok(())
    }

    fn sounds(&mut self, data: &Value, session: &Arc<Session>) -> Result<(), Refusal> {
        for guild in data["guild_ids"].as_array().ok_or(DECODE)? {
            let guild = snowflake(guild).ok_or(DECODE)?;
            if !session.holds(Some(guild)) {
                continue;
            }
            let sounds = lock(&self.hub.world).tree(guild).map(|tree| tree["soundboard_sounds"].clone());
            if let Some(sounds) = sounds {
                let answer = json!({"guild_id": guild.to_string(), "soundboard_sounds": sounds});
                self.answer(session, "SOUNDBOARD_SOUNDS", &answer);
            }
        }
        Ok(())
    }

    fn channel_info(&mut self, data: &Value, session: &Arc<Session>) -> Result<(), Refusal> {
        let guild = snowflake(&data["guild_id"]).ok_or(DECODE)?;
        let fields: Vec<&str> =
            data["fields"].as_array().ok_or(DECODE)?.iter().filter_map(Value::as_str).collect();
        if !session.holds(Some(guild)) {
            return Ok(());
        }
        let mut world = lock(&self.hub.world);
        let Some(tree) = world.tree(guild) else { return Ok(()) };
        let channels = tree["channels"].as_array().into_iter().flatten();
        let voice: Vec<Value> =
            channels.filter(|channel| channel["type"] == 2).map(|channel| channel["id"].clone()).collect();
        let info = |id: &Value| {
            let known = world.voice_info.get(id.as_str().unwrap_or_default());
            let mut info = json!({"id": id});
            for field in fields.iter().filter(|field| matches!(**field, "status" | "voice_start_time")) {
                info[*field] = known.map_or(Value::Null, |known| known[*field].clone());
            }
            info
        };
        let channels: Vec<Value> = voice.iter().map(info).collect();
        drop(world);
        self.answer(session, "CHANNEL_INFO", &json!({"guild_id": guild.to_string(), "channels": channels}));
        Ok(())
    }
}

/// Which members are asked for.
enum Wanted {
    Query { prefix: String, limit: usize },
    Ids(Vec<Value>),
}

impl Wanted {
    fn read(data: &Value) -> Result<Self, Refusal> {
        match (&data["user_ids"], data["query"].as_str()) {
            (Value::Array(ids), _) => Ok(Self::Ids(ids.clone())),
            (id @ (Value::String(_) | Value::Number(_)), _) => Ok(Self::Ids(vec![id.clone()])),
            (Value::Null, Some(prefix)) => {
                let limit = data["limit"].as_u64().ok_or(DECODE)?;
                Ok(Self::Query {
                    prefix: prefix.to_lowercase(),
                    limit: usize::try_from(limit).unwrap_or(usize::MAX),
                })
            }
            _ => Err(DECODE),
        }
    }

    /// Members, all presences of the guild, and the ids that nobody has.
    fn pick(&self, tree: &Value) -> (Vec<Value>, Vec<Value>, Vec<Value>) {
        let all = tree["members"].as_array().cloned().unwrap_or_default();
        let presences = tree["presences"].as_array().cloned().unwrap_or_default();
        match self {
            Self::Query { prefix, limit } => {
                let most = match (prefix.is_empty(), *limit) {
                    (true, 0) => usize::MAX,
                    (true, limit) => limit,
                    (false, 0) => LIMITED,
                    (false, limit) => limit.min(LIMITED),
                };
                let starts = |member: &Value| {
                    let begins = |name: &Value| {
                        name.as_str().is_some_and(|name| name.to_lowercase().starts_with(prefix.as_str()))
                    };
                    begins(&member["user"]["username"]) || begins(&member["nick"])
                };
                (all.into_iter().filter(starts).take(most).collect(), presences, Vec::new())
            }
            Self::Ids(ids) => {
                let ids: Vec<&Value> = ids.iter().take(LIMITED).collect();
                let id = |value: &Value| snowflake(value).map(|id| id.to_string());
                let (mut found, mut missing) = (Vec::new(), Vec::new());
                for wanted in ids {
                    let wanted_id = id(wanted);
                    match all.iter().find(|m| wanted_id.is_some() && id(&m["user"]["id"]) == wanted_id) {
                        Some(member) => found.push(member.clone()),
                        None => missing.push(wanted.clone()),
                    }
                }
                (found, presences, missing)
            }
        }
    }
}

/// The presences of these members.
fn present(presences: &[Value], members: &[Value]) -> Value {
    let of = |presence: &&Value| members.iter().any(|member| member["user"]["id"] == presence["user"]["id"]);
    presences.iter().filter(of).cloned().collect()
}

/// An id as a string or a number.
fn snowflake(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
