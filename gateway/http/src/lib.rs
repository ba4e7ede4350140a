// SPDX-License-Identifier: AGPL-3.0-only
//! `http`: takes what Discord posts, interactions and webhook events, has workers deal with it, and answers in time.
//!
//! A request's way: `front` (paths, bodies) → `verify` (signature, age, replays) → `interactions` (who is asked, by
//! `routes`; what answers if nobody does) → `ways` to workers → `reply` (what may answer) → `late` (what came too late
//! for that); or → `events`. [`start`] puts the parts together.

mod answer;
mod asked;
mod events;
mod front;
mod interactions;
mod late;
mod metrics;
mod program;
mod reply;
mod routes;
mod seen;
pub mod settings;
mod start;
mod ticket;
mod verify;
mod ways;

pub use late::exchanges;
pub use program::{PROGRAM, part};
pub use settings::{Beside, Config};
pub use start::{Http, HttpError, start};
