// SPDX-License-Identifier: AGPL-3.0-only
//! READY's data: taken from Discord, given to clients with their own session in it.
//!
//! In: the `d` of upstream's READY. Out: the `d` for a client. Fields that nobody here knows stay.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

/// READY's data as Discord sent it.
#[derive(Clone)]
pub(crate) struct Ready {
    fields: BTreeMap<String, Box<RawValue>>,
    /// Id of the bot's user.
    pub(crate) user: u64,
    /// Ids of the guilds that the session holds.
    pub(crate) guilds: Vec<u64>,
}

/// READY can't be used.
#[derive(Debug, thiserror::Error)]
#[error("READY's data can't be read: {0}")]
pub(crate) struct ReadyError(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Identified {
    id: String,
}

/// What stands in a client's READY instead of what upstream said.
pub(crate) struct ForClient<'a> {
    pub(crate) session_id: &'a str,
    pub(crate) resume_url: &'a str,
    pub(crate) shard: Option<[u32; 2]>,
    /// Ids of all guilds, each to follow as GUILD_CREATE or to stay unavailable.
    pub(crate) guilds: &'a [u64],
}

impl Ready {
    /// Takes READY's `d`.
    pub(crate) fn parse(data: &[u8]) -> Result<Self, ReadyError> {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(data)?;
        let user = match fields.get("user") {
            Some(user) => snowflake(&serde_json::from_str::<Identified>(user.get())?.id),
            None => 0,
        };
        let guilds: Vec<Identified> = match fields.get("guilds") {
            Some(guilds) => serde_json::from_str(guilds.get())?,
            None => Vec::new(),
        };
        let guilds = guilds.iter().map(|guild| snowflake(&guild.id)).collect();
        Ok(Self { fields, user, guilds })
    }

    /// Id of the bot's application; its user's where READY has none.
    pub(crate) fn application(&self) -> u64 {
        let application = self.fields.get("application");
        let application = application.and_then(|it| serde_json::from_str::<Identified>(it.get()).ok());
        application.map_or(self.user, |application| snowflake(&application.id))
    }

    /// The data to be stored. It holds the session id: a secret.
    pub(crate) fn stored(&self) -> String {
        serde_json::to_string(&self.fields).unwrap_or_default()
    }

    /// READY with another `user`, after USER_UPDATE.
    pub(crate) fn with_user(&self, user: &[u8]) -> Option<Self> {
        let user: Box<RawValue> = serde_json::from_slice(user).ok()?;
        let mut ready = self.clone();
        ready.fields.insert("user".into(), user);
        Some(ready)
    }

    /// READY's `d` for a client.
    pub(crate) fn for_client(&self, client: &ForClient<'_>) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(serde::Serialize)]
        struct Unavailable {
            id: String,
            unavailable: bool,
        }
        let unavailable = |id: &u64| Unavailable { id: id.to_string(), unavailable: true };
        let guilds: Vec<_> = client.guilds.iter().map(unavailable).collect();
        let mut own = BTreeMap::from([
            ("session_id", to_raw_value(client.session_id)?),
            ("resume_gateway_url", to_raw_value(client.resume_url)?),
            ("guilds", to_raw_value(&guilds)?),
        ]);
        if let Some(shard) = client.shard {
            own.insert("shard", to_raw_value(&shard)?);
        }
        // Discord leaves `shard` out for a client that named none.
        let kept = |name: &str| !own.contains_key(name) && name != "shard";
        let fields: BTreeMap<&str, &RawValue> = self
            .fields
            .iter()
            .filter(|(name, _)| kept(name))
            .map(|(name, value)| (name.as_str(), &**value))
            .chain(own.iter().map(|(name, value)| (*name, &**value)))
            .collect();
        serde_json::to_vec(&fields)
    }
}

fn snowflake(id: &str) -> u64 {
    id.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_client_gets_its_own_session_and_everything_unknown() {
        let ready = Ready::parse(UPSTREAM).unwrap();
        assert_eq!((ready.user, ready.guilds.as_slice()), (7, &[1_u64, 2][..]));
        let client =
            ForClient { session_id: "ours", resume_url: "ws://here", shard: Some([0, 1]), guilds: &[2, 3] };
        let data: Value = serde_json::from_slice(&ready.for_client(&client).unwrap()).unwrap();
        assert_eq!(
            data,
            json!({
                "v": 10, "user": {"id": "7", "new": null}, "unknown": {"x": null},
                "session_id": "ours", "resume_gateway_url": "ws://here", "shard": [0, 1],
                "guilds": [{"id": "2", "unavailable": true}, {"id": "3", "unavailable": true}],
            })
        );
    }

    #[test]
    fn a_client_without_shard_sees_none() {
        let client = ForClient { session_id: "s", resume_url: "u", shard: None, guilds: &[] };
        let data = Ready::parse(UPSTREAM).unwrap().for_client(&client).unwrap();
        assert!(serde_json::from_slice::<Value>(&data).unwrap().get("shard").is_none());
    }

    #[test]
    fn the_user_follows_its_updates() {
        let ready = Ready::parse(UPSTREAM).unwrap().with_user(br#"{"id":"7","username":"b"}"#).unwrap();
        let again = Ready::parse(ready.stored().as_bytes()).unwrap();
        assert_eq!(again.fields["user"].get(), r#"{"id":"7","username":"b"}"#);
    }

    const UPSTREAM: &[u8] = br#"{"v":10,"user":{"id":"7","new":null},"unknown":{"x":null},"shard":[3,16],
        "guilds":[{"id":"1","unavailable":true},{"id":"2"}],"session_id":"secret","resume_gateway_url":"wss://up"}"#;
}
