// SPDX-License-Identifier: AGPL-3.0-only
//! Sends requests through RabbitMQ and takes what answers them. In: messages of the contract. Out: the messages that
//! answer each, by its correlation id. The rules are in docs/contract.md, "Properties and headers".

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer};
use prost::{Message, Name};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::rabbitmq::{connect, properties, soon};
use crate::{BoxError, v1};

/// RabbitMQ hands what is sent there to the channel that asked, without a queue.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Answers to one request that nobody has looked at yet, such as chunks of members: 1,000 members each.
const UNREAD: usize = 256;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Holdfast says no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nobody knows whether it was done.
    #[error("no answer in time")]
    TimedOut,
    /// Nobody knows whether it was done.
    #[error("the answer is lost: the connection to RabbitMQ ended, or too many answers weren't looked at")]
    Lost,
    /// Not sent: the service that would take it has never run, or not with this prefix.
    #[error("no queue takes what is sent to {0}")]
    NoQueue(String),
    /// Not sent: too much is waiting already.
    #[error("the queue behind {0} is full")]
    Full(String),
    /// The connection failed.
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    /// The answer isn't what the contract says.
    #[error("the answer can't be read")]
    Malformed(#[source] BoxError),
}

/// Holdfast says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({})", self.name())]
pub struct Refused {
    /// An [`v1::ErrorCode`], or one that is newer than this. Its range says what to do: from 1 to 99 don't repeat it; from
    /// 100 to 199 it wasn't done and may succeed later; from 200 to 299 nobody knows whether it was done.
    pub code: i32,
    /// For logs.
    pub message: String,
    /// Zero: nobody knows.
    pub retry_after: Duration,
}

impl Refused {
    /// It wasn't done and may succeed later.
    #[must_use]
    pub fn may_succeed_later(&self) -> bool {
        (100..200).contains(&self.code)
    }

    fn name(&self) -> String {
        v1::ErrorCode::try_from(self.code).map_or(self.code.to_string(), |code| code.as_str_name().to_owned())
    }
}

impl From<v1::Error> for Refused {
    fn from(v1::Error { code, message, retry_after_ms }: v1::Error) -> Self {
        Self { code, message, retry_after: Duration::from_millis(retry_after_ms) }
    }
}

/// Who waits for answers, by the ids of their requests.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<HashMap<String, Sender<Vec<u8>>>>>);

/// One connection for what a worker sends. When it has ended, everything fails: open another one then.
pub struct Asking {
    prefix: String,
    connection: Connection,
    channel: Channel,
    publishing: tokio::sync::Mutex<()>,
    waiting: Waiting,
    next_id: AtomicU64,
    /// Hands answers out.
    taking: JoinHandle<()>,
}

/// What answers one request.
pub struct Answers {
    id: String,
    answers: Receiver<Vec<u8>>,
    deadline: Instant,
    waiting: Waiting,
}

impl Asking {
    /// `prefix` is `broker.prefix` of Holdfast's settings.
    ///
    /// # Errors
    /// RabbitMQ is away, or refuses.
    pub async fn open(url: &str, prefix: &str) -> Result<Self, AskError> {
        let (connection, channel, answers) = soon(open(url)).await?;
        let waiting = Waiting::default();
        let taking = tokio::spawn(waiting.clone().take(answers));
        Ok(Self {
            prefix: prefix.to_owned(),
            connection,
            channel,
            publishing: tokio::sync::Mutex::default(),
            waiting,
            next_id: AtomicU64::default(),
            taking,
        })
    }

    /// Ends the connection in order. Dropping it ends it as well, and RabbitMQ notes that in its log.
    ///
    /// # Errors
    /// It has ended already.
    pub async fn close(self) -> Result<(), AskError> {
        Ok(soon(self.connection.close(200, "OK".into())).await?)
    }

