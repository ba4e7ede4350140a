// SPDX-License-Identifier: AGPL-3.0-only
//! Puts an answer together from what Discord says. In: that a command is written, events, the time. Out: results for
//! the caller, and when it is the last. Pure.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use holdfast_contract::v1::{
    ChannelInfo, Error, ErrorCode, MembersChunk, SoundboardSounds, VoiceConnection, command_reply::Reply,
};
use holdfast_discord::EventKind;
use serde::Deserialize;

use super::plan::{Plan, What};
use crate::shard::Voice;

/// What has been found out.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing new.
    Nothing,
    /// A result; more follow.
    Result(Reply),
    /// The last result, if there is one.
    Last(Option<Reply>),
    /// Discord says no.
    Failed(Error),
}

/// The answer to one command, as far as it has come.
#[derive(Debug)]
pub(super) struct Collector {
    op: u64,
    /// Results that the caller got.
    pub(super) results: u32,
    /// How many there should be; 0: none, or nobody knows.
    pub(super) expected: u32,
    asks: Asks,
}

#[derive(Debug)]
enum Asks {
    Nothing,
    Join(Join),
    Leave { own_user: u64 },
    Members,
    Sounds(BTreeSet<u64>),
    ChannelInfo,
}

/// A join or move: the two halves of a voice connection.
#[derive(Debug)]
struct Join {
    guild: u64,
    channel: u64,
    own_user: u64,
    /// Session id of the latest own state, if that is in the channel.
    session: Option<String>,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    guild_id: Option<String>,
    user_id: String,
    channel_id: Option<String>,
    session_id: Option<String>,
}

#[derive(Deserialize)]
struct Server {
    token: String,
    endpoint: Option<String>,
}

#[derive(Deserialize)]
struct Chunk {
    guild_id: String,
    chunk_index: u32,
    chunk_count: u32,
}

#[derive(Deserialize)]
struct OfGuild {
    guild_id: String,
}

#[derive(Deserialize)]
struct RateLimited {
    opcode: u64,
    retry_after: f64,
}

impl Collector {
    /// How long after a matching voice state a voice server is waited for before the one that is known is taken: within
    /// a guild Discord doesn't always send it again.
    pub(super) const GRACE: Duration = Duration::from_secs(1);

    pub(super) fn new(plan: &Plan, own_user: u64) -> Self {
        let asks = match &plan.what {
            What::Presence | What::Raw(_) => Asks::Nothing,
            What::Voice { guild, channel: Some(channel) } => {
                Asks::Join(Join { guild: *guild, channel: *channel, own_user, session: None })
            }
            What::Voice { channel: None, .. } => Asks::Leave { own_user },
            What::Members { .. } => Asks::Members,
            What::Sounds(guilds) => Asks::Sounds(guilds.clone()),
            What::ChannelInfo { .. } => Asks::ChannelInfo,
        };
        let expected = match &asks {
            Asks::Nothing | Asks::Leave { .. } | Asks::Members => 0,
            Asks::Join(_) | Asks::ChannelInfo => 1,
            Asks::Sounds(guilds) => u32::try_from(guilds.len()).unwrap_or(u32::MAX),
        };
        Self { op: plan.op, results: 0, expected, asks }
    }

    /// The command is written. `voice`: the bot's connection in the guild.
    pub(super) fn written(&self, voice: Option<&Voice>) -> Step {
        let connected = voice.is_some_and(|voice| voice.state.is_some());
        match self.asks {
            Asks::Nothing => Step::Last(None),
            // Who is in no channel can't leave one: Discord says nothing.
            Asks::Leave { .. } if !connected => Step::Last(None),
            _ => Step::Nothing,
        }
    }

    /// Whether what is known of the bot's voice connection may be the answer after [`Collector::GRACE`].
    pub(super) fn has_grace(&self, voice: Option<&Voice>) -> bool {
        matches!(&self.asks, Asks::Join(join) if join.known(voice).is_some())
    }

    /// The time of grace is over.
    pub(super) fn grace(&mut self, voice: Option<&Voice>) -> Step {
        match &self.asks {
            Asks::Join(join) => {
                let known = join.known(voice).map(Reply::VoiceConnection);
                known.map_or(Step::Nothing, |connection| self.last(connection))
            }
            _ => Step::Nothing,
        }
    }

