// SPDX-License-Identifier: AGPL-3.0-only
//! A careful consumer: it knows each id once, sees that repetitions are the same and that the rest is in order.

use std::collections::HashMap;

use holdfast_broker::{Broker, Consumer, ConsumerOptions, Delivery, Message};
use holdfast_contract::v1::{Event, Gap};
use prost::Message as _;
use serde_json::{Value, json};

use crate::support::{Ledger, within};

/// Acknowledged at once, so that a burst doesn't take all day.
const ACKNOWLEDGE: usize = 64;

/// What a message holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Event(Event),
    Gap(Gap),
}

/// A message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) exchange: String,
    pub(crate) key: String,
    pub(crate) message: Message,
    pub(crate) body: Body,
}

/// What came through one queue.
pub(crate) struct Inbox {
    consumer: Consumer,
    unacknowledged: usize,
    /// First arrivals, in order.
    pub(crate) arrivals: Vec<Arrival>,
    by_id: HashMap<String, usize>,
    /// The last position of each shard's stream.
    last: HashMap<(u32, String), u64>,
    /// Messages of the simulator, each id once.
    pub(crate) ledger: Ledger,
    /// Arrivals of ids that were here already.
    pub(crate) repeated: usize,
}

impl Arrival {
    fn new(delivery: &Delivery) -> Self {
        let message = delivery.message.clone();
        let body = match message.properties.kind.as_deref() {
            Some("holdfast.v1.Event") => Body::Event(Event::decode(message.body.clone()).expect("an Event")),
            Some("holdfast.v1.Gap") => Body::Gap(Gap::decode(message.body.clone()).expect("a Gap")),
            other => panic!("a message of type {other:?}"),
        };
        Self { exchange: delivery.exchange.clone(), key: delivery.key.clone(), message, body }
    }

    pub(crate) fn id(&self) -> String {
        self.message.properties.message_id.as_deref().expect("a message_id").to_owned()
    }

    pub(crate) fn event(&self) -> Option<&Event> {
        match &self.body {
            Body::Event(event) => Some(event),
            Body::Gap(_) => None,
        }
    }

    pub(crate) fn gap(&self) -> Option<&Gap> {
        match &self.body {
            Body::Event(_) => None,
            Body::Gap(gap) => Some(gap),
        }
    }
}

impl Inbox {
    pub(crate) fn new(broker: &Broker, queue: String) -> Self {
        Self {
            consumer: broker.consume(ConsumerOptions::new(queue)),
            unacknowledged: 0,
            arrivals: Vec::new(),
            by_id: HashMap::new(),
            last: HashMap::new(),
            ledger: Ledger::default(),
            repeated: 0,
        }
    }

    /// Takes one message in. The arrival, if its id is new.
    pub(crate) async fn next(&mut self) -> Option<&Arrival> {
        let delivery = within("a message", self.consumer.next()).await.expect("the consumer goes on");
        let arrival = Arrival::new(&delivery);
        self.unacknowledged += 1;
        if self.unacknowledged >= ACKNOWLEDGE {
            delivery.ack_up_to();
            self.unacknowledged = 0;
        }
        self.note(arrival)
    }

    fn note(&mut self, arrival: Arrival) -> Option<&Arrival> {
        let id = arrival.id();
        if let Some(known) = self.by_id.get(&id) {
            self.repeated += 1;
            match (&self.arrivals[*known].body, &arrival.body) {
                (Body::Event(old), Body::Event(new)) => {
                    assert_eq!(
                        (&old.name, &old.data),
                        (&new.name, &new.data),
                        "{id} is always the same event"
                    );
                }
                (Body::Gap(old), Body::Gap(new)) => {
                    assert_eq!((old.to, old.reason), (new.to, new.reason), "{id}")
                }
                _ => panic!("{id} is an event and a gap"),
            }
            return None;
        }
        if let Body::Event(event) = &arrival.body {
            let last = self.last.entry((event.shard, event.stream.clone())).or_default();
            assert!(event.position > *last, "{id} of shard {} is new, and comes behind {last}", event.shard);
            *last = event.position;
            if event.name == "MESSAGE_CREATE" {
                let data: Value = serde_json::from_slice(&event.data).expect("JSON");
                self.ledger.note(&json!({ "t": event.name, "d": data }));
            }
        }
        self.by_id.insert(id, self.arrivals.len());
        self.arrivals.push(arrival);
        self.arrivals.last()
    }

    /// Reads until an arrival that is wanted; gives it.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Arrival) -> bool) -> Arrival {
        loop {
            if let Some(arrival) = self.next().await.filter(|arrival| wanted(arrival)) {
                return arrival.clone();
            }
        }
    }

    /// Reads until an event of this name.
    pub(crate) async fn until_event(&mut self, name: &str) -> Event {
        let arrival = self.until(|arrival| arrival.event().is_some_and(|event| event.name == name)).await;
        arrival.event().expect("an event").clone()
    }

    /// Reads until a gap.
    pub(crate) async fn until_gap(&mut self) -> Gap {
        let arrival = self.until(|arrival| arrival.gap().is_some()).await;
        arrival.gap().expect("a gap").clone()
    }

    /// Reads until the last of these messages is there.
    pub(crate) async fn until_last(&mut self, sent: &std::collections::BTreeMap<String, u64>) {
        while !self.ledger.has_last(sent) {
            self.next().await;
        }
    }

    /// Reads until so many of the simulator's messages are there.
    pub(crate) async fn until_messages(&mut self, count: usize) {
        while self.ledger.count() < count {
            self.next().await;
        }
    }

    /// All events, each once, in order.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.arrivals.iter().filter_map(Arrival::event)
    }

    /// All gaps, each once, in order.
    pub(crate) fn gaps(&self) -> Vec<&Gap> {
        self.arrivals.iter().filter_map(Arrival::gap).collect()
    }

    /// Of each shard, every position is here, from the first to the last, but for what gaps tell.
    pub(crate) fn assert_unbroken(&self) {
        let mut next: HashMap<u32, u64> = HashMap::new();
        for arrival in &self.arrivals {
            match &arrival.body {
                Body::Event(event) => {
                    let expected = next.insert(event.shard, event.position + 1).unwrap_or(event.position);
                    assert_eq!(event.position, expected, "shard {}: {}", event.shard, arrival.id());
                }
                Body::Gap(gap) => {
                    next.insert(gap.shard, gap.to);
                }
            }
        }
    }
}
