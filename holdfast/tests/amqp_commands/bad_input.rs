// SPDX-License-Identifier: AGPL-3.0-only
//! Commands that can't be done, and messages that are none: each gets its reason, and the service goes on.

use holdfast_broker::{HEADER_REASON, Message, Names, RequestError};
use holdfast_contract::{
    Body,
    v1::{
        Activity, Command, GetGuild, Priority, Raw, RequestChannelInfo, RequestGuildMembers,
        RequestSoundboardSounds, UpdatePresence, UpdateVoiceState,
        command::{Payload, Target},
    },
};

use crate::{
    support::{Setup, discord, within},
    worker::{Stage, message, shard_of},
};

const GUILDS: u64 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_is_refused_and_set_aside_with_the_reason() {
    let stage = Stage::start(discord(1, 2).await, Setup::default()).await;
    let mut dead = stage.dead_letters().await;
    let nonsense = Message::new(Command::TYPE, vec![0xff; 32]);
    let huge = Message::new(Command::TYPE, vec![0; 10 << 20]);
    let no_payload = Command { target: Some(shard_of(0, 1)), ..Command::default() };
    for (message, code) in [
        (nonsense, "MALFORMED"),
        (Message { properties: Default::default(), ..message(&no_payload) }, "MALFORMED"),
        (Message::new("holdfast.v1.NoSuch", vec![]), "UNSUPPORTED"),
        (huge, "TOO_LARGE"),
    ] {
        for key in ["guild", "shard.0.1"] {
            let refused = stage.worker.raw(key, message.clone()).await.expect("a reply");
            assert_eq!((refused.code(), refused.accepted), (code, false), "{key}");
            let letter = within("the dead letter", dead.next()).await.expect("a letter");
            assert_eq!(letter.message.headers.text(HEADER_REASON), Some(code));
            assert_eq!(letter.message.body, message.body);
            let queue = stage.worker.broker.names().shard_commands(0, 1, 1);
            let expected = if key == "guild" { stage.worker.broker.names().guild_commands() } else { queue };
            assert_eq!(letter.key, expected);
            letter.ack();
        }
    }
    // A command of a later version.
    let refused = stage.worker.raw("guild", message(&no_payload)).await.expect("a reply");
    assert_eq!(refused.code(), "UNSUPPORTED");
    assert_eq!(stage.holdfast.metric("holdfast_amqp_commands_in_flight").await, 0.0);
    stage.worker.to_shard([0, 1], Payload::UpdatePresence(UpdatePresence::default())).await.complete();
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_before_anything_is_sent() {
    let stage = Stage::start(discord(2, 4).await, Setup { intents: GUILDS, ..Setup::default() }).await;
    let (guild, other) = (stage.guild(0, 2), stage.guild(1, 2));
    let presence = || Payload::UpdatePresence(UpdatePresence::default());
    let voice = || Payload::UpdateVoiceState(UpdateVoiceState { channel_id: 7, ..Default::default() });
    let members = |ask| Payload::RequestGuildMembers(ask);
    let query = |query: &str| RequestGuildMembers { query: Some(query.into()), ..Default::default() };
    let raw = |opcode, data: &'static [u8]| Payload::Raw(Raw { opcode, data: data.into() });
    let sounds = |guild_ids| Payload::RequestSoundboardSounds(RequestSoundboardSounds { guild_ids });
    let long = Activity { name: "x".repeat(5_000), ..Activity::default() };
    let nameless = Activity::default();
    let activity =
        |it| Payload::UpdatePresence(UpdatePresence { activities: vec![it], ..Default::default() });
    let (here, at) = (Some(Target::GuildId(guild)), |shard, count| Some(shard_of(shard, count)));
    let unknown = guild + (4_000 << 22);
    for (target, payload, code) in [
        (None, presence(), "INVALID_TARGET"),
        (at(0, 2), voice(), "INVALID_TARGET"),
        (at(0, 2), members(query("a")), "INVALID_TARGET"),
        (Some(Target::All(Default::default())), sounds(vec![guild]), "INVALID_TARGET"),
        (at(1, 2), presence(), "WRONG_SHARD"),
        (at(0, 3), presence(), "WRONG_SHARD"),
        (Some(Target::GuildId(other)), voice(), "WRONG_SHARD"),
        (at(0, 2), sounds(vec![guild, other]), "WRONG_SHARD"),
        (Some(Target::GuildId(unknown)), voice(), "UNKNOWN_GUILD"),
        (here, sounds(vec![unknown]), "UNKNOWN_GUILD"),
        (at(0, 2), sounds(vec![]), "INVALID_ARGUMENT"),
        (here, members(RequestGuildMembers::default()), "INVALID_ARGUMENT"),
        (here, members(RequestGuildMembers { user_ids: vec![1], ..query("a") }), "INVALID_ARGUMENT"),
        (
            here,
            members(RequestGuildMembers { user_ids: vec![1; 101], ..Default::default() }),
            "INVALID_ARGUMENT",
        ),
        (here, members(query("")), "MISSING_INTENT"),
        (here, members(RequestGuildMembers { presences: true, ..query("a") }), "MISSING_INTENT"),
        (here, Payload::RequestChannelInfo(RequestChannelInfo::default()), "INVALID_ARGUMENT"),
        (at(0, 2), activity(nameless), "INVALID_ARGUMENT"),
        (at(0, 2), activity(long), "TOO_LARGE"),
        (at(0, 2), raw(2, b"{}"), "FORBIDDEN"),
        (at(0, 2), raw(7, b"{}"), "REFUSED_BY_DISCORD"),
        (at(0, 2), raw(3, b"{"), "INVALID_ARGUMENT"),
        // Another opcode smuggled in.
        (at(0, 2), raw(3, br#"{},"op":2"#), "INVALID_ARGUMENT"),
    ] {
        let command =
            Command { target, payload: Some(payload), priority: Priority::High.into(), ..Command::default() };
        let refused = stage.worker.send("shard.0.2", command.clone()).await;
        assert_eq!((refused.code(), refused.accepted), (code, false), "{command:?}: {refused:?}");
    }
    let strange =
        Command { application: 5, target: at(0, 2), payload: Some(presence()), ..Command::default() };
    assert_eq!(stage.worker.send("shard.0.2", strange).await.code(), "WRONG_APPLICATION");
    stage.discord.outage(guild);
    crate::support::until("the outage is known", async || {
        stage.worker.to_guild(guild, voice()).await.last_code() == Some("GUILD_UNAVAILABLE")
    })
    .await;
    assert_eq!(
        stage
            .discord
            .records_of(None, Some(0))
            .iter()
            .filter(|sent| matches!(sent.op, Some(3 | 8 | 31 | 43)))
            .count(),
        0
    );
    assert!(stage.discord.violations().is_empty(), "{:?}", stage.discord.violations());
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_nobody_owns_is_told_at_once() {
    let setup = Setup { ws: "shards = { total = 2, start = 0, end = 1 }", ..Setup::default() };
    let stage = Stage::start(discord(2, 4).await, setup).await;
    let presence = || Payload::UpdatePresence(UpdatePresence::default());
    let command = Command { target: Some(shard_of(1, 2)), payload: Some(presence()), ..Command::default() };
    let straight = stage.worker.try_send(Names::shard_key(1, 2), &command).await;
    assert_eq!(straight.expect_err("nobody"), RequestError::NoConsumer);
    let forwarded = stage.worker.send("guild", command).await;
    assert_eq!((forwarded.code(), forwarded.refused().message.contains("shard 1 of 2")), ("NO_OWNER", true));
    assert_eq!(stage.worker.to_guild(stage.guild(1, 2), presence()).await.code(), "NO_OWNER");
    stage.worker.to_guild(stage.guild(0, 2), presence()).await.complete();
    stage.end().await;
}

/// One type of request in the queue of another.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_among_commands_by_guild_is_no_command() {
    let stage = Stage::start(discord(1, 2).await, Setup::default()).await;
    let refused = stage.worker.raw("guild", message(&GetGuild::default())).await.expect("a reply");
    assert_eq!(refused.code(), "UNSUPPORTED");
    stage.end().await;
}