    /// An event that may be a part of the answer, by its `d`.
    pub(super) fn event(&mut self, kind: EventKind, data: Bytes) -> Step {
        match kind {
            EventKind::RateLimited => self.rate_limited(&data),
            EventKind::VoiceStateUpdate => self.voice_state(&data),
            EventKind::VoiceServerUpdate => self.voice_server(&data),
            EventKind::GuildMembersChunk => self.members(data),
            EventKind::SoundboardSounds => self.sounds(data),
            EventKind::ChannelInfo => self.channel_info(data),
            _ => Step::Nothing,
        }
    }

    fn last(&mut self, reply: Reply) -> Step {
        self.results += 1;
        Step::Last(Some(reply))
    }

    fn result(&mut self, reply: Reply, is_last: bool) -> Step {
        self.results += 1;
        if is_last { Step::Last(Some(reply)) } else { Step::Result(reply) }
    }

    fn rate_limited(&self, data: &[u8]) -> Step {
        let Ok(limited) = serde_json::from_slice::<RateLimited>(data) else { return Step::Nothing };
        if limited.opcode != self.op {
            return Step::Nothing;
        }
        let wait = Duration::try_from_secs_f64(limited.retry_after).unwrap_or_default();
        let text = format!("Discord limits opcode {}: ask again later", self.op);
        Step::Failed(Error::new(ErrorCode::RateLimited, text).after(wait))
    }

    fn voice_state(&mut self, data: &[u8]) -> Step {
        let Ok(state) = serde_json::from_slice::<State>(data) else { return Step::Nothing };
        match &mut self.asks {
            Asks::Join(join) if id(&state.user_id) == join.own_user => {
                join.session = join.session_in(&state);
                Step::Nothing
            }
            Asks::Leave { own_user } if id(&state.user_id) == *own_user && state.channel_id.is_none() => {
                Step::Last(None)
            }
            _ => Step::Nothing,
        }
    }

    /// The server that comes after the state; one before it may belong to where the bot was.
    fn voice_server(&mut self, data: &[u8]) -> Step {
        let Asks::Join(join) = &self.asks else { return Step::Nothing };
        let connection = join.session.as_ref().and_then(|session| join.connection(session, data));
        connection.map_or(Step::Nothing, |connection| self.last(Reply::VoiceConnection(connection)))
    }

    fn members(&mut self, data: Bytes) -> Step {
        let Ok(chunk) = serde_json::from_slice::<Chunk>(&data) else { return Step::Nothing };
        let Chunk { guild_id, chunk_index, chunk_count } = chunk;
        self.expected = chunk_count;
        let is_last = self.results + 1 >= chunk_count;
        let chunk = MembersChunk { guild_id: id(&guild_id), chunk_index, chunk_count, data };
        self.result(Reply::MembersChunk(chunk), is_last)
    }

    fn sounds(&mut self, data: Bytes) -> Step {
        let Ok(sounds) = serde_json::from_slice::<OfGuild>(&data) else { return Step::Nothing };
        let guild_id = id(&sounds.guild_id);
        let Asks::Sounds(guilds) = &mut self.asks else { return Step::Nothing };
        // What another asked for may have come in between.
        if !guilds.remove(&guild_id) {
            return Step::Nothing;
        }
        let is_last = guilds.is_empty();
        self.result(Reply::SoundboardSounds(SoundboardSounds { guild_id, data }), is_last)
    }

    fn channel_info(&mut self, data: Bytes) -> Step {
        let Ok(info) = serde_json::from_slice::<OfGuild>(&data) else { return Step::Nothing };
        self.last(Reply::ChannelInfo(ChannelInfo { guild_id: id(&info.guild_id), data }))
    }
}

impl Join {
    /// The session of a state that is in the channel.
    fn session_in(&self, state: &State) -> Option<String> {
        let here = state.channel_id.as_deref().is_some_and(|channel| id(channel) == self.channel)
            && state.guild_id.as_deref().is_none_or(|guild| id(guild) == self.guild);
        state.session_id.clone().filter(|_| here)
    }

    fn connection(&self, session: &str, server: &[u8]) -> Option<VoiceConnection> {
        let Server { token, endpoint } = serde_json::from_slice(server).ok()?;
        Some(VoiceConnection {
            guild_id: self.guild,
            channel_id: self.channel,
            user_id: self.own_user,
            session_id: session.to_owned(),
            token,
            // Null while Discord allocates a server: another follows.
            endpoint: endpoint?,
        })
    }

