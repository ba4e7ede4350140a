// SPDX-License-Identifier: AGPL-3.0-only
//! The bot's own voice connections as this shard has seen them.
//!
//! In: own VOICE_STATE_UPDATEs, VOICE_SERVER_UPDATEs, op 4 from clients. Out: what a client that comes back
//! gets again, and what is sent upstream anew when Discord has begun a new session. Pure.

use std::collections::HashMap;

use holdfast_discord::EventKind;
use serde::Deserialize;

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

impl VoiceStates {
    /// An event of kind VOICE_STATE_UPDATE or VOICE_SERVER_UPDATE; others are none of ours.
    pub(crate) fn note(&mut self, kind: EventKind, guild: u64, own_user: u64, data: &[u8]) {
        match kind {
            EventKind::VoiceStateUpdate => self.state(guild, own_user, data),
            EventKind::VoiceServerUpdate => self.server(guild, data),
            _ => {}
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

    /// The bot's connections: complete ones can be handed to a client again, others must be asked anew.
    pub(crate) fn connected(&self) -> impl Iterator<Item = &Voice> {
        self.by_guild.values().filter(|voice| voice.state.is_some())
    }

    /// Discord has begun a new session: what it said of the old one is stale.
    pub(crate) fn new_session(&mut self) {
        self.by_guild.retain(|_, voice| voice.wanted.is_some());
        for voice in self.by_guild.values_mut() {
            voice.state = None;
            voice.server = None;
        }
    }

    fn state(&mut self, guild: u64, own_user: u64, data: &[u8]) {
        let Ok(state) = serde_json::from_slice::<StateFields<'_>>(data) else { return };
        if state.user_id.parse() != Ok(own_user) {
            return;
        }
        if state.channel_id.is_none() {
            self.by_guild.remove(&guild);
            return;
        }
        self.by_guild.entry(guild).or_default().state = Some(data.to_vec());
    }

    fn server(&mut self, guild: u64, data: &[u8]) {
        let Ok(server) = serde_json::from_slice::<ServerFields<'_>>(data) else { return };
        // A null endpoint: the voice server has gone away and a new one is being allocated.
        let usable = server.endpoint.is_some();
        self.by_guild.entry(guild).or_default().server = usable.then(|| data.to_vec());
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

    const JOINED: &[u8] = br#"{"user_id":"1","channel_id":"7","session_id":"s"}"#;
    const SERVER: &[u8] = br#"{"token":"t","endpoint":"voice.example:443"}"#;

    fn connected() -> VoiceStates {
        let mut voice = VoiceStates::default();
        voice.note(EventKind::VoiceStateUpdate, 5, 1, JOINED);
        voice.note(EventKind::VoiceServerUpdate, 5, 1, SERVER);
        voice
    }
}
