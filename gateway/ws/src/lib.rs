// SPDX-License-Identifier: AGPL-3.0-only
//! `ws`: holds all shards' connections to Discord, and hands their events to any library as if it were
//! Discord.
//!
//! The way of an event: `upstream` (its connection) → `shard` (state and log) → `log` → `front` (clients of the
//! WebSocket front) and `amqp` (RabbitMQ).
//! [`start`] puts the parts together; docs/architecture.md tells why they are these.

mod amqp;
mod dashboard;
mod drop_in;
mod fleet;
mod frames;
mod front;
mod guilds;
pub mod log;
mod metrics;
mod observer;
mod pages;
mod program;
pub mod settings;
mod shard;
mod start;
mod threads;
mod upstream;

pub use amqp::{AmqpSettings, Outage, QueueSettings, QueueType, exchanges};
pub use program::{PROGRAM, part};
pub use settings::Config;
pub use shard::{FatalClose, Phase, ShardStatus};
pub use start::{Ws, WsError, start};
