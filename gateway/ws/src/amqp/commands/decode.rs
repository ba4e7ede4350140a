// SPDX-License-Identifier: AGPL-3.0-only
//! What a message says it is. In: a message from a queue of commands. Out: the command, or why it is none. Pure.

use std::time::{Duration, Instant};

use holdfast_broker::Message;
use holdfast_contract::v1::{
    Command, Error, ErrorCode,
    command::{Payload, Target},
};
use holdfast_discord::shard_of;

/// The largest command, and the largest question for a guild: sixteen times what Discord takes, for encodings that are
/// wordier than JSON.
pub(in crate::amqp) const MAX_BYTES: usize = 64 * 1024;

/// The largest that isn't for Discord: an interaction, with all that it resolves.
const MAX_DELIVERY: usize = 1024 * 1024 + MAX_BYTES;

/// How long a command without a deadline may take.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// However far its deadline is, a command is waited for no longer: it holds a place.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// Decodes a command.
pub(super) fn command(message: &Message) -> Result<Command, Error> {
    let command: Command = message.decode(MAX_DELIVERY)?;
    match command.payload {
        Some(Payload::DeliverInteraction(_)) => Ok(command),
        _ if message.body.len() <= MAX_BYTES => Ok(command),
        _ => message.decode(MAX_BYTES),
    }
}

/// Until when a command may take. None: that has passed.
pub(super) fn deadline(command: &Command, now: Instant, now_ms: u64) -> Result<Instant, Error> {
    let wait = match command.deadline_ms {
        0 => DEFAULT_WAIT,
        at => Duration::from_millis(at.saturating_sub(now_ms)).min(MAX_WAIT),
    };
    if wait.is_zero() {
        return Err(expired());
    }
    Ok(now + wait)
}

/// The deadline passed before anything was sent.
pub(super) fn expired() -> Error {
    Error::new(ErrorCode::DeadlineExceeded, "the deadline passed before the command was sent: it won't be")
}

/// Where a command that any replica may take has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Shard(u32),
    All,
}

/// See [`Destination`]; of `total` shards.
pub(super) fn destination(command: &Command, total: u32) -> Result<Destination, Error> {
    if let Some(Payload::DeliverInteraction(delivery)) = &command.payload {
        return Ok(Destination::Shard(shard_of(delivery.guild_id, total)));
    }
    match &command.target {
        Some(Target::GuildId(guild)) if *guild != 0 => Ok(Destination::Shard(shard_of(*guild, total))),
        Some(Target::Shard(address)) if address.shard_count != total => {
            Err(Error::new(ErrorCode::WrongShard, format!("the bot has {total} shards here")))
        }
        Some(Target::Shard(address)) if address.shard >= total => {
            let text = format!("shards are numbered from 0, and the bot has {total}");
            Err(Error::new(ErrorCode::WrongShard, text))
        }
        Some(Target::Shard(address)) => Ok(Destination::Shard(address.shard)),
        Some(Target::All(_)) => Ok(Destination::All),
        Some(Target::GuildId(_)) | None => {
            Err(Error::new(ErrorCode::InvalidTarget, "no target: set shard, guild_id or all"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_contract::v1::{AllShards, DeliverInteraction, Raw, ShardAddress};

    #[test]
    fn only_an_interaction_may_be_larger_than_what_discord_takes() {
        let of = |payload| {
            let whole = Command { payload: Some(payload), ..Command::default() };
            command(&Message::of(&whole)).map(|_| ()).map_err(|error| error.code())
        };
        let data = |size: usize| bytes::Bytes::from(vec![b'1'; size]);
        let delivery =
            |size| Payload::DeliverInteraction(DeliverInteraction { guild_id: 1, data: data(size) });
        let raw = |size| Payload::Raw(Raw { opcode: 99, data: data(size) });
        assert_eq!((of(delivery(1 << 20)), of(raw(1_000))), (Ok(()), Ok(())));
        assert_eq!(of(raw(MAX_BYTES)), Err(ErrorCode::TooLarge));
        assert_eq!(of(delivery(2 << 20)), Err(ErrorCode::TooLarge));
    }

    #[test]
    fn a_deadline_is_by_the_clock_and_bounded() {
        let now = Instant::now();
        let of = |deadline_ms| deadline(&Command { deadline_ms, ..Command::default() }, now, 1_000_000);
        assert_eq!(of(0), Ok(now + DEFAULT_WAIT));
        assert_eq!(of(1_000_250), Ok(now + Duration::from_millis(250)));
        assert_eq!(of(u64::MAX), Ok(now + MAX_WAIT));
        for passed in [1, 999_999, 1_000_000] {
            assert_eq!(of(passed).unwrap_err().code(), ErrorCode::DeadlineExceeded);
        }
    }

    #[test]
    fn a_command_goes_where_its_target_is() {
        let of = |target| destination(&Command { target, ..Command::default() }, 16);
        let shard = |shard, shard_count| Some(Target::Shard(ShardAddress { shard, shard_count }));
        assert_eq!(of(Some(Target::GuildId(81_384_788_765_712_384))), Ok(Destination::Shard(2)));
        assert_eq!(of(Some(Target::GuildId(5 << 22))), Ok(Destination::Shard(5)));
        assert_eq!(of(Some(Target::All(AllShards {}))), Ok(Destination::All));
        assert_eq!(of(shard(15, 16)), Ok(Destination::Shard(15)));
        for (target, code) in [
            (shard(16, 16), ErrorCode::WrongShard),
            (shard(3, 8), ErrorCode::WrongShard),
            (Some(Target::GuildId(0)), ErrorCode::InvalidTarget),
            (None, ErrorCode::InvalidTarget),
        ] {
            assert_eq!(of(target).unwrap_err().code(), code);
        }
    }
}
