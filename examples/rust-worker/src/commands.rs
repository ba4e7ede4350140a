// SPDX-License-Identifier: AGPL-3.0-only
//! Tells Discord something through Holdfast, and asks for guilds. In: commands. Out: their replies.
//! The rules are in docs/contract.md, "Commands".

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use crate::asking::{Answers, AskError, Asking, Refused, expiring};
use crate::v1::command::Target;
use crate::v1::command_reply::Reply;
use crate::v1::guild::Found;
use crate::v1::{Command, CommandReply, GetGuild, Guild};
use crate::{SCHEMA, unix_ms};

/// The last reply may be that the deadline has passed.
const MARGIN: Duration = Duration::from_secs(2);

/// What a worker has to tell Discord.
pub struct Commands(Asking);

/// What answers a command, one after the other.
pub struct Replies {
    answers: Answers,
    /// A reply may come twice.
    seen: HashSet<(u32, u32)>,
    to_all: bool,
    /// Shards that have sent their last one.
    ended: u32,
    is_over: bool,
}

impl Commands {
    /// See [`Asking::open`].
    ///
    /// # Errors
    /// RabbitMQ is away, or refuses.
    pub async fn open(url: &str, prefix: &str) -> Result<Self, AskError> {
        Asking::open(url, prefix).await.map(Self)
    }

    /// Sends it, and gives what answers it, a member request's chunks as they come. Its deadline is set.
    ///
    /// # Errors
    /// RabbitMQ doesn't take it.
    pub async fn send(&self, command: Command, within: Duration) -> Result<Replies, AskError> {
        let to_all = matches!(command.target, Some(Target::All(_)));
        let command = Command { schema: SCHEMA, deadline_ms: unix_ms(within), ..command };
        let to = ("commands", if to_all { "all" } else { "guild" });
        let within = within + MARGIN;
        let answers = self.0.ask(to, &command, expiring::<Command>(within), within).await?;
        Ok(Replies { answers, seen: HashSet::new(), to_all, ended: 0, is_over: false })
    }

    /// The guild as it is now: the `d` of a GUILD_CREATE.
    ///
    /// # Errors
    /// It isn't known, or nobody says.
    pub async fn guild(&self, guild_id: u64, within: Duration) -> Result<Value, AskError> {
        let asked = GetGuild { schema: SCHEMA, guild_id, ..GetGuild::default() };
        let properties = expiring::<GetGuild>(within);
        let mut answers = self.0.ask(("requests", "state"), &asked, properties, within).await?;
        match answers.next::<Guild>().await?.found {
            Some(Found::Data(data)) => {
                serde_json::from_slice(&data).map_err(|error| AskError::Malformed(error.into()))
            }
            Some(Found::Error(error)) => Err(Refused::from(error).into()),
            None => Err(AskError::Malformed("neither a guild nor an error".into())),
        }
    }

    /// See [`Asking::close`].
    ///
    /// # Errors
    /// It has ended already.
    pub async fn close(self) -> Result<(), AskError> {
        self.0.close().await
    }
}

impl Replies {
    /// The next one; none after the last one of each shard that was asked.
    ///
    /// # Errors
    /// A shard refuses it, or replies are missing: whether the command was done isn't known then.
    pub async fn next(&mut self) -> Result<Option<CommandReply>, AskError> {
        while !self.is_over {
            let reply: CommandReply = self.answers.next().await?;
            if !self.seen.insert((reply.shard, reply.number)) {
                continue;
            }
            match reply.reply {
                Some(Reply::Rejected(rejected)) => {
                    return Err(Refused::from(rejected.error.unwrap_or_default()).into());
                }
                Some(Reply::Done(_)) => {
                    self.ended += 1;
                    self.is_over = self.ended == if self.to_all { reply.shard_count } else { 1 };
                }
                _ => {}
            }
            return Ok(Some(reply));
        }
        Ok(None)
    }
}
