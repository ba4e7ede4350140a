// SPDX-License-Identifier: AGPL-3.0-only
//! Sends commands and asks for guilds. In: a guild. Out: reports of what came of each.

use std::time::Duration;

use anyhow::{Result, bail};
use holdfast_rust_worker::asking::AskError;
use holdfast_rust_worker::commands::Commands;
use holdfast_rust_worker::v1::command::{Payload, Target};
use holdfast_rust_worker::v1::command_reply::Reply;
use holdfast_rust_worker::v1::{
    Activity, AllShards, Command, CommandReply, RequestGuildMembers, UpdatePresence,
};
use serde_json::{Value, json};

use crate::{report, text};

const NO_GUILD: u64 = 4;
const WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(settings: &Value) -> Result<()> {
    let commands = Commands::open(text(settings, "url"), text(settings, "prefix")).await?;
    let guild = text(settings, "guild").parse()?;
    report("guild", json!({ "guild": commands.guild(guild, WITHIN).await? }));
    report("noGuild", json!({ "code": refusal(commands.guild(NO_GUILD, WITHIN).await)? }));

    let replies = replies(&commands, members_of(guild)).await?;
    let mut members = Vec::new();
    for reply in &replies {
        if let Some(Reply::MembersChunk(chunk)) = &reply.reply {
            let chunk: Value = serde_json::from_slice(&chunk.data)?;
            let of = chunk["members"].as_array().into_iter().flatten();
            members.extend(of.map(|member| member["user"]["id"].clone()));
        }
    }
    report("members", json!({ "members": members, "replies": kinds(&replies) }));
    report("noMembers", json!({ "code": refusal(self::replies(&commands, members_of(NO_GUILD)).await)? }));

    let presence = presence(text(settings, "playing"));
    report("presence", json!({ "replies": kinds(&self::replies(&commands, presence).await?) }));
    commands.close().await?;
    report("over", json!({}));
    Ok(())
}

fn members_of(guild: u64) -> Command {
    let everybody = RequestGuildMembers { query: Some(String::new()), ..RequestGuildMembers::default() };
    let payload = Some(Payload::RequestGuildMembers(everybody));
    Command { target: Some(Target::GuildId(guild)), payload, ..Command::default() }
}

fn presence(playing: &str) -> Command {
    let activities = vec![Activity { name: playing.to_owned(), ..Activity::default() }];
    let presence = UpdatePresence { status: "idle".to_owned(), activities, ..UpdatePresence::default() };
    let payload = Some(Payload::UpdatePresence(presence));
    Command { target: Some(Target::All(AllShards {})), payload, ..Command::default() }
}

async fn replies(commands: &Commands, command: Command) -> Result<Vec<CommandReply>, AskError> {
    let (mut all, mut replies) = (Vec::new(), commands.send(command, WITHIN).await?);
    while let Some(reply) = replies.next().await? {
        all.push(reply);
    }
    Ok(all)
}

fn refusal<T>(asked: Result<T, AskError>) -> Result<i32> {
    match asked {
        Err(AskError::Refused(refused)) => Ok(refused.code),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("it was done"),
    }
}

/// Shard, number, and the name of the .proto file, of each.
fn kinds(replies: &[CommandReply]) -> Vec<Value> {
    let kind = |reply: &CommandReply| match reply.reply {
        Some(Reply::Accepted(_)) => "accepted",
        Some(Reply::MembersChunk(_)) => "members_chunk",
        Some(Reply::Done(_)) => "done",
        _ => "another",
    };
    replies.iter().map(|reply| json!([reply.shard, reply.number, kind(reply)])).collect()
}