    /// Comes back when RabbitMQ has it, and fails if it doesn't want it. `exchange` is without the prefix.
    pub(crate) async fn publish<M: Message + Name>(
        &self,
        (exchange, key): (&str, &str),
        message: &M,
        properties: BasicProperties,
        within: Duration,
    ) -> Result<(), AskError> {
        let id = self.new_id();
        self.publish_as(&id, (exchange, key), message, properties, within).await
    }

    /// The same, and gives what answers it.
    pub(crate) async fn ask<M: Message + Name>(
        &self,
        (exchange, key): (&str, &str),
        message: &M,
        properties: BasicProperties,
        within: Duration,
    ) -> Result<Answers, AskError> {
        let (id, deadline) = (self.new_id(), Instant::now() + within);
        let (sender, receiver) = mpsc::channel(UNREAD);
        self.waiting.lock().insert(id.clone(), sender);
        // From here on, however this ends, nobody waits any more when it is dropped.
        let answers = Answers { id, answers: receiver, deadline, waiting: self.waiting.clone() };
        let properties = properties.with_reply_to(REPLY_TO.into());
        self.publish_as(&answers.id, (exchange, key), message, properties, within).await?;
        Ok(answers)
    }

    async fn publish_as<M: Message + Name>(
        &self,
        id: &str,
        (exchange, key): (&str, &str),
        message: &M,
        properties: BasicProperties,
        within: Duration,
    ) -> Result<(), AskError> {
        let exchange = format!("{}.{exchange}", self.prefix);
        let properties = properties.with_correlation_id(id.into());
        // What no queue takes comes back instead of being dropped.
        let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
        let (to, body) = (ShortString::from(exchange.as_str()), message.encode_to_vec());
        let publishing = async {
            // The library hands a message that came back to whoever is confirmed next: so it is one at a time.
            let _alone = self.publishing.lock().await;
            self.channel.basic_publish(to, key.into(), mandatory, &body, properties).await?.await
        };
        match timeout(within, publishing).await.map_err(|_| AskError::TimedOut)?? {
            Confirmation::Ack(Some(back)) if id_of(&back.properties) == id => {
                Err(AskError::NoQueue(exchange))
            }
            // What came back is one before it, which was given up.
            Confirmation::Ack(_) | Confirmation::NotRequested => Ok(()),
            Confirmation::Nack(_) => Err(AskError::Full(exchange)),
        }
    }

    /// Unique on this connection: that is enough, since answers come to it alone.
    fn new_id(&self) -> String {
        self.next_id.fetch_add(1, Ordering::Relaxed).to_string()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.taking.abort();
    }
}

impl Answers {
    /// The next one.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<M, AskError> {
        let answer = timeout_at(self.deadline, self.answers.recv()).await.map_err(|_| AskError::TimedOut)?;
        M::decode(answer.ok_or(AskError::Lost)?.as_slice()).map_err(|error| AskError::Malformed(error.into()))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
    }
}

impl Waiting {
    async fn take(self, mut answers: Consumer) {
        while let Some(Ok(answer)) = answers.next().await {
            let (id, mut waiting) = (id_of(&answer.properties), self.lock());
            // Who doesn't look at answers holds up nobody else: it is told by the end of its own.
            if let Some(sender) = waiting.get(id)
                && sender.try_send(answer.data).is_err()
            {
                waiting.remove(id);
            }
        }
        // Nothing comes any more.
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Sender<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open(url: &str) -> lapin::Result<(Connection, Channel, Consumer)> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consumed = channel.basic_consume(REPLY_TO.into(), "".into(), no_ack, FieldTable::default());
    let answers = consumed.await?;
    Ok((connection, channel, answers))
}

fn id_of(properties: &BasicProperties) -> &str {
    properties.correlation_id().as_ref().map_or("", ShortString::as_str)
}

/// With an expiration: the broker drops what nobody took by then.
pub(crate) fn expiring<M: Name>(within: Duration) -> BasicProperties {
    properties::<M>().with_expiration(within.as_millis().to_string().into())
}
