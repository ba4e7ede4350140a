// SPDX-License-Identifier: AGPL-3.0-only
//! `webhook`: takes messages for webhooks from the broker and sends them, each webhook's in order, within all limits.
//!
//! The way of a message: `partition` (a queue of the broker) → `job` (what is to be sent) → `parking` (whose turn it
//! is) → `send` (to its end, with `multipart` and `uploads` where it has files) → a reply, and the dead letters where it
//! wasn't done. [`start`] puts the parts together.

mod job;
mod metrics;
mod multipart;
mod parking;
mod partition;
mod program;
mod send;
pub mod settings;
mod start;
mod topology;
mod uploads;

pub use program::{PROGRAM, part};
pub use settings::{Beside, Config};
pub use start::{Webhook, WebhookError, start};
pub use topology::exchanges;
