// SPDX-License-Identifier: AGPL-3.0-only
//! Requests and replies over the broker, by direct reply-to.

pub(crate) mod replies;
mod requester;
mod responder;

pub use requester::{Answers, Requester};
pub use responder::{Request, Responder};
