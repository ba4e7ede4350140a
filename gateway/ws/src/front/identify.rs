// SPDX-License-Identifier: AGPL-3.0-only
//! IDENTIFY and RESUME as libraries really send them: strict where Discord is, lenient where it doesn't care.
//!
//! In: a payload's `d`. Out: what we need of it, or the close code that Discord would give. Pure.

use holdfast_service::Secret;
use serde_json::{Map, Value};

use super::query::Refused;

/// What a client identifies with.
#[derive(Debug)]
pub(crate) struct Identify {
    pub(crate) token: Secret,
    pub(crate) intents: u64,
    /// None: the client named none, which means [0, 1].
    pub(crate) shard: Option<[u32; 2]>,
    /// Payload compression.
    pub(crate) compress: bool,
    pub(crate) large_threshold: u32,
    pub(crate) presence: Option<Map<String, Value>>,
}

/// What a client resumes with.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) token: Secret,
    pub(crate) session_id: String,
    pub(crate) sequence: u64,
}

/// "Identify Structure": a value between 50 and 250, default 50.
const LARGE_THRESHOLD: std::ops::RangeInclusive<u64> = 50..=250;

impl Identify {
    /// Reads IDENTIFY's `d`.
    pub(crate) fn parse(data: &Value) -> Result<Self, Refused> {
        let fields = object(data)?;
        Ok(Self {
            token: token(fields)?,
            intents: intents(fields.get("intents"))?,
            shard: shard(fields.get("shard"))?,
            compress: fields.get("compress") == Some(&Value::Bool(true)),
            large_threshold: fields
                .get("large_threshold")
                .and_then(Value::as_u64)
                .filter(|threshold| LARGE_THRESHOLD.contains(threshold))
                .and_then(|threshold| u32::try_from(threshold).ok())
                .unwrap_or(50),
            presence: fields.get("presence").and_then(Value::as_object).cloned(),
        })
    }
}

impl Resume {
    /// Reads RESUME's `d`.
    pub(crate) fn parse(data: &Value) -> Result<Self, Refused> {
        let fields = object(data)?;
        // discord.py sends null when it never got READY, and relies on INVALID_SESSION.
        let session_id = fields.get("session_id").and_then(Value::as_str).unwrap_or_default();
        let sequence = match fields.get("seq") {
            None | Some(Value::Null) => 0,
            Some(seq) => seq.as_u64().ok_or_else(|| Refused::new(4007, "seq is not a sequence"))?,
        };
        Ok(Self { token: token(fields)?, session_id: session_id.to_owned(), sequence })
    }
}

fn object(data: &Value) -> Result<&Map<String, Value>, Refused> {
    data.as_object().ok_or_else(|| Refused::new(4002, "d is not an object"))
}

fn token(fields: &Map<String, Value>) -> Result<Secret, Refused> {
    let token = fields.get("token").and_then(Value::as_str);
    let token = token.ok_or_else(|| Refused::new(4002, "token is missing"))?;
    Ok(Secret::new(token.strip_prefix("Bot ").unwrap_or(token)))
}

fn intents(value: Option<&Value>) -> Result<u64, Refused> {
    match value {
        Some(Value::Number(bits)) => {
            bits.as_u64().ok_or_else(|| Refused::new(4013, "intents is not a set of bits"))
        }
        // ETF and some libraries write large numbers as text.
        Some(Value::String(bits)) => {
            bits.parse().map_err(|_| Refused::new(4013, "intents is not a set of bits"))
        }
        None | Some(Value::Null) => Err(Refused::new(4013, "intents is missing")),
        Some(_) => Err(Refused::new(4002, "intents is not a number")),
    }
}

/// More shards than any bot has; as for ours (`ws.shards.total`).
const MAX_SHARDS: u32 = 1_000_000;

fn shard(value: Option<&Value>) -> Result<Option<[u32; 2]>, Refused> {
    let wrong = || Refused::new(4010, "shard must be [number, count], numbered from 0");
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let [shard, total] = value.as_array().map(Vec::as_slice).ok_or_else(wrong)? else {
        return Err(wrong());
    };
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let (shard, total) = (number(shard).ok_or_else(wrong)?, number(total).ok_or_else(wrong)?);
    if shard < total && total <= MAX_SHARDS { Ok(Some([shard, total])) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn identify_as_libraries_send_it() {
        let identify = parse(json!({
            "token": "Bot secret", "intents": 513, "shard": null, "presence": null, "compress": "yes",
            "properties": [], "large_threshold": "many", "guild_subscriptions": true, "capabilities": {},
        }))
        .unwrap();
        assert_eq!(identify.token.expose(), "secret");
        assert_eq!((identify.intents, identify.shard), (513, None));
        assert_eq!((identify.compress, identify.large_threshold), (false, 50));
        assert!(identify.presence.is_none());
    }

    #[test]
    fn what_discord_cares_about_gets_its_code() {
        let code = |data| parse(data).unwrap_err().code;
        assert_eq!(code(json!([])), 4002);
        assert_eq!(code(json!({"intents": 1})), 4002);
        assert_eq!(code(json!({"token": "t"})), 4013);
        assert_eq!(code(json!({"token": "t", "intents": -1})), 4013);
        assert_eq!(code(json!({"token": "t", "intents": []})), 4002);
        for shard in [
            json!([1, 1]),
            json!([0]),
            json!([-1, 2]),
            json!("0"),
            json!([0, 0]),
            json!([0.5, 2]),
            json!([0, 1_000_001]),
        ] {
            assert_eq!(code(json!({"token": "t", "intents": 1, "shard": shard})), 4010, "{shard}");
        }
    }

    #[test]
    fn resume_needs_a_session_and_a_sequence() {
        let resume = |data: Value| Resume::parse(&data);
        let parsed = resume(json!({"token": "t", "session_id": "s", "seq": 7})).unwrap();
        assert_eq!((parsed.session_id.as_str(), parsed.sequence), ("s", 7));
        assert_eq!(resume(json!({"token": "t", "session_id": "s", "seq": -1})).unwrap_err().code, 4007);
        assert_eq!(resume(json!({"token": "t", "session_id": "s", "seq": "7"})).unwrap_err().code, 4007);
        assert_eq!(resume(json!({"session_id": "s", "seq": 1})).unwrap_err().code, 4002);
        let lost = resume(json!({"token": "t", "session_id": null, "seq": null})).unwrap();
        assert_eq!((lost.session_id.as_str(), lost.sequence), ("", 0));
    }

    fn parse(data: Value) -> Result<Identify, Refused> {
        Identify::parse(&data)
    }
}
