// SPDX-License-Identifier: AGPL-3.0-only
//! Op 8: answered from the guild state where that is complete, else asked upstream under a nonce of ours.
//!
//! In: the request's `d`. Out: GUILD_MEMBERS_CHUNKs in the client's buffer, or a command for the shard.

use holdfast_state::{GuildSnapshot, Members};
use serde_json::{Map, Value};

use super::{client::Client, commands, query::Refused, source::dispatch};
use crate::shard::unix_ms;

/// "Guild Members Chunk": at most so many members each.
const CHUNK: usize = 1000;
/// A query returns at most so many ("Request Guild Members").
const MAX_QUERY: usize = 100;
/// Beyond this much waiting for the client, answers come from upstream, which paces them.
const MAX_WAITING: usize = 1 << 20;
/// Larger guilds are asked for upstream: their members are built in one go, 5,000 × 400 bytes take milliseconds.
const MAX_MEMBERS: u64 = 5_000;
/// A nonce longer than this is ignored ("Request Guild Members").
const MAX_NONCE: usize = 32;

/// Requests whose answers may still come, by resume too: two minutes' worth of what a client may send.
const MAX_REQUESTS: usize = 240;

const GUILD_PRESENCES: u64 = 1 << 8;
const GUILD_MEMBERS: u64 = 1 << 1;

/// Takes a request.
pub(super) fn request(client: &mut Client, fields: &Map<String, Value>) -> Result<(), Refused> {
    let guild = match fields.get("guild_id") {
        // Older libraries send a list of one.
        Some(Value::Array(ids)) if ids.len() == 1 => {
            commands::snowflake(&Map::from_iter([("guild_id".into(), ids[0].clone())]), "guild_id")?
        }
        _ => commands::snowflake(fields, "guild_id")?,
    };
    if fields.get("query").is_none_or(Value::is_null) && fields.get("user_ids").is_none_or(Value::is_null) {
        return Err(Refused::new(4002, "query or user_ids is needed"));
    }
    check(fields)?;
    let nonce = fields.get("nonce").and_then(Value::as_str).filter(|nonce| nonce.len() <= MAX_NONCE);
    let nonce = nonce.map(str::to_owned);
    let snapshot = client.pump.hub.core().guilds.get(guild);
    if let Some(snapshot) = snapshot
        && answer(client, &snapshot, fields, nonce.as_deref())
    {
        client.pump.front.metrics.members_from_state.inc();
        return Ok(());
    }
    let asked = client.pump.hub.core().members.ask(fields, unix_ms());
    client.pump.requests.insert(asked.number, nonce);
    // Numbers rise: the lowest is the oldest, and was answered long ago.
    if client.pump.requests.len() > MAX_REQUESTS {
        client.pump.requests.pop_first();
    }
    match asked.forward {
        Some(payload) => commands::forward(client, false, payload),
        None => Ok(()),
    }
}

/// What Discord would close our connection for, and with it all clients'.
fn check(fields: &Map<String, Value>) -> Result<(), Refused> {
    let is = |name: &str, right: fn(&Value) -> bool| {
        let right = fields.get(name).is_none_or(|value| value.is_null() || right(value));
        if right { Ok(()) } else { Err(Refused::new(4002, format!("{name} has the wrong type"))) }
    };
    is("query", Value::is_string)?;
    is("limit", Value::is_u64)?;
    is("presences", Value::is_boolean)?;
    is("user_ids", |ids| {
        let one = |id: &Value| id.is_u64() || id.as_str().is_some_and(|id| id.parse::<u64>().is_ok());
        ids.as_array().map_or_else(|| one(ids), |ids| ids.iter().all(one))
    })
}

/// Answers from the state. False: it can't.
fn answer(
    client: &mut Client,
    guild: &GuildSnapshot,
    fields: &Map<String, Value>,
    nonce: Option<&str>,
) -> bool {
    let intents = client.pump.wants.intents;
    let wants_presences = fields.get("presences") == Some(&Value::Bool(true));
    let ids = ids(fields);
    let query = fields.get("query").and_then(Value::as_str);
    let limit = fields.get("limit").and_then(Value::as_u64).unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let which = match (&ids, query) {
        (Some(ids), _) if ids.len() <= MAX_QUERY => Members::Ids(ids),
        (None, Some("")) if limit == 0 && intents & GUILD_MEMBERS != 0 => Members::All,
        (None, Some(prefix)) if (1..=MAX_QUERY).contains(&limit) => Members::Prefix(prefix, limit),
        _ => return false,
    };
    let count = guild.member_count().ok().flatten().unwrap_or(u64::MAX);
    if count > MAX_MEMBERS || client.pump.writing.out.rest().len() > MAX_WAITING || !guild.members_complete()
    {
        return false;
    }
    let Ok(found) = guild.members(&which) else { return false };
    let members: Vec<(u64, &[u8])> = found.iter().collect();
    let not_found: Vec<u64> = ids.iter().flatten().copied().filter(|id| !has(&members, *id)).collect();
    let count = members.len().div_ceil(CHUNK).max(1);
    let sequence = client.pump.sequence();
    for index in 0..count {
        let part = &members[index * CHUNK..members.len().min((index + 1) * CHUNK)];
        let mut data =
            Vec::with_capacity(part.iter().map(|(_, member)| member.len() + 1).sum::<usize>() + 256);
        let begin = format!(
            r#"{{"guild_id":"{}","chunk_index":{index},"chunk_count":{count},"members":"#,
            guild.id()
        );
        data.extend_from_slice(begin.as_bytes());
        list(&mut data, part.iter().map(|(_, member)| *member));
        if index == 0 && !not_found.is_empty() {
            let not_found: Vec<String> = not_found.iter().map(|id| format!("\"{id}\"")).collect();
            data.extend_from_slice(format!(r#","not_found":[{}]"#, not_found.join(",")).as_bytes());
        }
        if wants_presences && intents & GUILD_PRESENCES != 0 {
            let users: Vec<u64> = part.iter().map(|(id, _)| *id).collect();
            let Ok(presences) = guild.presences(&users) else { return false };
            data.extend_from_slice(b",\"presences\":");
            list(&mut data, presences.iter().map(|(_, presence)| presence));
        }
        if let Some(nonce) = nonce {
            data.extend_from_slice(format!(",\"nonce\":{}", Value::from(nonce)).as_bytes());
        }
        data.push(b'}');
        dispatch(&mut client.pump.writing.out, "GUILD_MEMBERS_CHUNK", sequence, &data);
    }
    true
}

fn ids(fields: &Map<String, Value>) -> Option<Vec<u64>> {
    let one = |id: &Value| id.as_u64().or_else(|| id.as_str()?.parse().ok());
    match fields.get("user_ids")? {
        Value::Array(ids) => ids.iter().map(one).collect(),
        Value::Null => None,
        id => Some(vec![one(id)?]),
    }
}

fn has(members: &[(u64, &[u8])], id: u64) -> bool {
    members.iter().any(|(member, _)| *member == id)
}

fn list<'a>(out: &mut Vec<u8>, items: impl Iterator<Item = &'a [u8]>) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.push(b']');
}