    /// The connection that the shard knows, if it is in the channel.
    fn known(&self, voice: Option<&Voice>) -> Option<VoiceConnection> {
        let voice = voice?;
        let state: State = serde_json::from_slice(voice.state.as_deref()?).ok()?;
        self.connection(&self.session_in(&state)?, voice.server.as_deref()?)
    }
}

fn id(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Priority;

    const STATE: EventKind = EventKind::VoiceStateUpdate;
    const SERVER: EventKind = EventKind::VoiceServerUpdate;

    #[test]
    fn a_join_is_complete_with_the_server_that_follows_its_own_state() {
        let mut join = collector(Some(7));
        assert_eq!(join.written(None), Step::Nothing);
        for (kind, data) in [
            // Somebody else; the channel that the bot was in; the server there; one that is being allocated.
            (STATE, state(2, Some(7))),
            (STATE, state(1, Some(6))),
            (SERVER, server(Some("old"))),
            (STATE, state(1, Some(7))),
            (SERVER, server(None)),
        ] {
            assert_eq!(join.event(kind, data), Step::Nothing);
        }
        let Step::Last(Some(Reply::VoiceConnection(connection))) = join.event(SERVER, server(Some("new")))
        else {
            panic!("{join:?}");
        };
        assert_eq!((connection.guild_id, connection.channel_id, connection.user_id), (5, 7, 1));
        assert_eq!((&*connection.session_id, &*connection.endpoint), ("s", "new"));
        assert_eq!((join.results, join.expected), (1, 1));
    }

    #[test]
    fn a_server_that_stays_is_taken_after_the_grace_and_only_in_the_channel() {
        let known = |channel, server: Option<Bytes>| Voice {
            state: Some(state(1, Some(channel)).to_vec()),
            server: server.map(|server| server.to_vec()),
            wanted: None,
        };
        let mut join = collector(Some(7));
        for unusable in [None, Some(known(6, Some(server(Some("x"))))), Some(known(7, None))] {
            assert!(!join.has_grace(unusable.as_ref()));
            assert_eq!(join.grace(unusable.as_ref()), Step::Nothing);
        }
        let there = known(7, Some(server(Some("same"))));
        assert!(join.has_grace(Some(&there)));
        assert!(matches!(join.grace(Some(&there)), Step::Last(Some(Reply::VoiceConnection(_)))));
    }

    #[test]
    fn a_leave_waits_for_its_state_unless_the_bot_is_nowhere() {
        let mut leave = collector(None);
        assert_eq!(leave.written(None), Step::Last(None));
        let there = Voice { state: Some(state(1, Some(7)).to_vec()), ..Voice::default() };
        assert_eq!(leave.written(Some(&there)), Step::Nothing);
        assert_eq!(leave.event(STATE, state(2, None)), Step::Nothing);
        assert_eq!(leave.event(STATE, state(1, None)), Step::Last(None));
    }

    #[test]
    fn a_rate_limit_counts_for_its_opcode_alone() {
        let mut join = collector(Some(7));
        let limited = |opcode| Bytes::from(format!(r#"{{"opcode":{opcode},"retry_after":1.5,"meta":{{}}}}"#));
        assert_eq!(join.event(EventKind::RateLimited, limited(8)), Step::Nothing);
        let Step::Failed(error) = join.event(EventKind::RateLimited, limited(4)) else { panic!("{join:?}") };
        assert_eq!((error.code(), error.retry_after_ms), (ErrorCode::RateLimited, 1_500));
    }

    fn collector(channel: Option<u64>) -> Collector {
        let what = What::Voice { guild: 5, channel };
        let plan = Plan { priority: Priority::High, op: 4, data: serde_json::Value::Null, what };
        Collector::new(&plan, 1)
    }

    fn state(user: u64, channel: Option<u64>) -> Bytes {
        let channel = channel.map(|channel| channel.to_string());
        let state = serde_json::json!({
            "guild_id": "5", "user_id": user.to_string(), "channel_id": channel, "session_id": "s",
        });
        Bytes::from(state.to_string())
    }

    fn server(endpoint: Option<&str>) -> Bytes {
        Bytes::from(serde_json::json!({ "guild_id": "5", "token": "t", "endpoint": endpoint }).to_string())
    }
}
