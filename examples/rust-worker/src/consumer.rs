// SPDX-License-Identifier: AGPL-3.0-only
//! Receives what Holdfast publishes, one after the other. In: a queue's name. Out: calls of `handle`, in order.
//! The rules are in docs/contract.md, "Consumers that need order".

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Connection, Consumer};
use prost::Message;
use tokio::time::sleep;

use crate::BoxError;
use crate::inbox::{Memory, Verdict};
use crate::rabbitmq::{PAUSE, connect, ended, is, soon};
use crate::v1::{Event, Gap};

/// Messages on their way to us. They are handled one by one all the same.
const PREFETCH: u16 = 64;

/// What a shard publishes.
pub enum Received {
    /// An event of Discord's. `stream:position` is its id.
    Event(Event),
    /// Events may be missing, from `stream:from` to `next_stream:to`. Positions alone don't tell: they have holes where
    /// events aren't published, or no queue of yours is bound for them.
    Gap(Gap),
}

impl Received {
    /// The shard's number, and of how many.
    #[must_use]
    pub fn shard(&self) -> (u32, u32) {
        match self {
            Self::Event(event) => (event.shard, event.shard_count),
            Self::Gap(gap) => (gap.shard, gap.shard_count),
        }
    }

    /// Rises with each change of the shard's owner.
    #[must_use]
    pub fn generation(&self) -> u64 {
        match self {
            Self::Event(event) => event.generation,
            Self::Gap(gap) => gap.generation,
        }
    }
}

/// An event could not be handled. Going on with the next one would break the order.
#[derive(Debug, thiserror::Error)]
#[error("event {id} could not be handled")]
pub struct HandlerFailed {
    id: String,
    source: BoxError,
}

/// Why a session is over.
enum Ended {
    Connection(lapin::Error),
    Handler(HandlerFailed),
}

impl From<lapin::Error> for Ended {
    fn from(error: lapin::Error) -> Self {
        Self::Connection(error)
    }
}

/// Calls `handle` for each event and gap. Connects again whenever the connection ends; ends itself only with
/// [`HandlerFailed`]: everything that isn't acknowledged then comes again, to whoever consumes next.
pub async fn consume(
    url: &str,
    queue: &str,
    memory: &mut impl Memory,
    mut handle: impl AsyncFnMut(&Received) -> Result<(), BoxError>,
) -> HandlerFailed {
    loop {
        match session(url, queue, memory, &mut handle).await {
            Ok(never) => match never {},
            Err(Ended::Handler(failed)) => return failed,
            Err(Ended::Connection(error)) => eprintln!("no connection to RabbitMQ: {error}"),
        }
        sleep(PAUSE).await;
    }
}

/// One connection, from its beginning to its end, which is always an error.
async fn session(
    url: &str,
    queue: &str,
    memory: &mut impl Memory,
    handle: &mut impl AsyncFnMut(&Received) -> Result<(), BoxError>,
) -> Result<Infallible, Ended> {
    let (connection, mut deliveries) = soon(open(url, queue)).await?;
    let over = take(&mut deliveries, memory, handle).await;
    // Its end gives back, in order, what wasn't acknowledged. Dropped, the library would cancel the consumer first: RabbitMQ
    // would let the next one have what is in the queue before it had back what is here. If it has ended, that is that.
    let _ = soon(connection.close(200, "OK".into())).await;
    over
}

async fn open(url: &str, queue: &str) -> lapin::Result<(Connection, Consumer)> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    // Holdfast declares the queue: here it only has to be there.
    let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
    let deliveries = channel.basic_consume(queue.into(), tag, options, FieldTable::default()).await?;
    Ok((connection, deliveries))
}

async fn take(
    deliveries: &mut Consumer,
    memory: &mut impl Memory,
    handle: &mut impl AsyncFnMut(&Received) -> Result<(), BoxError>,
) -> Result<Infallible, Ended> {
    while let Some(delivery) = deliveries.next().await {
        receive(delivery?, memory, handle).await?;
    }
    Err(ended().into())
}

/// Finish it, remember it, acknowledge it, in this order.
async fn receive(
    delivery: Delivery,
    memory: &mut impl Memory,
    handle: &mut impl AsyncFnMut(&Received) -> Result<(), BoxError>,
) -> Result<(), Ended> {
    // What the library still holds of a connection that has ended comes again.
    if !delivery.usable() {
        return Err(ended().into());
    }
    let id = delivery.properties.message_id().as_ref().map_or("", ShortString::as_str);
    let failed = |source| Ended::Handler(HandlerFailed { id: id.to_owned(), source });
    if let Some(message) = decode(&delivery).map_err(|error| failed(error.into()))?
        && memory.judge(&message, id, delivery.redelivered) == Verdict::New
    {
        // A panic is a failure, too.
        let handled = AssertUnwindSafe(handle(&message)).catch_unwind().await;
        handled.unwrap_or_else(|_| Err("it panicked".into())).map_err(failed)?;
        memory.finish(id);
    }
    match soon(delivery.ack(BasicAckOptions::default())).await? {
        true => Ok(()),
        false => Err(ended().into()),
    }
}

/// Nothing, if it is something else: that is passed over.
fn decode(delivery: &Delivery) -> Result<Option<Received>, prost::DecodeError> {
    let body = delivery.data.as_slice();
    if is::<Event>(delivery) {
        Event::decode(body).map(Received::Event).map(Some)
    } else if is::<Gap>(delivery) {
        Gap::decode(body).map(Received::Gap).map(Some)
    } else {
        Ok(None)
    }
}
