// SPDX-License-Identifier: AGPL-3.0-only
//! WebSocket frames (RFC 6455, section 5) as they lie in buffers: each payload is lent from the buffer that the socket
//! was read into, and what goes out is written beside what is there. Pure.
//!
//! The library makes the connections (the handshake); past that, an event would be copied twice more by it, and an idle
//! client held 8 KiB.

mod reader;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use reader::{FrameError, FrameReader, Kind};
pub(crate) use write::{Opcode, close_answer, close_body, header, push, push_masked, read_close};
