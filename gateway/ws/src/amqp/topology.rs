// SPDX-License-Identifier: AGPL-3.0-only
//! What the AMQP front declares. In: settings, names. Out: exchanges, queues, bindings. Pure.

use holdfast_broker::{
    Binding, DeadLetter, Exchange, ExchangeKind, HEADER_GUILD, Names, Queue, QueueKind, Topology,
};
use holdfast_contract::GAP;

use super::settings::{AmqpSettings, Bounds, QueueSettings, QueueType};

/// Weight of a partition's queue on the consistent-hash exchange: points on its ring. With too few the guilds would be
/// spread unevenly.
const WEIGHT: &str = "20";

/// Everything that these settings need.
pub(super) fn of(settings: &AmqpSettings, names: &Names) -> Topology {
    let mut events = Exchange::new(names.events(), ExchangeKind::Topic);
    let dead = Exchange::new(names.dead(), ExchangeKind::Topic);
    let mut topology = Topology::default();
    if settings.unrouted {
        events.alternate = Some(names.unrouted());
        topology.exchanges.push(Exchange::new(names.unrouted(), ExchangeKind::Fanout));
    }
    topology.exchanges.extend([dead, events]);
    for queue in &settings.queues {
        add_queue(&mut topology, queue, names);
    }
    if settings.partitions > 0 {
        add_partitions(&mut topology, settings, names);
    }
    topology
}

fn add_queue(topology: &mut Topology, settings: &QueueSettings, names: &Names) {
    let name = format!("{}.{}", names.prefix(), settings.name);
    for key in &settings.bindings {
        topology.bindings.push(Binding::queue(names.events(), name.clone(), key.clone()));
    }
    let queue = match settings.kind {
        QueueType::Quorum => quorum(name, &settings.bounds, names),
        QueueType::Stream => Queue {
            max_length_bytes: Some(settings.bounds.max_bytes),
            max_age: Some(settings.bounds.max_age),
            ..Queue::new(name, QueueKind::Stream)
        },
    };
    topology.queues.push(Queue { single_active_consumer: settings.single_active_consumer, ..queue });
}

fn add_partitions(topology: &mut Topology, settings: &AmqpSettings, names: &Names) {
    let kind = ExchangeKind::ConsistentHash { header: HEADER_GUILD.into() };
    topology.exchanges.push(Exchange::new(names.partitions(), kind));
    topology.bindings.push(Binding::exchange(names.events(), names.partitions(), "#"));
    for number in 0..settings.partitions {
        let name = names.partition(number);
        let queue = quorum(name.clone(), &settings.partition, names);
        topology.queues.push(Queue { single_active_consumer: true, ..queue });
        topology.bindings.push(Binding::queue(names.partitions(), name.clone(), WEIGHT));
        // A gap concerns all guilds of its shard: every partition is told.
        topology.bindings.push(Binding::queue(names.events(), name, format!("{GAP}.#")));
    }
}

fn quorum(name: String, bounds: &Bounds, names: &Names) -> Queue {
    let dead_letter = Some(DeadLetter { exchange: names.dead(), key: Some(name.clone()) });
    Queue {
        max_length: Some(bounds.max_length),
        max_length_bytes: Some(bounds.max_bytes),
        delivery_limit: Some(bounds.delivery_limit),
        dead_letter,
        ..Queue::new(name, QueueKind::Quorum)
    }
}
