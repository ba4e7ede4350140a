// SPDX-License-Identifier: AGPL-3.0-only
//! A shard's transport to Discord: TCP, TLS, WebSocket, decompression.
//!
//! In: an address. Out: whole payloads as JSON bytes, one after the other. Owned by the shard's task;
//! what the payloads mean is `holdfast_discord::session`'s business.

mod connect;
mod connection;
mod handshake;

pub(crate) use connect::{ConnectError, Connector, Transport};
pub(crate) use connection::{Closed, Connection};
