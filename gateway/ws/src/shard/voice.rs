// SPDX-License-Identifier: AGPL-3.0-only
//! The bot's own voice connections as this shard has seen them.
//!
//! In: own VOICE_STATE_UPDATEs, VOICE_SERVER_UPDATEs, op 4 from clients. Out: what a client that comes back
//! gets again, and what is sent upstream anew when Discord has begun a new session. Pure.

use std::collections::HashMap;

use holdfast_discord::EventKind;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One guild's voice connection: the `d` of the two events that it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Voice {
    /// Last own VOICE_STATE_UPDATE.
    pub(crate) state: Option<Vec<u8>>,
    /// VOICE_SERVER_UPDATE that belongs to it; none while Discord is moving the call.
    pub(crate) server: Option<Vec<u8>>,
    /// Last op 4 that a client sent, whole.
    pub(crate) wanted: Option<Vec<u8>>,
}

/// What survives a restart: JSON in JSON, by guild.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Stored(HashMap<u64, StoredVoice>);

#[derive(Serialize, Deserialize)]
struct StoredVoice {
    state: Option<Box<RawValue>>,
    server: Option<Box<RawValue>>,
    wanted: Option<Box<RawValue>>,
}

/// All voice connections of a shard by guild.
#[derive(Debug, Default)]
pub(crate) struct VoiceStates {
    by_guild: HashMap<u64, Voice>,
}

#[derive(Deserialize)]
struct StateFields<'a> {
    #[serde(borrow)]
    user_id: &'a str,
    channel_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct ServerFields<'a> {
    #[serde(borrow)]
    endpoint: Option<&'a str>,
}

impl Stored {
    /// The op 4 payloads that put the bot back where clients wanted it, by guild.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.0.iter().filter_map(|(guild, voice)| Some((*guild, voice.wanted.as_ref()?.get().as_bytes())))
    }
}

impl VoiceStates {
    /// An event of kind VOICE_STATE_UPDATE or VOICE_SERVER_UPDATE; others are none of ours. True: it was the
    /// bot's own.
    pub(crate) fn note(&mut self, kind: EventKind, guild: u64, own_user: u64, data: &[u8]) -> bool {
        match kind {
            EventKind::VoiceStateUpdate => self.state(guild, own_user, data),
            EventKind::VoiceServerUpdate => self.server(guild, data),
            _ => false,
        }
    }

    /// A client sends op 4.
    pub(crate) fn want(&mut self, guild: u64, connected: bool, payload: &[u8]) {
        if connected {
            self.by_guild.entry(guild).or_default().wanted = Some(payload.to_vec());
        } else if let Some(voice) = self.by_guild.get_mut(&guild) {
            voice.wanted = None;
        }
    }

    /// The op 4 payloads that put the bot back where clients wanted it.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.by_guild.values().filter_map(|voice| voice.wanted.as_ref())
    }

    /// The bot's connection in a guild, as far as it is known.
    pub(crate) fn of(&self, guild: u64) -> Option<&Voice> {
        self.by_guild.get(&guild)
    }

    /// The bot's connections: complete ones can be handed to a client again, others must be asked anew.
    pub(crate) fn connected(&self) -> impl Iterator<Item = &Voice> {
        self.by_guild.values().filter(|voice| voice.state.is_some())
    }

    /// What is to be stored. It holds voice servers' tokens: secrets.
    pub(crate) fn stored(&self) -> Stored {
        let raw = |json: &Option<Vec<u8>>| serde_json::from_slice(json.as_deref()?).ok();
        let one = |voice: &Voice| StoredVoice {
            state: raw(&voice.state),
            server: raw(&voice.server),
            wanted: raw(&voice.wanted),
        };
        Stored(self.by_guild.iter().map(|(guild, voice)| (*guild, one(voice))).collect())
    }

    /// Takes over what was stored.
    pub(crate) fn restore(&mut self, stored: Stored) {
        let bytes = |json: Option<Box<RawValue>>| json.map(|json| json.get().as_bytes().to_vec());
        for (guild, voice) in stored.0 {
            let voice =
                Voice { state: bytes(voice.state), server: bytes(voice.server), wanted: bytes(voice.wanted) };
            self.by_guild.insert(guild, voice);
        }
    }

    /// Discord has begun a new session: what it said of the old one is stale.
    pub(crate) fn new_session(&mut self) {
        self.by_guild.retain(|_, voice| voice.wanted.is_some());
        for voice in self.by_guild.values_mut() {
            voice.state = None;
            voice.server = None;
        }
    }

    fn state(&mut self, guild: u64, own_user: u64, data: &[u8]) -> bool {
        let Ok(state) = serde_json::from_slice::<StateFields<'_>>(data) else { return false };
        if state.user_id.parse() != Ok(own_user) {
            return false;
        }
        if state.channel_id.is_none() {
            self.by_guild.remove(&guild);
            return true;
        }
        self.by_guild.entry(guild).or_default().state = Some(data.to_vec());
        true
    }

    fn server(&mut self, guild: u64, data: &[u8]) -> bool {
        let Ok(server) = serde_json::from_slice::<ServerFields<'_>>(data) else { return false };
        // A null endpoint: the voice server has gone away and a new one is being allocated.
        let usable = server.endpoint.is_some();
        self.by_guild.entry(guild).or_default().server = usable.then(|| data.to_vec());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_are_kept_until_the_bot_leaves() {
        let mut voice = connected();
        assert_eq!(
            voice.connected().collect::<Vec<_>>(),
            [&Voice { state: Some(JOINED.to_vec()), server: Some(SERVER.to_vec()), wanted: None }]
        );
        voice.note(EventKind::VoiceStateUpdate, 5, 1, br#"{"user_id":"1","channel_id":null}"#);
        assert_eq!(voice.connected().count(), 0);
    }

    #[test]
    fn others_do_not_count() {
        let mut voice = VoiceStates::default();
        voice.note(EventKind::VoiceStateUpdate, 5, 2, JOINED);
        assert_eq!(voice.connected().count(), 0);
    }

    #[test]
    fn a_server_that_went_away_is_stale() {
        let mut voice = connected();
        voice.note(EventKind::VoiceServerUpdate, 5, 1, br#"{"token":"t","endpoint":null}"#);
        assert!(voice.connected().all(|voice| voice.server.is_none()));
    }

    #[test]
    fn what_clients_wanted_outlives_the_session() {
        let mut voice = connected();
        voice.want(5, true, b"join");
        voice.want(6, true, b"join too");
        voice.want(6, false, b"leave");
        voice.new_session();
        assert_eq!(voice.connected().count(), 0);
        assert_eq!(voice.wanted().collect::<Vec<_>>(), [b"join"]);
    }

    #[test]
    fn connections_survive_being_stored() {
        let mut voice = connected();
        voice.want(5, true, br#"{"op":4}"#);
        let stored = serde_json::to_string(&voice.stored()).unwrap();
        let mut restored = VoiceStates::default();
        restored.restore(serde_json::from_str(&stored).unwrap());
        assert_eq!(restored.by_guild, voice.by_guild);
    }

    const JOINED: &[u8] = br#"{"user_id":"1","channel_id":"7","session_id":"s"}"#;
    const SERVER: &[u8] = br#"{"token":"t","endpoint":"voice.example:443"}"#;

    fn connected() -> VoiceStates {
        let mut voice = VoiceStates::default();
        voice.note(EventKind::VoiceStateUpdate, 5, 1, JOINED);
        voice.note(EventKind::VoiceServerUpdate, 5, 1, SERVER);
        voice
    }
}
