// SPDX-License-Identifier: AGPL-3.0-only
//! Exchanges, queues and bindings as data. They are declared when a part of the program needs them, and again after
//! every reconnection.

use std::time::Duration;

use crate::message::Text;
use crate::names::Names;

/// What is to be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// Declared first.
    pub exchanges: Vec<Exchange>,
    /// Declared second.
    pub queues: Vec<Queue>,
    /// Made last.
    pub bindings: Vec<Binding>,
}

/// An exchange. Exchanges are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Where messages go that no queue takes.
    pub alternate: Option<String>,
    /// Whether it goes when its last binding does.
    pub auto_delete: bool,
}

/// How an exchange routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By the routing key, word by word: `*` stands for one, `#` for any number.
    Topic,
    /// By the routing key as a whole.
    Direct,
    /// To everything bound.
    Fanout,
    /// To one of the queues bound, always the same for the same value of a header; the binding's key is the queue's
    /// weight. Needs the plugin `rabbitmq_consistent_hash_exchange`.
    ConsistentHash {
        /// The header.
        header: Text,
    },
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// How it stores.
    pub kind: QueueKind,
    /// Whether it survives a restart of the broker. Quorum queues and streams always do.
    pub durable: bool,
    /// Whether it belongs to this process's connection alone, and goes with it.
    pub exclusive: bool,
    /// Whether it goes when its last consumer does.
    pub auto_delete: bool,
    /// Whether one consumer gets everything until it leaves, and the others wait.
    pub single_active_consumer: bool,
    /// Most messages that wait.
    pub max_length: Option<u64>,
    /// Most bytes that wait.
    pub max_length_bytes: Option<u64>,
    /// What happens beyond.
    pub overflow: Overflow,
    /// How long a message may wait; after that it is dead.
    pub message_ttl: Option<Duration>,
    /// How long the queue stays without a consumer.
    pub expires: Option<Duration>,
    /// Where dead messages go: expired, rejected without a reason, delivered too often, pushed out by newer ones.
    pub dead_letter: Option<DeadLetter>,
    /// How often a message may be delivered again before it is dead. Quorum queues only.
    pub delivery_limit: Option<u32>,
    /// The highest priority. Classic queues only.
    pub max_priority: Option<u8>,
    /// How old a stream's messages get. Streams only.
    pub max_age: Option<Duration>,
}

/// How a queue stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// On one node.
    Classic,
    /// On a majority of nodes.
    Quorum,
    /// As a log that every consumer reads from where it likes.
    Stream,
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Lets go of the oldest message.
    DropHead,
    /// Refuses the new one: its publisher gets a nack.
    RejectPublish,
}

/// Where dead messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The exchange.
    pub exchange: String,
    /// The routing key; the message's own without it.
    pub key: Option<String>,
}

/// Lets messages pass from an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The exchange.
    pub source: String,
    /// Where to.
    pub destination: Destination,
    /// Which ones: a pattern, a key, a weight, by the exchange's kind.
    pub key: String,
}

/// What a binding leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A queue.
    Queue(String),
    /// Another exchange.
    Exchange(String),
}

impl Topology {
    /// What rejected messages need to get away, whoever rejects them.
    pub(crate) fn of_every_broker(names: &Names) -> Self {
        Self { exchanges: vec![Exchange::new(names.dead(), ExchangeKind::Topic)], ..Self::default() }
    }

    /// Adds what isn't there yet.
    pub(crate) fn merge(&mut self, more: &Self) {
        fn add<T: PartialEq + Clone>(known: &mut Vec<T>, more: &[T]) {
            for one in more {
                if !known.contains(one) {
                    known.push(one.clone());
                }
            }
        }
        add(&mut self.exchanges, &more.exchanges);
        add(&mut self.queues, &more.queues);
        add(&mut self.bindings, &more.bindings);
    }

