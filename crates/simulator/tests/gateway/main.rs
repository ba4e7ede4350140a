// SPDX-License-Identifier: AGPL-3.0-only
//! The simulator over real sockets.
#![cfg(test)]
mod client;
mod forms;
mod lifecycle;
mod requests;
mod strictness;
