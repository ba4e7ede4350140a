// SPDX-License-Identifier: AGPL-3.0-only
//! Sets what the bot shows on all of its shards, and asks for the members of a guild, who come in chunks.

use std::time::Duration;

use anyhow::Result;
use holdfast_rust_worker::commands::Commands;
use holdfast_rust_worker::v1::command::{Payload, Target};
use holdfast_rust_worker::v1::command_reply::Reply;
use holdfast_rust_worker::v1::{Activity, AllShards, Command, RequestGuildMembers, UpdatePresence};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(url: &str, prefix: &str, guild: u64) -> Result<()> {
    let commands = Commands::open(url, prefix).await?;
    show_chess(&commands).await?;
    print_members(&commands, guild).await?;
    Ok(commands.close().await?)
}

async fn show_chess(commands: &Commands) -> Result<()> {
    let chess = Activity { name: "chess".to_owned(), ..Activity::default() };
    let presence =
        UpdatePresence { status: "idle".to_owned(), activities: vec![chess], ..UpdatePresence::default() };
    let command = Command {
        target: Some(Target::All(AllShards {})),
        payload: Some(Payload::UpdatePresence(presence)),
        ..Command::default()
    };
    let mut replies = commands.send(command, WITHIN).await?;
    while let Some(reply) = replies.next().await? {
        // Before it, `Accepted` says that it waits for its turn.
        if let Some(Reply::Done(_)) = reply.reply {
            println!("shard {} of {} plays chess", reply.shard, reply.shard_count);
        }
    }
    Ok(())
}

async fn print_members(commands: &Commands, guild: u64) -> Result<()> {
    // A query that is there and empty: all of them. That takes the intent GUILD_MEMBERS.
    let everybody = RequestGuildMembers { query: Some(String::new()), ..RequestGuildMembers::default() };
    let command = Command {
        target: Some(Target::GuildId(guild)),
        payload: Some(Payload::RequestGuildMembers(everybody)),
        ..Command::default()
    };
    let mut replies = commands.send(command, WITHIN).await?;
    while let Some(reply) = replies.next().await? {
        if let Some(Reply::MembersChunk(chunk)) = reply.reply {
            // The same JSON that Discord's gateway sends as `d`.
            let data: Value = serde_json::from_slice(&chunk.data)?;
            let members = data["members"].as_array().map_or(0, Vec::len);
            println!("chunk {} of {}: {members} members", chunk.chunk_index + 1, chunk.chunk_count);
        }
    }
    Ok(())
}
