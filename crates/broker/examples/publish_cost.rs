// SPDX-License-Identifier: AGPL-3.0-only
//! What an ordered stream costs, against a bare publisher of the library below that awaits confirmations with the same
//! window: `cargo run --release -p holdfast-broker --example publish_cost [MESSAGES] [WINDOW] [PER SECOND]`. Both send the same
//! messages to a queue of RabbitMQ on this machine, in turn; CPU time is that of this process.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_broker::{
    Broker, BrokerSettings, Exchange, ExchangeKind, Message, Positioned, Properties, Publication,
    PublisherOptions, Queue, QueueKind, Topology,
};
use holdfast_service::Service;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio_util::sync::CancellationToken;

const URL: &str = "amqp://guest:guest@127.0.0.1:5672";
const BODY: usize = 1200;
const BATCH: u64 = 256;

/// What is sent, and how.
#[derive(Clone, Copy)]
struct Load {
    messages: u64,
    window: usize,
    per_second: Option<u64>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let argument = |index: usize| std::env::args().nth(index).and_then(|text| text.parse::<u64>().ok());
    let window = usize::try_from(argument(2).unwrap_or(1024)).expect("fits");
    let load = Load { messages: argument(1).unwrap_or(100_000), window, per_second: argument(3) };
    let settings = BrokerSettings { prefix: "publish-cost".to_owned(), ..BrokerSettings::at(URL) };
    let service = Service::new(CancellationToken::new());
    let broker = Broker::connect(&settings, &service).await.expect("RabbitMQ lets us in");
    let name = "publish-cost.queue".to_owned();
    // Room for little: what is measured is the way there.
    let queue = Queue { max_length: Some(1000), ..Queue::new(&name, QueueKind::Classic) };
    let topology = Topology { queues: vec![queue], ..Topology::default() };
    broker.declare(&topology).await.expect("declared");
    for _ in 0..3 {
        measure("bare", load, bare(&name, load)).await;
        measure("ours", load, ours(&broker, &name, load)).await;
    }
    let dead = Exchange::new(broker.names().dead(), ExchangeKind::Topic);
    broker.delete(&Topology { exchanges: vec![dead], ..topology }).await;
}

async fn measure(name: &str, load: Load, run: impl Future<Output = ()>) {
    let (began, cpu) = (Instant::now(), cpu());
    run.await;
    let (took, cpu) = (began.elapsed().as_secs_f64(), self::cpu() - cpu);
    let messages = load.messages as f64;
    println!("{name}: {:.0} messages/s, {:.2} us of CPU each", messages / took, cpu * 1e6 / messages);
}

/// Waits until a message's turn has come, if there is a pace.
async fn pace(load: Load, began: Instant, message: u64) {
    if let Some(per_second) = load.per_second {
        let due = began + Duration::from_secs_f64(message as f64 / per_second as f64);
        tokio::time::sleep_until(due.into()).await;
    }
}

async fn bare(queue: &str, load: Load) {
    let connection = Connection::connect(URL, ConnectionProperties::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("opened");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("selected");
    let body = vec![b'x'; BODY];
    let mut window = VecDeque::new();
    let began = Instant::now();
    for message in 1..=load.messages {
        if message % pace_every(load) == 1 {
            pace(load, began, message).await;
        }
        let mut headers = FieldTable::default();
        headers.insert("shard".into(), AMQPValue::LongString("17".into()));
        headers.insert("guild".into(), AMQPValue::LongString("81384788765712384".into()));
        headers.insert("generation".into(), AMQPValue::LongLongInt(7));
        let properties = BasicProperties::default()
            .with_message_id(format!("stream:{message}").try_into().expect("short"))
            .with_type("holdfast.v1.Event".into())
            .with_content_type("application/x-protobuf".into())
            .with_delivery_mode(2)
            .with_headers(headers);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = channel.basic_publish("".into(), queue.into(), options, &body, properties).await;
        window.push_back(confirm.expect("published"));
        if window.len() >= load.window
            && let Some(oldest) = window.pop_front()
        {
            oldest.await.expect("confirmed");
        }
    }
    for rest in window {
        rest.await.expect("confirmed");
    }
    connection.close(200, "OK".into()).await.expect("closed");
}

async fn ours(broker: &Broker, queue: &str, load: Load) {
    let options = PublisherOptions { window: load.window, ..PublisherOptions::default() };
    let mut publisher = broker.publisher(options, Box::new(|_| {}));
    let body = Bytes::from(vec![b'x'; BODY]);
    let began = Instant::now();
    let mut next = 1;
    while next <= load.messages {
        pace(load, began, next).await;
        let end = (next + BATCH.min(pace_every(load))).min(load.messages + 1);
        let batch = (next..end).map(|position| {
            let properties = Properties {
                message_id: Some(format!("stream:{position}").into()),
                kind: Some("holdfast.v1.Event".into()),
                content_type: Some("application/x-protobuf".into()),
                persistent: true,
                ..Properties::default()
            };
            let message = Message { properties, ..Message::new("", body.clone()) }
                .header("shard", "17".to_owned())
                .header("guild", "81384788765712384".to_owned())
                .header("generation", 7);
            Positioned { position, publication: Publication::new("", queue.to_owned(), message).mandatory() }
        });
        publisher.send_batch(batch.collect()).await.expect("no interruption");
        next = end;
    }
    publisher.confirmed_through(load.messages).await.expect("no interruption");
}

/// Messages that come at once: what 2 ms bring, as from a socket.
fn pace_every(load: Load) -> u64 {
    load.per_second.map_or(BATCH, |per_second| (per_second / 500).max(2))
}

/// CPU time of this process, in seconds; Linux counts hundredths for every program.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<_> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}
