// SPDX-License-Identifier: AGPL-3.0-only
//! What a client with a session may send besides heartbeats: commands for Discord.
//!
//! In: opcode and `d`. Out: a command for the shard, an answer from the state, or the close that Discord
//! would give. What nobody here knows is passed on.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Front, members, outgoing::Outgoing, query::Refused, source::Wants};
use crate::{
    log::Position,
    shard::{Command, Hub, MAX_PAYLOAD, Priority},
};

/// A client that sends a command, and the shard that it is for.
pub(super) struct Sender<'a> {
    pub(super) front: &'a Front,
    pub(super) hub: &'a Hub,
    pub(super) connection: u64,
    pub(super) wants: &'a Wants,
    /// The sequence that an answer of our own carries.
    pub(super) sequence: Position,
    /// Where such an answer goes.
    pub(super) out: &'a mut Outgoing,
    /// Member requests of the client at this shard: our number and its nonce.
    pub(super) requests: &'a mut BTreeMap<u64, Option<String>>,
}

/// Takes one payload.
pub(super) fn take(sender: &mut Sender<'_>, op: u64, data: Value) -> Result<(), Refused> {
    match op {
        2 | 6 => Err(Refused::new(4005, "this connection has identified already")),
        0 | 7 | 9 | 10 | 11 => Err(Refused::new(4001, format!("opcode {op} is Discord's to send"))),
        3 => presence(sender, data),
        4 => voice(sender, &data),
        8 => members::request(sender, object(&data)?),
        op if sender.hub.core().refused_opcodes.contains(&op) => {
            Err(Refused::new(4001, format!("Discord doesn't know opcode {op}")))
        }
        op => forward(sender, Priority::Normal, json!({ "op": op, "d": data }).to_string().into_bytes()),
    }
}

/// Hands a payload to the shard.
pub(super) fn forward(sender: &mut Sender<'_>, priority: Priority, payload: Vec<u8>) -> Result<(), Refused> {
    if payload.len() > MAX_PAYLOAD {
        return Err(Refused::new(4002, format!("a payload is longer than {MAX_PAYLOAD} bytes")));
    }
    let command = Command::new(sender.connection, priority, payload);
    if sender.hub.command(command) {
        return Ok(());
    }
    sender.front.metrics.commands_dropped.inc();
    Err(Refused::new(4008, "too many commands are waiting to be sent"))
}

pub(super) fn object(data: &Value) -> Result<&Map<String, Value>, Refused> {
    data.as_object().ok_or_else(|| Refused::new(4002, "d is not an object"))
}

/// Op 3. Discord refuses what isn't whole, and would close our connection for it: libraries that leave
/// fields out or null get them filled in.
fn presence(sender: &mut Sender<'_>, data: Value) -> Result<(), Refused> {
    let payload = presence_payload(data)?;
    forward(sender, Priority::Normal, payload.clone())?;
    let mut core = sender.hub.core();
    core.presence = Some(payload);
    core.record_changed = true;
    Ok(())
}

/// Op 3 with this `d`, made whole.
pub(super) fn presence_payload(mut data: Value) -> Result<Vec<u8>, Refused> {
    let fields = data.as_object_mut().ok_or_else(|| Refused::new(4002, "d is not an object"))?;
    let wrong = |field: &Value, right: bool| !field.is_null() && !right;
    let fill = [
        ("activities", json!([]), Value::is_array as fn(&Value) -> bool),
        ("status", json!("online"), Value::is_string),
        ("afk", json!(false), Value::is_boolean),
        ("since", Value::Null, Value::is_number),
    ];
    for (name, default, is_right) in fill {
        let field = fields.entry(name).or_insert(Value::Null);
        if wrong(field, is_right(field)) {
            return Err(Refused::new(4002, format!("{name} has the wrong type")));
        }
        if field.is_null() {
            *field = default;
        }
    }
    Ok(json!({ "op": 3, "d": data }).to_string().into_bytes())
}

/// Op 4.
fn voice(sender: &mut Sender<'_>, data: &Value) -> Result<(), Refused> {
    let fields = object(data)?;
    let guild = snowflake(fields, "guild_id")?;
    let connected = fields.get("channel_id").is_some_and(|channel| !channel.is_null());
    if connected {
        snowflake(fields, "channel_id")?;
    }
    for name in ["self_mute", "self_deaf"] {
        if fields.get(name).is_some_and(|flag| !flag.is_boolean()) {
            return Err(Refused::new(4002, format!("{name} has the wrong type")));
        }
    }
    let payload = json!({ "op": 4, "d": data }).to_string().into_bytes();
    forward(sender, Priority::High, payload.clone())?;
    let mut core = sender.hub.core();
    core.voice.want(guild, connected, &payload);
    core.record_changed = true;
    Ok(())
}

/// A snowflake, as text or as a number.
pub(super) fn snowflake(fields: &Map<String, Value>, name: &str) -> Result<u64, Refused> {
    let id = fields.get(name).and_then(|id| id.as_u64().or_else(|| id.as_str()?.parse().ok()));
    id.ok_or_else(|| Refused::new(4002, format!("{name} is missing or no snowflake")))
}
