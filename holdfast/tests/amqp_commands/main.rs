// SPDX-License-Identifier: AGPL-3.0-only
//! Commands and requests by AMQP: the real binary between the simulated Discord and RabbitMQ, with a worker that
//! speaks the contract. What is promised in docs/contract.md, each thing once done and once refused.
#![cfg(test)]

mod answers;
mod bad_input;
mod limits;
mod state;
#[expect(dead_code, unused_imports, reason = "the tests of the WebSocket front use the rest")]
#[path = "../front/support/mod.rs"]
mod support;
mod worker;
