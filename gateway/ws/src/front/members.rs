// SPDX-License-Identifier: AGPL-3.0-only
//! Op 8: answered from the guild state where that is complete, else asked upstream under a nonce of ours.
//!
//! In: the request's `d`. Out: GUILD_MEMBERS_CHUNKs in the client's buffer, or a command for the shard.

use holdfast_state::GuildSnapshot;
use serde_json::{Map, Value};

use super::{
    commands::{self, Sender},
    query::Refused,
    source::dispatch,
};
use crate::shard::{Ask, Priority, members_from_state, unix_ms};

/// Beyond this much waiting for the client, answers come from upstream, which paces them.
const MAX_WAITING: usize = 1 << 20;
/// A nonce longer than this is ignored ("Request Guild Members").
const MAX_NONCE: usize = 32;

/// Requests whose answers may still come, by resume too: two minutes' worth of what a client may send.
const MAX_REQUESTS: usize = 240;

/// Takes a request.
pub(super) fn request(sender: &mut Sender<'_>, fields: &Map<String, Value>) -> Result<(), Refused> {
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
    let snapshot = sender.hub.core().guilds.get(guild);
    if let Some(snapshot) = snapshot
        && answer(sender, &snapshot, fields, nonce.as_deref())
    {
        sender.front.metrics.members_from_state.inc();
        return Ok(());
    }
    let asked = sender.hub.core().members.ask(fields, unix_ms());
    sender.requests.insert(asked.number, nonce);
    // Numbers rise: the lowest is the oldest, and was answered long ago.
    if sender.requests.len() > MAX_REQUESTS {
        sender.requests.pop_first();
    }
    match asked.forward {
        Some(payload) => commands::forward(sender, Priority::Normal, payload),
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
    sender: &mut Sender<'_>,
    guild: &GuildSnapshot,
    fields: &Map<String, Value>,
    nonce: Option<&str>,
) -> bool {
    if sender.out.rest().len() > MAX_WAITING {
        return false;
    }
    let ids = ids(fields);
    let limit = fields.get("limit").and_then(Value::as_u64).unwrap_or(0);
    let ask = Ask {
        ids: ids.as_deref(),
        query: fields.get("query").and_then(Value::as_str),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        presences: fields.get("presences") == Some(&Value::Bool(true)),
        intents: sender.wants.intents,
        nonce,
    };
    let Some(chunks) = members_from_state(guild, &ask) else { return false };
    for data in chunks {
        dispatch(sender.out, "GUILD_MEMBERS_CHUNK", sender.sequence, &data);
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
