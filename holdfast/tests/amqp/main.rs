// SPDX-License-Identifier: AGPL-3.0-only
//! The real binary between the simulated Discord and RabbitMQ: every event is counted from the one to a consumer of
//! the other, while what could lose, repeat or reorder them is done to both.
#![cfg(test)]

mod contract;
mod ends;
mod gaps;
mod literal;
mod many;
mod outage;
mod refusals;
mod stage;
#[path = "../front/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the tests of the WebSocket front, which need more")]
mod support;
