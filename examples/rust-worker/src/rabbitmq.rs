// SPDX-License-Identifier: AGPL-3.0-only
//! What is the same for all that a worker does at RabbitMQ. In: its address. Out: connections; and what a message is, by
//! the AMQP property `type`.

use std::io;
use std::time::Duration;

use lapin::message::Delivery;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use prost::Name;
use tokio::time::timeout;

/// Between a connection that ended and the next one.
pub const PAUSE: Duration = Duration::from_secs(1);

const SOON: Duration = Duration::from_secs(5);

/// Waits for what RabbitMQ does at once if it is there, and no longer. One that takes a connection and then says nothing is
/// away, too; and what the library is asked for at the moment at which a connection ends may never come back.
///
/// # Errors
/// It is away, or refuses.
pub async fn soon<T>(asked: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
    timeout(SOON, asked).await.unwrap_or_else(late)
}

/// Connects, once.
///
/// # Errors
/// RabbitMQ is away, or refuses.
pub async fn connect(url: &str) -> lapin::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default().with_connection_name("rust-worker".into())).await
}

/// The properties that each message has: what it is.
#[must_use]
pub fn properties<M: Name>() -> BasicProperties {
    BasicProperties::default()
        .with_type(M::full_name().into())
        .with_content_type("application/x-protobuf".into())
}

/// Whether a body is one of these. Go by that, not by where it came from: others may be added.
#[must_use]
pub fn is<M: Name>(delivery: &Delivery) -> bool {
    delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == M::full_name())
}

/// What the library may end with no error of its own.
pub(crate) fn ended() -> lapin::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection ended").into()
}
