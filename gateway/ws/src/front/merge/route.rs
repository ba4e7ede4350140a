// SPDX-License-Identifier: AGPL-3.0-only
//! Finds which of our shards a command of a client is for.
//!
//! In: opcode and `d`. Out: the same command at one shard, or at several. What names no guild, or one that none of the
//! client's shards has, goes to the lowest: Discord answers it as it does on any shard.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Holder, pump::Merge};
use crate::front::{
    commands::{self, Sender},
    query::Refused,
};

/// Takes one payload.
pub(super) fn command(merge: &mut Merge, op: u64, data: Value) -> Result<(), Refused> {
    match op {
        // The presence is the whole bot's: Discord shows that of a guild's shard there.
        3 => all(merge, op, &data),
        31 => by_guild(merge, op, data),
        op => {
            let index = guild(data.get("guild_id")).map_or(0, |guild| home(merge, guild));
            at(merge, index, op, data)
        }
    }
}

/// The same at all of the client's shards.
fn all(merge: &mut Merge, op: u64, data: &Value) -> Result<(), Refused> {
    (0..merge.part.holders.len()).try_for_each(|index| at(merge, index, op, data.clone()))
}

/// "Request Soundboard Sounds": each shard is asked for its own among `guild_ids`.
fn by_guild(merge: &mut Merge, op: u64, data: Value) -> Result<(), Refused> {
    let Some(guilds) = data.get("guild_ids").and_then(Value::as_array) else { return at(merge, 0, op, data) };
    let mut by_shard: std::collections::BTreeMap<usize, Vec<Value>> = std::collections::BTreeMap::new();
    for id in guilds {
        let index = guild(Some(id)).map_or(0, |guild| home(merge, guild));
        by_shard.entry(index).or_default().push(id.clone());
    }
    if by_shard.len() < 2 {
        return at(merge, by_shard.first_key_value().map_or(0, |(index, _)| *index), op, data);
    }
    let fields = data.as_object().cloned().unwrap_or_default();
    for (index, guilds) in by_shard {
        let mut own: Map<String, Value> = fields.clone();
        own.insert("guild_ids".into(), Value::Array(guilds));
        at(merge, index, op, Value::Object(own))?;
    }
    Ok(())
}

/// Index of the shard that has the guild, or of the lowest.
fn home(merge: &Merge, guild: u64) -> usize {
    let shard = merge.part.share.home(guild);
    merge.part.ids().position(|id| id.shard == shard).unwrap_or(0)
}

/// A guild's id: text, a number, or, as older libraries send it, a list of one.
fn guild(id: Option<&Value>) -> Option<u64> {
    match id? {
        Value::Array(ids) => guild(ids.first()),
        id => id.as_u64().or_else(|| id.as_str()?.parse().ok()),
    }
}

/// At the shard of this index in the client's part.
fn at(merge: &mut Merge, index: usize, op: u64, data: Value) -> Result<(), Refused> {
    let Holder::Here(hub) = &merge.part.holders[index] else {
        return match merge.far(index) {
            Some(far) => far.command(op, &data),
            None => Err(Refused::new(4000, "a shard is on its way to another replica: come again")),
        };
    };
    let (hub, sequence) = (Arc::clone(hub), merge.sequence());
    // Before its session has begun, a client has no requests that could be answered.
    let mut none = std::collections::BTreeMap::new();
    // Shards of a former count take nothing any more.
    let requests = merge.legs.get_mut(merge.retired + index).map_or(&mut none, |leg| &mut leg.requests);
    let mut sender = Sender {
        front: &merge.front,
        hub: &hub,
        connection: merge.connection,
        wants: &merge.wants,
        sequence,
        out: &mut merge.writing.out,
        requests,
    };
    commands::take(&mut sender, op, data)
}