    /// Takes out a queue with its bindings.
    pub(crate) fn forget_queue(&mut self, name: &str) {
        self.queues.retain(|queue| queue.name != name);
        self.bindings.retain(|binding| !binding.leads_to_queue(name));
    }

    /// Takes out an exchange with its bindings.
    pub(crate) fn forget_exchange(&mut self, name: &str) {
        self.exchanges.retain(|exchange| exchange.name != name);
        self.bindings.retain(|binding| {
            binding.source != name
                && !matches!(&binding.destination, Destination::Exchange(other) if other == name)
        });
    }

    /// A queue with its bindings.
    pub(crate) fn of_queue(&self, name: &str) -> Self {
        let queues = self.queues.iter().filter(|queue| queue.name == name).cloned();
        let bindings = self.bindings.iter().filter(|binding| binding.leads_to_queue(name)).cloned();
        Self { exchanges: Vec::new(), queues: queues.collect(), bindings: bindings.collect() }
    }

    /// All but the queues that belong to one connection.
    pub(crate) fn shared(&self) -> Self {
        let mut shared = self.clone();
        for queue in self.queues.iter().filter(|queue| queue.exclusive) {
            shared.forget_queue(&queue.name);
        }
        shared
    }
}

impl Exchange {
    /// An exchange.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: ExchangeKind) -> Self {
        Self { name: name.into(), kind, alternate: None, auto_delete: false }
    }
}

impl Queue {
    /// A queue of a kind, durable, without any bound: set one (`Queue { max_length: …, ..Queue::new(…) }`), so that a
    /// dead worker can't fill the broker.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: QueueKind) -> Self {
        Self {
            name: name.into(),
            kind,
            durable: true,
            exclusive: false,
            auto_delete: false,
            single_active_consumer: false,
            max_length: None,
            max_length_bytes: None,
            overflow: Overflow::DropHead,
            message_ttl: None,
            expires: None,
            dead_letter: None,
            delivery_limit: None,
            max_priority: None,
            max_age: None,
        }
    }

    /// A classic queue of this process's connection alone.
    #[must_use]
    pub fn exclusive(name: impl Into<String>) -> Self {
        Self { durable: false, exclusive: true, auto_delete: true, ..Self::new(name, QueueKind::Classic) }
    }
}

impl Binding {
    /// From an exchange to a queue.
    #[must_use]
    pub fn queue(source: impl Into<String>, queue: impl Into<String>, key: impl Into<String>) -> Self {
        Self { source: source.into(), destination: Destination::Queue(queue.into()), key: key.into() }
    }

    /// From an exchange to another.
    #[must_use]
    pub fn exchange(source: impl Into<String>, exchange: impl Into<String>, key: impl Into<String>) -> Self {
        Self { source: source.into(), destination: Destination::Exchange(exchange.into()), key: key.into() }
    }

    fn leads_to_queue(&self, name: &str) -> bool {
        matches!(&self.destination, Destination::Queue(queue) if queue == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_queue_is_left_to_its_connection_with_its_bindings() {
        let topology = Topology {
            exchanges: vec![Exchange::new("e", ExchangeKind::Direct)],
            queues: vec![Queue::exclusive("mine"), Queue::new("ours", QueueKind::Quorum)],
            bindings: vec![Binding::queue("e", "mine", "k"), Binding::queue("e", "ours", "k")],
        };
        let shared = topology.shared();
        assert_eq!(shared.queues, [Queue::new("ours", QueueKind::Quorum)]);
        assert_eq!(shared.bindings, [Binding::queue("e", "ours", "k")]);
    }

    #[test]
    fn what_is_declared_twice_is_remembered_once() {
        let one = Topology { queues: vec![Queue::exclusive("mine")], ..Topology::default() };
        let mut known = one.clone();
        known.merge(&one);
        assert_eq!(known, one);
        known.forget_queue("mine");
        assert_eq!(known, Topology::default());
    }
}
