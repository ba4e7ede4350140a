// SPDX-License-Identifier: AGPL-3.0-only
//! `api`: takes REST requests of any library as if it were Discord, and sends them on within all limits.
//!
//! The way of a request: `listener` (connections) → `front` (what is refused, what is answered here) → `request` (what
//! goes to Discord) → `holdfast_rest` (limits and connections to Discord). [`start`] puts the parts together.

mod access;
mod answer;
mod front;
mod gateway;
mod listener;
mod metrics;
mod program;
mod request;
pub mod settings;
mod start;

pub use program::{PROGRAM, part};
pub use settings::{Beside, Config};
pub use start::{Api, ApiError, start};
