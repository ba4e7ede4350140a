// SPDX-License-Identifier: AGPL-3.0-only
//! Every kind of command, done.

use std::collections::BTreeSet;

use holdfast_contract::v1::{
    Activity, Raw, RequestChannelInfo, RequestGuildMembers, RequestSoundboardSounds, UpdatePresence,
    UpdateVoiceState, VoiceConnection, command::Payload, command_reply::Reply,
};
use holdfast_simulator::{BOT_USER, WorldSpec};
use serde_json::{Value, json};

use crate::{
    support::{Setup, discord, discord_of},
    worker::{Answered, Stage},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_presence_is_set_on_one_shard_or_on_all() {
    let stage = Stage::start(discord(2, 4).await, Setup::default()).await;
    let activity = Activity { name: "chess".into(), r#type: 3, ..Activity::default() };
    let presence =
        UpdatePresence { status: "idle".into(), activities: vec![activity], since_ms: Some(17), afk: true };
    let one = stage.worker.to_shard([1, 2], Payload::UpdatePresence(presence)).await;
    assert_eq!((one.complete().len(), one.shard), (0, (1, 2)));
    let sent = stage.discord.wait_for_records(3, 1).await.expect("op 3").remove(0);
    assert_eq!(sent.shard, Some([1, 2]));
    let activities = json!([{ "name": "chess", "type": 3 }]);
    assert_eq!(sent.d, json!({ "status": "idle", "activities": activities, "since": 17, "afk": true }));

    let all = stage.worker.to_all(2, Payload::UpdatePresence(UpdatePresence::default())).await;
    assert_eq!(
        all.iter().map(|one| (one.complete().len(), one.shard)).collect::<Vec<_>>(),
        [(0, (0, 2)), (0, (1, 2))]
    );
    stage.discord.wait_for_records(3, 3).await.expect("op 3 of both");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_channel_is_joined_changed_and_left() {
    let stage = Stage::start(discord(2, 4).await, Setup::default()).await;
    let guild = stage.guild(1, 2);
    let voice = |channel_id| {
        Payload::UpdateVoiceState(UpdateVoiceState { channel_id, self_deaf: true, self_mute: false })
    };
    for channel in [7, 8, 8] {
        let joined = stage.worker.to_guild(guild, voice(channel)).await;
        let [Reply::VoiceConnection(connection)] = joined.complete() else { panic!("{joined:?}") };
        let VoiceConnection { guild_id, channel_id, user_id, session_id, token, endpoint } = connection;
        assert_eq!((*guild_id, *channel_id, *user_id), (guild, channel, BOT_USER));
        assert!(!session_id.is_empty() && token.len() == 16, "{connection:?}");
        assert_eq!(endpoint, "rotterdam-sim.discord.media:443");
    }
    assert!(stage.worker.to_guild(guild, voice(0)).await.complete().is_empty());
    // In no channel any more: Discord has nothing to say to this.
    assert!(stage.worker.to_guild(guild, voice(0)).await.complete().is_empty());
    let channels: Vec<_> = stage.discord.records(4).iter().map(|sent| sent.d["channel_id"].clone()).collect();
    assert_eq!(channels, [json!("7"), json!("8"), json!("8"), Value::Null, Value::Null]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_in_chunks_from_discord_or_from_the_state() {
    for cache in ["members = false", "members = true, presences = true"] {
        let world = WorldSpec { guilds: 2, members: 2_300, ..WorldSpec::default() };
        let stage =
            Stage::start(discord_of(1, world, |_| {}).await, Setup { cache, ..Setup::default() }).await;
        let guild = stage.guild(0, 1);
        let all = RequestGuildMembers { query: Some(String::new()), presences: true, ..Default::default() };
        let all = stage.worker.to_guild(guild, Payload::RequestGuildMembers(all)).await;
        assert_eq!(all.done().expected, 3);
        let chunks = chunks(&all, guild, 3);
        let tree = stage.discord.guild(guild).expect("a guild");
        assert_eq!(ids(&chunks), ids(&[tree]), "{cache}");

        let wanted: Vec<u64> = ids(&chunks).iter().take(2).map(|id| id.parse().expect("an id")).collect();
        let some =
            RequestGuildMembers { user_ids: [wanted.clone(), vec![17]].concat(), ..Default::default() };
        let some = stage.worker.to_guild(guild, Payload::RequestGuildMembers(some)).await;
        let some = self::chunks(&some, guild, 1);
        assert_eq!((ids(&some).len(), &some[0]["not_found"]), (2, &json!(["17"])), "{cache}");
        let asked = stage.discord.records(8).len();
        // GUILD_CREATE has only a part of so many members: what came first made the state complete.
        assert_eq!(asked, if cache.contains("true") { 1 } else { 2 });
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sounds_and_channel_infos_come_as_discord_sends_them() {
    let stage = Stage::start(discord(2, 6).await, Setup::default()).await;
    let guilds = stage.discord.guilds(0, 2);
    let payload = |guild_ids| Payload::RequestSoundboardSounds(RequestSoundboardSounds { guild_ids });
    let one = stage.worker.to_guild(guilds[0], payload(vec![])).await;
    assert_eq!(sounds(&one), BTreeSet::from([guilds[0]]));
    let all = stage.worker.to_shard([0, 2], payload(guilds.clone())).await;
    assert_eq!(sounds(&all), guilds.iter().copied().collect());

    let fields = vec!["status".to_owned(), "voice_start_time".to_owned()];
    let info = Payload::RequestChannelInfo(RequestChannelInfo { fields });
    let info = stage.worker.to_guild(guilds[1], info).await;
    let [Reply::ChannelInfo(info)] = info.complete() else { panic!("{info:?}") };
    let data: Value = serde_json::from_slice(&info.data).expect("JSON");
    assert_eq!((info.guild_id, &data["guild_id"]), (guilds[1], &json!(guilds[1].to_string())));
    assert!(data["channels"].is_array(), "{data}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_payload_goes_out_as_it_is_and_one_that_discord_refuses_only_once() {
    let stage = Stage::start(discord(1, 2).await, Setup::default()).await;
    let raw = |opcode, data: &'static str| Payload::Raw(Raw { opcode, data: data.into() });
    let data = r#"{"status":"dnd","activities":[],"since":null,"afk":false,"new": "field"}"#;
    stage.worker.to_shard([0, 1], raw(3, data)).await.complete();
    let sent = stage.discord.wait_for_records(3, 1).await.expect("op 3").remove(0);
    assert_eq!(sent.d, serde_json::from_str::<Value>(data).expect("JSON"));

    stage.worker.to_guild(stage.guild(0, 1), raw(300, "17")).await.complete();
    stage.discord.wait_for_records(300, 1).await.expect("the opcode reaches Discord");
    crate::support::until("the opcode is known to be refused", async || {
        stage.worker.to_shard([0, 1], raw(300, "18")).await.last_code() == Some("REFUSED_BY_DISCORD")
    })
    .await;
    stage.end().await;
}

/// Several workers, several commands at a time: each gets what it asked for, in order.
#[tokio::test(flavor = "multi_thread")]
async fn callers_do_not_get_each_others_answers() {
    let setup = Setup { cache: "members = false", ..Setup::default() };
    let stage = Stage::start(discord(2, 8).await, setup).await;
    let asked = (0..40).map(|number| {
        let worker = stage.worker.clone();
        let shard = number % 2;
        let guild = stage.discord.guilds(shard, 2)[number as usize / 2 % 4];
        tokio::spawn(async move {
            let query = RequestGuildMembers { query: Some("a".into()), limit: 5, ..Default::default() };
            match number % 3 {
                0 => {
                    drop(chunks(&worker.to_guild(guild, Payload::RequestGuildMembers(query)).await, guild, 1))
                }
                1 => {
                    let fields = vec!["status".to_owned()];
                    let info = Payload::RequestChannelInfo(RequestChannelInfo { fields });
                    let info = worker.to_guild(guild, info).await;
                    assert!(matches!(info.complete(), [Reply::ChannelInfo(info)] if info.guild_id == guild));
                }
                _ => {
                    let all = Payload::RequestSoundboardSounds(RequestSoundboardSounds::default());
                    assert_eq!(sounds(&worker.to_guild(guild, all).await), BTreeSet::from([guild]));
                }
            }
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        asked.await.expect("answered");
    }
    assert_eq!(stage.holdfast.metric("holdfast_amqp_commands_in_flight").await, 0.0);
    assert!(stage.holdfast.metric("holdfast_amqp_commands_forwarded_total").await >= 40.0);
    stage.end().await;
}

/// The data of all chunks, which must be all there are, in order.
fn chunks(answered: &Answered, guild: u64, count: u32) -> Vec<Value> {
    let chunks = (0..).zip(answered.complete()).map(|(index, result)| {
        let Reply::MembersChunk(chunk) = result else { panic!("{result:?}") };
        assert_eq!((chunk.guild_id, chunk.chunk_index, chunk.chunk_count), (guild, index, count));
        serde_json::from_slice(&chunk.data).expect("JSON")
    });
    let chunks: Vec<Value> = chunks.collect();
    assert_eq!(chunks.len(), count as usize);
    chunks
}

fn ids(chunks: &[Value]) -> BTreeSet<String> {
    let members = chunks.iter().flat_map(|chunk| chunk["members"].as_array().expect("members"));
    members.map(|member| member["user"]["id"].as_str().expect("an id").to_owned()).collect()
}

fn sounds(answered: &Answered) -> BTreeSet<u64> {
    let sounds = answered.complete().iter().map(|result| {
        let Reply::SoundboardSounds(sounds) = result else { panic!("{result:?}") };
        let data: Value = serde_json::from_slice(&sounds.data).expect("JSON");
        assert_eq!(data["guild_id"], json!(sounds.guild_id.to_string()));
        assert!(data["soundboard_sounds"].is_array(), "{data}");
        sounds.guild_id
    });
    sounds.collect()
}
