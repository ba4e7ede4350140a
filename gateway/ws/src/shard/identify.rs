// SPDX-License-Identifier: AGPL-3.0-only
//! What a shard sends Discord about itself: IDENTIFY, and which opcodes are known.
//!
//! In: settings, the last presence that a client set. Out: payloads. Pure.

use holdfast_discord::presence;
use holdfast_service::Secret;
use serde_json::{Value, json};

/// "Unknown opcode", of Discord's close codes.
pub(super) const UNKNOWN_OPCODE: u16 = 4001;

/// The most that Discord allows: members come with GUILD_CREATE for guilds up to this size ("Identify Structure").
const LARGE_THRESHOLD: u32 = 250;

/// What a shard says of itself in IDENTIFY.
pub(crate) struct Identity {
    pub(crate) token: Secret,
    pub(crate) intents: u64,
    /// Presence with `{{shard}}` in it; none: Discord's default.
    pub(crate) presence: Option<Value>,
}

impl Identity {
    /// What a session depends on, hashed: one that was begun with another token or other intents can't go on.
    pub(crate) fn settings(&self) -> String {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(format!("{}\n{}", self.token.expose(), self.intents));
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// IDENTIFY for a shard. `set`: the last op 3 that a client sent, whole; it goes before the settings'.
    pub(super) fn payload(&self, (shard, total): (u32, u32), set: Option<&[u8]>) -> Vec<u8> {
        let set = set.and_then(|payload| serde_json::from_slice::<Value>(payload).ok());
        let presence = set
            .and_then(|mut payload| payload.get_mut("d").map(Value::take))
            .or_else(|| Some(presence::render(self.presence.as_ref()?, shard)));
        let mut data = json!({
            "token": self.token.expose(),
            "intents": self.intents,
            "shard": [shard, total],
            "large_threshold": LARGE_THRESHOLD,
            "compress": false,
            "properties": { "os": std::env::consts::OS, "browser": "holdfast", "device": "holdfast" },
        });
        if let (Some(presence), Some(fields)) = (presence, data.as_object_mut()) {
            fields.insert("presence".into(), presence);
        }
        json!({ "op": 2, "d": data }).to_string().into_bytes()
    }
}

/// A payload's opcode, if it is none of those that the documentation names.
pub(super) fn unknown_opcode(payload: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Opcode {
        op: u64,
    }
    let opcode = serde_json::from_slice::<Opcode>(payload).ok()?.op;
    (![3, 4, 8, 31, 43].contains(&opcode)).then_some(opcode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presence_is_the_clients_last_or_the_settings() {
        let identity = Identity {
            token: Secret::new("t"),
            intents: 1,
            presence: Some(json!({ "status": "idle", "activities": [{ "name": "shard {{shard}}" }] })),
        };
        let payload = |set| serde_json::from_slice::<Value>(&identity.payload((3, 4), set)).unwrap();
        let own = payload(None);
        assert_eq!(own["d"]["presence"]["activities"][0]["name"], "shard 3");
        assert_eq!(own["d"]["shard"], json!([3, 4]));
        let set = payload(Some(br#"{"op":3,"d":{"status":"dnd"}}"#));
        assert_eq!(set["d"]["presence"], json!({ "status": "dnd" }));
    }

    #[test]
    fn opcodes_that_nobody_documents_are_unknown() {
        assert_eq!(unknown_opcode(br#"{"op":8,"d":{}}"#), None);
        assert_eq!(unknown_opcode(br#"{"op":300,"d":{}}"#), Some(300));
    }
}
