// SPDX-License-Identifier: AGPL-3.0-only
//! What stands around `http` in a measurement: a Discord that signs and posts, and a worker that answers at once. In:
//! arguments. Out: requests, and a process of this program.

pub(crate) mod post;
pub(crate) mod worker;

/// What the worker answers.
pub(crate) const ANSWER: &str = r#"{"type":4,"data":{"content":"pong"}}"#;
