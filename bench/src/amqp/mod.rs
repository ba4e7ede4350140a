// SPDX-License-Identifier: AGPL-3.0-only
//! RabbitMQ as the bare path has it: the library alone, nothing of ours around it.
//! In: an address. Out: a publisher and a consumer, each a process of its own, and one connection for either.

pub(crate) mod consumer;
pub(crate) mod publisher;

use std::time::Duration;

use anyhow::{Context, Result};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::time::timeout;

/// Longest wait for a connection, and for a few declarations.
pub(crate) const SETUP: Duration = Duration::from_secs(10);

/// A connection, and a channel of it.
pub(crate) async fn connect(broker: &str) -> Result<(Connection, Channel)> {
    let connecting = async {
        let connection = Connection::connect(broker, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        anyhow::Ok((connection, channel))
    };
    let connected = timeout(SETUP, connecting).await.context("no answer in time").and_then(|made| made);
    connected.context("connecting to the broker")
}
