// SPDX-License-Identifier: AGPL-3.0-only
//! The simulator over real sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
mod client;
mod forms;
mod lifecycle;
mod requests;
mod strictness;
