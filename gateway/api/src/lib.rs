// SPDX-License-Identifier: AGPL-3.0-only
//! `api`: takes REST requests of any library as if it were Discord, and sends them on within all limits.
//!
//! The way of a request: `listener` (connections) → `front` (refused? `uploads`?), or `amqp` → `outgoing` (what goes to
//! Discord, by `request`; what is answered here) → `sharing` (identical ones, `cache`) → `peers` (whose account, while
//! the store is away) → `holdfast_rest` (limits, connections to Discord). [`start`] puts the parts together.

mod access;
mod amqp;
mod answer;
mod cache;
mod front;
mod gateway;
mod listener;
mod metrics;
mod outgoing;
mod peers;
mod program;
mod request;
pub mod settings;
mod sharing;
mod start;
mod uploads;

pub use amqp::exchanges;
pub use program::{PROGRAM, part};
pub use settings::{Beside, Config};
pub use start::{Api, ApiError, start};
