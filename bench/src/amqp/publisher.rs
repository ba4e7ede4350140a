// SPDX-License-Identifier: AGPL-3.0-only
//! The bare publisher: what it costs at least to have Discord's events confirmed by RabbitMQ with lapin alone.
//! In: a connection to the gateway for each shard. Out: each event's bytes, as they came, on an exchange.
//! One thread beside the library's, one channel per shard. It keeps nothing: what isn't confirmed when it dies is lost.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context as TaskContext, Poll, Waker},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Error, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::{task::LocalSet, time::timeout};

use super::{SETUP, connect};
use crate::{
    client::{Compression, Counts, Message, Opened, Recorder, Session, all_ready, micros, pong},
    peer::{Answer, Command, Readiness, commands, say},
};

/// AMQP's `delivery_mode`, as Holdfast's events have it.
const PERSISTENT: u8 = 2;

/// From where to where.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The gateway's address.
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// The bot's token.
    #[arg(long, default_value = "sim-token")]
    pub(crate) token: String,
    /// Shards, each with its own connection and its own channel.
    #[arg(long, default_value_t = 16)]
    pub(crate) shards: u32,
    /// RabbitMQ's address.
    #[arg(long)]
    pub(crate) broker: String,
    /// The exchange to publish on, which must be there.
    #[arg(long)]
    pub(crate) exchange: String,
    /// Messages of a shard that may be unconfirmed.
    #[arg(long, default_value_t = 1024)]
    pub(crate) window: usize,
    /// Give the library all that one read brought before waiting for the first to be written, instead of one after the
    /// other.
    #[arg(long)]
    pub(crate) batched: bool,
}

impl Args {
    /// The command line that says the same.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![
            "publisher".to_owned(),
            format!("--address={}", self.address),
            format!("--token={}", self.token),
            format!("--shards={}", self.shards),
            format!("--broker={}", self.broker),
            format!("--exchange={}", self.exchange),
            format!("--window={}", self.window),
        ];
        if self.batched {
            words.push("--batched".to_owned());
        }
        words
    }
}

/// Publishes until standard input ends.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, talk(args))
}

async fn talk(args: &Args) -> Result<()> {
    let (connection, _) = connect(&args.broker).await?;
    let recorder = Rc::new(RefCell::new(Recorder::new(false, Compression::None)?));
    let mut waiting = Vec::new();
    for shard in 0..args.shards {
        let session = Session::connect(args.address, shard, Compression::None, Rc::clone(&recorder)).await?;
        waiting.push((shard, session));
    }
    say(&Answer::Connected)?;
    let confirmed = Rc::new(Cell::new(0));
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        let command = command?;
        match command {
            Command::Identify => {
                let sessions = std::mem::take(&mut waiting);
                say(&Answer::Ready(identify(args, &connection, sessions, &recorder, &confirmed).await?))?;
            }
            Command::Reset | Command::Stats => {
                let counts = recorder.borrow_mut().counts();
                let counts = Counts { events: confirmed.get(), ..counts };
                if command == Command::Reset {
                    confirmed.set(0);
                }
                say(&Answer::Stats(Box::new(counts)))?;
            }
        }
    }
    Ok(())
}

async fn identify(
    args: &Args,
    connection: &Connection,
    sessions: Vec<(u32, Session)>,
    recorder: &Rc<RefCell<Recorder>>,
    confirmed: &Rc<Cell<u64>>,
) -> Result<Readiness> {
    let (started, expected) = (Instant::now(), sessions.len());
    for (shard, session) in sessions {
        let identify = session.identify(&args.token, args.shards);
        let opening = Outlet::open(args, connection, shard, Rc::clone(confirmed));
        let outlet = timeout(SETUP, opening).await.context("no channel in time")??;
        let recorder = Rc::clone(recorder);
        tokio::task::spawn_local(async move {
            let mut opened = session.open(identify, shard as usize);
            if let Err(error) = pass_on(&mut opened, outlet).await {
                recorder.borrow_mut().closed(format!("shard {shard}: {error:#}"));
            }
        });
    }
    all_ready(recorder, expected).await?;
    Ok(Readiness { milliseconds: started.elapsed().as_secs_f64() * 1e3, ..Readiness::default() })
}

/// Publishes what one connection brings, until either end fails.
async fn pass_on(Opened { reader, events, .. }: &mut Opened, mut outlet: Outlet) -> Result<()> {
    loop {
        let now = micros();
        while let Some(message) = reader.next()? {
            match message {
                Message::Data { payload, wire } => {
                    if let Some(name) = events.pass(payload, wire, now)? {
                        outlet.publish(name, payload).await?;
                    }
                }
                Message::Ping(payload) => events.answer(pong(payload))?,
                Message::Close(code, reason) => bail!("closed: {code} {reason}"),
            }
        }
        outlet.sent().await?;
        outlet.count()?;
        reader.fill().await?;
    }
}

/// A message whose frames are queued and perhaps not yet written.
type Sending = Pin<Box<dyn Future<Output = Result<PublisherConfirm, Error>>>>;

/// One shard's channel.
struct Outlet {
    channel: Rc<Channel>,
    exchange: ShortString,
    shard: u32,
    window: usize,
    batched: bool,
    sending: Vec<Sending>,
    unconfirmed: VecDeque<PublisherConfirm>,
    /// Of all shards.
    confirmed: Rc<Cell<u64>>,
}

