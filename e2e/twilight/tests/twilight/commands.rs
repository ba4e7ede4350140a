// SPDX-License-Identifier: AGPL-3.0-only
//! What bots send: requests for members, presences, voice states.

use std::collections::BTreeSet;

use holdfast_simulator::Simulator;
use serde_json::Value;
use twilight_gateway::Event;
use twilight_model::{
    channel::ChannelType,
    gateway::{
        payload::{
            incoming::MemberChunk,
            outgoing::{RequestGuildMembers, UpdatePresence, UpdateVoiceState},
        },
        presence::{ActivityType, MinimalActivity, Status},
    },
    id::Id,
};

use crate::{
    bot::Bot,
    stage::{BOTH, Stage},
};

#[tokio::test(flavor = "multi_thread")]
async fn members_come_under_the_nonce_of_who_asked() {
    for target in BOTH {
        let stage = Stage::of(target, 1, 2).await;
        let mut bot = stage.connected_bot(0).await;
        let guild = stage.discord.guilds(0, 1)[0];
        let request = || RequestGuildMembers::builder(Id::new(guild));
        let everybody = members(&stage.discord, guild);

        bot.shard.command(&request().nonce("all").presences(true).query("", None));
        let chunks = chunks(&mut bot, "all").await;
        assert_eq!(ids_of(&chunks), everybody.iter().map(|(id, _)| *id).collect(), "{target:?}: all");
        assert!(chunks.iter().any(|chunk| !chunk.presences.is_empty()), "{target:?}: presences");

        let (id, name) = &everybody[3];
        bot.shard.command(&request().nonce("query").query(name, Some(5)));
        let found = ids_of(&self::chunks(&mut bot, "query").await);
        assert!(found.contains(id), "{target:?}: {name} is among {found:?}");

        let three: BTreeSet<u64> = everybody.iter().take(3).map(|(id, _)| *id).collect();
        let wanted: Vec<_> = three.iter().map(|id| Id::new(*id)).chain([Id::new(17)]).collect();
        bot.shard.command(&request().nonce("ids").user_ids(wanted).expect("few enough"));
        let chunks = self::chunks(&mut bot, "ids").await;
        assert_eq!(ids_of(&chunks), three, "{target:?}: by ids");
        assert_eq!(chunks[0].not_found, [Id::new(17)], "{target:?}");
        stage.assert_well_behaved();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presence_reaches_discord_as_it_was_sent() {
    for target in BOTH {
        let stage = Stage::of(target, 1, 2).await;
        let mut bot = stage.connected_bot(0).await;
        let playing = MinimalActivity { kind: ActivityType::Playing, name: "chess".to_owned(), url: None };
        let presence = UpdatePresence::new([playing.into()], false, None, Status::Idle).expect("valid");
        bot.shard.command(&presence);
        let records = bot.meanwhile(stage.discord.wait_for_records(3, 1)).await.expect("it arrives");
        assert_eq!(records[0].d, serde_json::to_value(&presence.d).expect("JSON"), "{target:?}");
        stage.assert_well_behaved();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_joins_a_voice_channel_gets_its_credentials() {
    for target in BOTH {
        let stage = Stage::of(target, 1, 2).await;
        let mut bot = stage.bot(0);
        let (ready, guilds) = bot.connected().await;
        let guild = &guilds[0];
        let voice = guild.channels.iter().find(|channel| channel.kind == ChannelType::GuildVoice);
        let channel = voice.expect("a voice channel").id;
        bot.shard.command(&UpdateVoiceState::new(guild.id, channel, true, false));
        let state = bot.until("VOICE_STATE_UPDATE", |event| match event {
            Event::VoiceStateUpdate(state) if state.user_id == ready.user.id => Some(state),
            _ => None,
        });
        let state = state.await;
        assert_eq!((state.guild_id, state.channel_id), (Some(guild.id), Some(channel)), "{target:?}");
        assert!(state.self_deaf && !state.self_mute, "{target:?}: {state:?}");
        let server = bot.until("VOICE_SERVER_UPDATE", |event| match event {
            Event::VoiceServerUpdate(server) => Some(server),
            _ => None,
        });
        let server = server.await;
        assert_eq!(server.guild_id, guild.id, "{target:?}");
        assert!(server.endpoint.is_some() && !server.token.is_empty(), "{target:?}");
        stage.assert_well_behaved();
    }
}

/// All chunks of one answer.
async fn chunks(bot: &mut Bot, nonce: &str) -> Vec<MemberChunk> {
    let mut chunks: Vec<MemberChunk> = Vec::new();
    loop {
        let chunk = bot.until("GUILD_MEMBERS_CHUNK", |event| match event {
            Event::MemberChunk(chunk) => Some(chunk),
            _ => None,
        });
        let chunk = chunk.await;
        assert_eq!((chunk.nonce.as_deref(), chunk.chunk_index as usize), (Some(nonce), chunks.len()));
        let count = chunk.chunk_count as usize;
        chunks.push(chunk);
        if chunks.len() == count {
            return chunks;
        }
    }
}

fn ids_of(chunks: &[MemberChunk]) -> BTreeSet<u64> {
    chunks.iter().flat_map(|chunk| &chunk.members).map(|member| member.user.id.get()).collect()
}

/// Ids and names of a guild's members, in the order of their ids.
fn members(discord: &Simulator, guild: u64) -> Vec<(u64, String)> {
    let guild = discord.guild(guild).expect("a guild of the world");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let members = guild["members"].as_array().expect("members").iter();
    let members = members.map(|member| {
        let user = &member["user"];
        (text(&user["id"]).parse().expect("an id"), text(&user["username"]))
    });
    let mut members: Vec<_> = members.collect();
    members.sort_unstable();
    members
}
