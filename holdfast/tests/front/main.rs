// SPDX-License-Identifier: AGPL-3.0-only
//! The real binary between the simulated Discord and clients of our own, over real sockets: what is
//! promised, tried by causing what could break it.
#![cfg(test)]

mod backoff;
mod bad_input;
mod bad_manners;
mod commands;
mod cuts;
mod damage;
mod encodings;
mod heartbeats;
mod intents;
mod interactions;
mod legs;
mod members;
mod process;
mod reshard;
mod restarts;
mod shard_counts;
mod slow;
mod snapshot;
mod soak;
mod splice;
mod support;
mod tail;
mod tls;
