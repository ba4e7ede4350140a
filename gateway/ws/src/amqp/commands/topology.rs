// SPDX-License-Identifier: AGPL-3.0-only
//! What commands and requests need at the broker. In: names. Out: exchanges, queues, bindings. Pure.
//!
//! The bounds are constants: every replica must declare the same. A full queue refuses what comes, so that a caller
//! learns it by a nack instead of waiting for a reply.

use std::time::Duration;

use holdfast_broker::{
    Binding, DeadLetter, Exchange, ExchangeKind, Names, Overflow, Queue, QueueKind, Topology,
};

/// Commands that wait in a queue: ten seconds of what one replica forwards, minutes of what one shard may send.
const MAX_COMMANDS: u64 = 10_000;
/// Bytes that wait in a queue.
const MAX_BYTES: u64 = 64 << 20;
/// Crashes over one message before it is set aside.
const DELIVERY_LIMIT: u32 = 20;
/// Nobody waits longer for a guild's state.
const STATE_TTL: Duration = Duration::from_secs(60);

/// What all replicas share.
pub(super) fn shared(names: &Names) -> Topology {
    let dead_letter = Some(DeadLetter { exchange: names.dead(), key: Some(names.guild_commands()) });
    let guild = Queue {
        delivery_limit: Some(DELIVERY_LIMIT),
        dead_letter,
        ..bounded(Queue::new(names.guild_commands(), QueueKind::Quorum))
    };
    let state = Queue {
        message_ttl: Some(STATE_TTL),
        ..bounded(Queue::new(names.state_requests(), QueueKind::Classic))
    };
    Topology {
        exchanges: vec![
            Exchange::new(names.dead(), ExchangeKind::Topic),
            commands(names),
            Exchange::new(names.requests(), ExchangeKind::Direct),
        ],
        queues: vec![guild, state],
        bindings: vec![
            Binding::queue(names.commands(), names.guild_commands(), Names::GUILD_KEY),
            Binding::queue(names.requests(), names.state_requests(), Names::STATE_KEY),
        ],
    }
}

/// What the owner of a shard has for itself.
pub(super) fn of_shard(names: &Names, (shard, count): (u32, u32), generation: u64) -> Topology {
    let queue = names.shard_commands(shard, count, generation);
    let bind = |key: String| Binding::queue(names.commands(), queue.clone(), key);
    Topology {
        exchanges: vec![commands(names)],
        queues: vec![bounded(Queue::exclusive(&queue))],
        bindings: vec![bind(Names::shard_key(shard, count)), bind(Names::ALL_KEY.to_owned())],
    }
}

fn commands(names: &Names) -> Exchange {
    Exchange::new(names.commands(), ExchangeKind::Direct)
}

fn bounded(queue: Queue) -> Queue {
    Queue {
        max_length: Some(MAX_COMMANDS),
        max_length_bytes: Some(MAX_BYTES),
        overflow: Overflow::RejectPublish,
        ..queue
    }
}
