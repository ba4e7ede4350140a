// SPDX-License-Identifier: AGPL-3.0-only
//! The consumer: a queue for everything on an exchange, and somebody who takes from it at once, or nobody.
//! In: deliveries, acknowledged by being sent. Out: counts of them when the driver asks.
//! The queue is neither durable nor anybody else's: it goes with this process, however that ends.

use std::{cell::RefCell, rc::Rc};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use lapin::{
    Channel, ExchangeKind,
    message::Delivery,
    options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{task::LocalSet, time::timeout};

use super::{SETUP, connect};
use crate::{
    client::{Compression, Recorder, micros, numbered, sent_at},
    peer::{Answer, Command, commands, say},
};

/// Messages in the queue that nobody takes from; the oldest go. A few seconds' worth of memory, some 12 MB.
const BOUND: i64 = 10_000;

/// What is consumed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// RabbitMQ's address.
    #[arg(long)]
    pub(crate) broker: String,
    /// The exchange of events; declared as Holdfast does.
    #[arg(long)]
    pub(crate) exchange: String,
    /// Only bind a queue of 10,000 messages, of which the oldest go: what is measured is the way there.
    #[arg(long)]
    pub(crate) sink: bool,
}

impl Args {
    /// The command line that says the same.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![
            "consumer".to_owned(),
            format!("--broker={}", self.broker),
            format!("--exchange={}", self.exchange),
        ];
        if self.sink {
            words.push("--sink".to_owned());
        }
        words
    }
}

/// Consumes until standard input ends.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, talk(args))
}

async fn talk(args: &Args) -> Result<()> {
    let (_connection, channel) = connect(&args.broker).await?;
    let queue = timeout(SETUP, declare(&channel, args)).await.context("declaring took too long")??;
    let recorder = Rc::new(RefCell::new(Recorder::new(true, Compression::None)?));
    if !args.sink {
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut deliveries =
            channel.basic_consume(queue, ShortString::default(), options, FieldTable::default()).await?;
        let noting = Rc::clone(&recorder);
        tokio::task::spawn_local(async move {
            while let Some(delivery) = deliveries.next().await {
                match delivery {
                    Ok(delivery) => note(&mut noting.borrow_mut(), &delivery, micros()),
                    Err(error) => noting.borrow_mut().closed(error.to_string()),
                }
            }
            noting.borrow_mut().closed("the broker ended the consumer".to_owned());
        });
    }
    say(&Answer::Connected)?;
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        let command = command?;
        match command {
            Command::Identify => bail!("a consumer identifies with nobody"),
            Command::Reset | Command::Stats => {
                let mut recorder = recorder.borrow_mut();
                let counts = recorder.counts();
                if command == Command::Reset {
                    recorder.reset();
                }
                say(&Answer::Stats(Box::new(counts)))?;
            }
        }
    }
    Ok(())
}

/// The exchange, as Holdfast declares it, and a queue of our own for all that goes there.
async fn declare(channel: &Channel, args: &Args) -> Result<ShortString> {
    let exchange = || ShortString::try_new(args.exchange.as_str()).context("too long a name");
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel.exchange_declare(exchange()?, ExchangeKind::Topic, durable, none()).await?;
    let mut arguments = none();
    if args.sink {
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(BOUND));
    }
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(ShortString::default(), exclusive, arguments).await?.name().clone();
    channel.queue_bind(queue.clone(), exchange()?, "#".into(), QueueBindOptions::default(), none()).await?;
    Ok(queue)
}

/// Counts a delivery that came at `now`. What isn't a message of the simulator's traffic has no time of sending.
fn note(recorder: &mut Recorder, delivery: &Delivery, now: u64) {
    let Some(shard) = shard_of(delivery.routing_key.as_str(), "MESSAGE_CREATE") else { return };
    // Discord's JSON stands in the body as it is, whatever is around it.
    recorder.dispatch(delivery.data.len(), sent_at(&delivery.data), now);
    if let Some((guild, number)) = numbered(&delivery.data)
        && recorder.numbered(0, guild, number)
    {
        recorder.heard(shard, now);
    }
}

/// The shard in the routing key `EVENT.shard.guild` of such an event.
fn shard_of(key: &str, event: &str) -> Option<u32> {
    key.strip_prefix(event)?.strip_prefix('.')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_stands_in_the_routing_key() {
        assert_eq!(shard_of("MESSAGE_CREATE.17.81384788765712384", "MESSAGE_CREATE"), Some(17));
        assert_eq!(shard_of("MESSAGE_CREATE_OTHER.17.0", "MESSAGE_CREATE"), None);
        assert_eq!(shard_of("GUILD_CREATE.17.0", "MESSAGE_CREATE"), None);
    }

    #[test]
    fn a_message_is_timed_and_a_repeated_one_does_not_end_a_pause() {
        let mut recorder = Recorder::new(true, Compression::None).unwrap();
        for (number, now) in [(1, 1_000), (2, 2_000), (2, 8_000), (3, 9_000)] {
            let body = format!(r#"??{{"nonce":"900","content":"sim 5 {number}"}}"#);
            note(&mut recorder, &delivery("MESSAGE_CREATE.3.5", &body), now);
        }
        note(&mut recorder, &delivery("GUILD_CREATE.3.5", "{}"), 9_500);
        let counts = recorder.counts();
        assert_eq!((counts.events, counts.timed, counts.repeated, counts.skipped), (4, 4, 1, 0));
        assert_eq!((counts.longest_pause, counts.last_received), (7_000, 9_000));
    }

    fn delivery(key: &str, body: &str) -> Delivery {
        Delivery::mock(1, "exchange".into(), key.into(), false, body.as_bytes().to_vec())
    }
}
