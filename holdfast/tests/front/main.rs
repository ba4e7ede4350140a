// SPDX-License-Identifier: AGPL-3.0-only
//! The real binary between the simulated Discord and clients of our own, over real sockets: what is
//! promised, tried by causing what could break it.

mod bad_input;
mod bad_manners;
mod commands;
mod cuts;
mod encodings;
mod intents;
mod members;
mod restarts;
mod snapshot;
mod support;
