// SPDX-License-Identifier: AGPL-3.0-only
//! What can go wrong, one type per question that a caller asks. No text here ever holds the address or its password.

use std::fmt;

/// What trying again doesn't heal: somebody has to change the settings or the broker. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// User or password are wrong.
    #[error("the broker refuses user or password: correct broker.url ({0})")]
    Credentials(String),
    /// The virtual host isn't there, or not for this user.
    #[error(
        "the broker refuses the virtual host: correct the path of broker.url, or create it with `rabbitmqctl add_vhost` \
         and allow it with `rabbitmqctl set_permissions` ({0})"
    )]
    VirtualHost(String),
    /// The user may not do this.
    #[error("the broker's user lacks a permission: grant it with `rabbitmqctl set_permissions` ({0})")]
    Permission(String),
    /// Something of that name is there already, and differs.
    #[error(
        "an exchange or queue is there already and was declared differently: delete it, or set another broker.prefix \
         ({0})"
    )]
    Mismatch(String),
    /// The broker can't hash.
    #[error(
        "the broker has no consistent-hash exchange: enable it with `rabbitmq-plugins enable \
         rabbitmq_consistent_hash_exchange`"
    )]
    PluginMissing,
    /// The broker's certificate isn't trusted, or can't be checked.
    #[error("no TLS with the broker: correct broker.ca or the host in broker.url ({0})")]
    Certificate(String),
    /// The address can't be used.
    #[error("broker.url: {0}")]
    Address(String),
    /// Only RabbitMQ can do it.
    #[error("the broker in memory cannot do this, set broker.url ({0})")]
    Unsupported(String),
}

/// Why a topology isn't there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// The broker refuses for good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The process is ending.
    #[error("the process is ending")]
    Closed,
}

/// Why a message can't be sent at all, by whatever connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// Its body is larger than the broker may take.
    #[error("{bytes} bytes are more than the {max_bytes} that broker.max_message_bytes allows")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most there may be.
        max_bytes: usize,
    },
    /// A text has more than AMQP's 255 bytes.
    #[error("{what} of more than 255 bytes")]
    TooLong {
        /// Which text.
        what: &'static str,
    },
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It was mandatory, and no queue takes it.
    #[error("no queue takes it")]
    Unrouted,
    /// The broker refused it: a full queue.
    #[error("the broker refused it")]
    Nacked,
    /// It can't be sent.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    /// The connection or channel ended before the broker confirmed it: it may or may not have arrived.
    #[error("the connection ended before the broker confirmed it: {0}")]
    Unconfirmed(String),
    /// The process is ending.
    #[error("the process is ending")]
    Closed,
}

/// Why an ordered stream of messages has to go on from its first unconfirmed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The broker refused a message: a full queue that rejects.
    Nacked,
    /// The broker closed the channel: a missing exchange, a lost permission.
    Channel(String),
    /// The connection ended.
    Connection(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nacked => f.write_str("the broker refused a message"),
            Self::Channel(reason) => write!(f, "the channel ended: {reason}"),
            Self::Connection(reason) => write!(f, "the connection ended: {reason}"),
        }
    }
}

/// Why a request has no reply, or no further one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No queue is bound for it: nobody is there to answer.
    #[error("nobody is there to answer")]
    NoConsumer,
    /// The deadline has passed.
    #[error("no answer in time")]
    TimedOut,
    /// Too many requests are under way.
    #[error("too many requests are under way")]
    Busy,
    /// The connection ended: whether the request arrived is not known.
    #[error("the connection ended before the answer came: {0}")]
    Disconnected(String),
    /// Replies came faster than they were taken.
    #[error("replies came faster than they were taken")]
    Overrun,
    /// It could not be published.
    #[error(transparent)]
    Publish(PublishError),
}

impl From<PublishError> for RequestError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Unrouted => Self::NoConsumer,
            PublishError::Unconfirmed(reason) => Self::Disconnected(reason),
            other => Self::Publish(other),
        }
    }
}