impl Outlet {
    async fn open(
        args: &Args,
        connection: &Connection,
        shard: u32,
        confirmed: Rc<Cell<u64>>,
    ) -> Result<Self> {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self {
            channel: Rc::new(channel),
            exchange: ShortString::try_new(args.exchange.as_str())?,
            shard,
            window: args.window.max(1),
            batched: args.batched,
            sending: Vec::new(),
            unconfirmed: VecDeque::new(),
            confirmed,
        })
    }

    /// Gives an event to the library; waits while too much is unconfirmed.
    async fn publish(&mut self, name: &str, payload: &[u8]) -> Result<()> {
        while self.sending.len() + self.unconfirmed.len() >= self.window {
            self.sent().await?;
            self.oldest().await?;
            self.count()?;
        }
        let key = ShortString::try_new(format!("{name}.{}.0", self.shard))?;
        let (exchange, options) = (self.exchange.clone(), BasicPublishOptions::default());
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        if !self.batched {
            let sent = self.channel.basic_publish(exchange, key, options, payload, properties).await?;
            self.unconfirmed.push_back(sent);
            return Ok(());
        }
        let (channel, payload) = (Rc::clone(&self.channel), payload.to_vec());
        let mut sending: Sending =
            Box::pin(
                async move { channel.basic_publish(exchange, key, options, &payload, properties).await },
            );
        // Its frames are queued by the first look at it: that keeps the order.
        match sending.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Ready(sent) => self.unconfirmed.push_back(sent?),
            Poll::Pending => self.sending.push(sending),
        }
        Ok(())
    }

    /// Waits until everything is written.
    async fn sent(&mut self) -> Result<()> {
        for sending in self.sending.drain(..) {
            self.unconfirmed.push_back(sending.await?);
        }
        Ok(())
    }

    /// Waits until the oldest is confirmed.
    async fn oldest(&mut self) -> Result<()> {
        if let Some(oldest) = self.unconfirmed.front_mut() {
            let confirmation = oldest.await;
            self.unconfirmed.pop_front();
            self.settle(confirmation)?;
        }
        Ok(())
    }

    /// Counts what is confirmed by now, from the oldest on.
    fn count(&mut self) -> Result<()> {
        let mut look = TaskContext::from_waker(Waker::noop());
        while let Some(oldest) = self.unconfirmed.front_mut() {
            let Poll::Ready(confirmation) = Pin::new(oldest).poll(&mut look) else { break };
            self.unconfirmed.pop_front();
            self.settle(confirmation)?;
        }
        Ok(())
    }

    fn settle(&self, confirmation: Result<Confirmation, Error>) -> Result<()> {
        match confirmation? {
            Confirmation::Ack(_) => self.confirmed.set(self.confirmed.get() + 1),
            other => bail!("the broker says {other:?}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lapin::{
        ExchangeKind,
        options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
        types::FieldTable,
    };

    use super::*;

    const BROKER: &str = "amqp://guest:guest@localhost:5672";

    #[tokio::test]
    async fn events_arrive_in_order_and_are_counted_when_they_are_confirmed() {
        for batched in [false, true] {
            let (connection, channel) = connect(BROKER).await.unwrap();
            let exchange = format!("bench-publisher-{}-{batched}", std::process::id());
            let queue = bound(&channel, &exchange).await;
            let confirmed = Rc::new(Cell::new(0));
            // A window of two has to be waited for.
            let args = args(&exchange, batched);
            let mut outlet = Outlet::open(&args, &connection, 7, Rc::clone(&confirmed)).await.unwrap();
            for body in ["one", "two", "three", "four", "five"] {
                outlet.publish("MESSAGE_CREATE", body.as_bytes()).await.unwrap();
                assert!(outlet.sending.len() + outlet.unconfirmed.len() <= 2);
            }
            outlet.sent().await.unwrap();
            while !outlet.unconfirmed.is_empty() {
                outlet.oldest().await.unwrap();
            }
            assert_eq!(confirmed.get(), 5);
            for body in ["one", "two", "three", "four", "five"] {
                let options = BasicGetOptions { no_ack: true };
                let got = channel.basic_get(queue.clone(), options).await.unwrap().unwrap().delivery;
                assert_eq!(got.routing_key.as_str(), "MESSAGE_CREATE.7.0");
                assert_eq!(String::from_utf8_lossy(&got.data), body, "batched: {batched}");
            }
        }
    }

    fn args(exchange: &str, batched: bool) -> Args {
        Args {
            address: "127.0.0.1:1".parse().unwrap(),
            token: String::new(),
            shards: 16,
            broker: BROKER.to_owned(),
            exchange: exchange.to_owned(),
            window: 2,
            batched,
        }
    }

    /// A queue for everything on a new exchange; both go with the connection.
    async fn bound(channel: &Channel, exchange: &str) -> ShortString {
        let fleeting = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
        let none = FieldTable::default;
        channel.exchange_declare(exchange.into(), ExchangeKind::Topic, fleeting, none()).await.unwrap();
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), exclusive, none()).await.unwrap().name().clone();
        let options = QueueBindOptions::default();
        channel.queue_bind(queue.clone(), exchange.into(), "#".into(), options, none()).await.unwrap();
        queue
    }
}
