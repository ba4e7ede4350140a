// SPDX-License-Identifier: AGPL-3.0-only
//! Discord's REST API for our own services: what a service asks comes in, a typed answer or an error that says what
//! to do goes out. One client per token; whoever asks decides about trying again.

mod answers;
mod client;
mod error;
mod gateway_url;

pub use answers::{Application, CurrentUser, GatewayBot, SessionStartLimit};
pub use client::Client;
pub use error::RestError;
pub use gateway_url::same_place;
