// SPDX-License-Identifier: AGPL-3.0-only
//! What time and Discord's limits do to commands.

use std::time::Duration;

use holdfast_contract::v1::{
    Command, Outcome, Priority, RequestGuildMembers, UpdatePresence, UpdateVoiceState, command::Payload,
    command_reply::Reply,
};
use holdfast_discord::limits::SendBudget;
use holdfast_simulator::{Cut, Fault, FaultKind};

use crate::{
    support::{Setup, discord, until},
    worker::{Stage, in_ms, shard_of},
};

fn presence(status: &str) -> Payload {
    Payload::UpdatePresence(UpdatePresence { status: status.into(), ..Default::default() })
}

fn of_shard(payload: Payload) -> Command {
    Command { target: Some(shard_of(0, 1)), payload: Some(payload), ..Command::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_asked_for_too_often_say_when_to_ask_again() {
    let setup = Setup { cache: "members = false", ..Setup::default() };
    let stage = Stage::start(discord(1, 2).await, setup).await;
    let guild = stage.guild(0, 1);
    let all = || {
        let all = RequestGuildMembers { query: Some(String::new()), ..Default::default() };
        stage.worker.to_guild(guild, Payload::RequestGuildMembers(all))
    };
    assert_eq!(all().await.complete().len(), 1);
    let limited = all().await;
    assert_eq!((limited.code(), limited.accepted), ("RATE_LIMITED", true));
    let wait = Duration::from_millis(limited.refused().retry_after_ms);
    assert!(wait > Duration::from_secs(20) && wait <= Duration::from_secs(30), "{wait:?}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_has_passed_is_refused_and_one_that_passes_ends_the_wait() {
    let stage = Stage::start(discord(1, 2).await, Setup::default()).await;
    let guild = stage.guild(0, 1);
    for key in ["guild", "shard.0.1"] {
        let late = Command { deadline_ms: 1_000, ..of_shard(presence("idle")) };
        let late = stage.worker.send(key, late).await;
        assert_eq!((late.code(), late.accepted), ("DEADLINE_EXCEEDED", false), "{key}");
    }
    assert_eq!(stage.holdfast.metric("holdfast_amqp_commands_expired_total").await, 2.0);
    assert!(stage.discord.records(3).is_empty());
    // Discord hears nothing, so it says nothing.
    stage.discord.fault(&Fault::new(0, FaultKind::SlowRead));
    let voice = Payload::UpdateVoiceState(UpdateVoiceState { channel_id: 7, ..Default::default() });
    let join = Command {
        target: Some(holdfast_contract::v1::command::Target::GuildId(guild)),
        deadline_ms: in_ms(500),
        payload: Some(voice),
        ..Command::default()
    };
    let join = stage.worker.send("guild", join).await;
    let done = join.done();
    assert_eq!((done.outcome(), done.results, done.expected), (Outcome::TimedOut, 0, 1));
    stage.discord.clear_faults();
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_discord_may_have_done_when_the_connection_went_is_not_called_undone() {
    let stage = Stage::start(discord(1, 2).await, Setup::default()).await;
    let guild = stage.guild(0, 1);
    stage.discord.fault(&Fault::new(0, FaultKind::SlowRead));
    let worker = stage.worker.clone();
    let voice = Payload::UpdateVoiceState(UpdateVoiceState { channel_id: 7, ..Default::default() });
    let asking = tokio::spawn(async move { worker.to_guild(guild, voice).await });
    let mut sent = 0.0;
    until("the command is sent", async || {
        sent = stage.holdfast.metric("holdfast_ws_commands_sent_total").await;
        sent == 1.0
    })
    .await;
    stage.discord.clear_faults();
    stage.discord.cut(0, Cut::Rst);
    let interrupted = asking.await.expect("an answer");
    // Discord may have read it before it was cut off.
    if let Reply::Rejected(_) = interrupted.last {
        assert_eq!((interrupted.code(), interrupted.accepted), ("INTERRUPTED", true));
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discords_budget_is_kept_and_priority_decides_who_waits() {
    let stage = Stage::start(discord(1, 2).await, Setup::default()).await;
    let free = SendBudget::LIMIT - SendBudget::RESERVE;
    let send = |priority: Priority, deadline_ms, payload| {
        let worker = stage.worker.clone();
        let priority = priority.into();
        tokio::spawn(async move {
            worker.send("shard.0.1", Command { priority, deadline_ms, ..of_shard(payload) }).await
        })
    };
    let first: Vec<_> =
        (0..free).map(|_| send(Priority::Normal, in_ms(60_000), presence("online"))).collect();
    // IDENTIFY and a heartbeat may have taken their part.
    stage.discord.wait_for_records(3, free - 4).await.expect("the budget is used");
    until("nothing more is sent", async || {
        let before = stage.discord.records(3).len();
        tokio::time::sleep(Duration::from_millis(200)).await;
        before == stage.discord.records(3).len()
    })
    .await;
    let sent = stage.discord.records(3).len();
    let late = send(Priority::Normal, in_ms(1_000), presence("dnd")).await.expect("an answer");
    assert_eq!((late.code(), late.accepted), ("DEADLINE_EXCEEDED", true));
    // More than may be held: those that find no room are told so at once.
    let crowd: Vec<_> = (0..300).map(|_| send(Priority::Low, in_ms(3_000), presence("dnd"))).collect();
    let mut codes = std::collections::BTreeMap::new();
    for one in crowd {
        *codes.entry(one.await.expect("an answer").code()).or_insert(0) += 1;
    }
    assert_eq!(codes.keys().copied().collect::<Vec<_>>(), ["DEADLINE_EXCEEDED", "QUEUE_FULL"], "{codes:?}");
    assert!(codes["DEADLINE_EXCEEDED"] >= 200, "{codes:?}");
    assert_eq!(stage.discord.records(3).len(), sent, "what has expired isn't sent");
    assert!(stage.discord.violations().is_empty(), "{:?}", stage.discord.violations());
    drop(first);
    stage.end().await;
}
