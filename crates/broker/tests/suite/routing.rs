// SPDX-License-Identifier: AGPL-3.0-only
//! Exchanges: who gets what.

use std::collections::BTreeMap;

use holdfast_broker::{
    Binding, DeclareError, Exchange, ExchangeKind, HEADER_GUILD, Publication, PublishError, Queue, QueueKind,
    Refusal, Topology,
};

use crate::stage::{Stage, classic, in_time, message, next, text};

async fn publish(stage: &Stage, exchange: &str, key: &str, body: &str) -> Result<(), PublishError> {
    let publication = Publication::new(exchange.to_owned(), key.to_owned(), message(body)).mandatory();
    in_time(stage.broker.publish(publication)).await
}

async fn a_direct_exchange_goes_by_the_whole_key(stage: Stage) {
    let (exchange, queue) = (stage.broker.names().commands(), stage.name("queue"));
    stage
        .declare(Topology {
            exchanges: vec![Exchange::new(&exchange, ExchangeKind::Direct)],
            queues: vec![classic(&queue)],
            bindings: vec![Binding::queue(&exchange, &queue, "shard.1.2")],
        })
        .await;
    publish(&stage, &exchange, "shard.1.2", "1").await.expect("routed");
    assert_eq!(publish(&stage, &exchange, "shard.1", "2").await, Err(PublishError::Unrouted));
    assert_eq!(publish(&stage, &exchange, "shard.1.2.3", "3").await, Err(PublishError::Unrouted));
    assert_eq!(text(&next(&mut stage.consume(&queue)).await), "1");
    stage.end().await;
}

async fn what_no_queue_takes_goes_to_the_alternate_exchange(stage: Stage) {
    let (events, unrouted) = (stage.broker.names().events(), stage.broker.names().unrouted());
    let (queue, rest) = (stage.name("queue"), stage.name("rest"));
    let exchange =
        Exchange { alternate: Some(unrouted.clone()), ..Exchange::new(&events, ExchangeKind::Topic) };
    stage
        .declare(Topology {
            exchanges: vec![Exchange::new(&unrouted, ExchangeKind::Fanout), exchange],
            queues: vec![classic(&queue), classic(&rest)],
            bindings: vec![Binding::queue(&events, &queue, "A.#"), Binding::queue(&unrouted, &rest, "")],
        })
        .await;
    publish(&stage, &events, "A.1.2", "taken").await.expect("routed");
    publish(&stage, &events, "B.1.2", "left").await.expect("routed");
    assert_eq!(text(&next(&mut stage.consume(&queue)).await), "taken");
    let left = next(&mut stage.consume(&rest)).await;
    assert_eq!((text(&left).as_str(), left.key.as_str()), ("left", "B.1.2"));
    stage.end().await;
}

async fn a_guild_s_events_stay_in_one_partition_in_order(stage: Stage) {
    const GUILDS: u64 = 40;
    const ROUNDS: u64 = 5;
    let names = stage.broker.names().clone();
    let hash = ExchangeKind::ConsistentHash { header: HEADER_GUILD.into() };
    let partitions: Vec<_> = (0..4).map(|number| names.partition(number)).collect();
    let to_queues = partitions.iter().map(|queue| Binding::queue(names.partitions(), queue, "1"));
    stage
        .declare(Topology {
            exchanges: vec![
                Exchange::new(names.events(), ExchangeKind::Topic),
                Exchange::new(names.partitions(), hash),
            ],
            queues: partitions.iter().map(|queue| classic(queue)).collect(),
            bindings: to_queues.chain([Binding::exchange(names.events(), names.partitions(), "#")]).collect(),
        })
        .await;
    for round in 0..ROUNDS {
        for guild in 1..=GUILDS {
            let message = message(round.to_string()).header(HEADER_GUILD, guild.to_string());
            let key = format!("A.0.{guild}");
            let publication = Publication::new(names.events(), key, message).mandatory();
            in_time(stage.broker.publish(publication)).await.expect("routed");
        }
    }
    let mut places: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
    let mut consumers: Vec<_> = partitions.iter().map(|queue| stage.consume(queue)).collect();
    let [a, b, c, d] = &mut consumers[..] else { unreachable!("four partitions") };
    for _ in 0..GUILDS * ROUNDS {
        let (partition, delivery) = in_time(async {
            tokio::select! {
                delivery = a.next() => (0, delivery),
                delivery = b.next() => (1, delivery),
                delivery = c.next() => (2, delivery),
                delivery = d.next() => (3, delivery),
            }
        })
        .await;
        let delivery = delivery.expect("no end");
        let guild = delivery.message.headers.text(HEADER_GUILD).expect("a guild").to_owned();
        places.entry(guild).or_default().push((partition, text(&delivery)));
        delivery.ack();
    }
    assert_eq!(places.len() as u64, GUILDS);
    for (guild, came) in &places {
        assert!(came.iter().all(|(partition, _)| *partition == came[0].0), "guild {guild}: {came:?}");
        let rounds: Vec<_> = came.iter().map(|(_, round)| round.as_str()).collect();
        assert_eq!(rounds, ["0", "1", "2", "3", "4"], "guild {guild}");
    }
    let used = places.values().map(|came| came[0].0).collect::<std::collections::BTreeSet<_>>();
    assert!(used.len() >= 3, "forty guilds use {used:?} of four partitions");
    stage.end().await;
}

async fn what_is_there_and_differs_is_refused_by_name(stage: Stage) {
    let (exchange, queue) = (stage.broker.names().events(), stage.name("queue"));
    stage
        .declare(Topology {
            exchanges: vec![Exchange::new(&exchange, ExchangeKind::Direct)],
            queues: vec![classic(&queue)],
            bindings: vec![],
        })
        .await;
    let topic =
        Topology { exchanges: vec![Exchange::new(&exchange, ExchangeKind::Topic)], ..Topology::default() };
    let quorum = Topology { queues: vec![Queue::new(&queue, QueueKind::Quorum)], ..Topology::default() };
    for (topology, name) in [(topic, &exchange), (quorum, &queue)] {
        let error = in_time(stage.broker.declare(&topology)).await.expect_err("it differs");
        let DeclareError::Refused(Refusal::Mismatch(said)) = &error else { unreachable!("{error:?}") };
        assert!(said.contains(name.as_str()), "{said}");
        assert!(error.to_string().contains("delete it, or set another broker.prefix"), "{error}");
    }
    // The broker is none the worse for it.
    publish(&stage, "", &queue, "1").await.expect("routed");
    stage.end().await;
}

async fn what_is_deleted_takes_nothing_any_more(stage: Stage) {
    let queue = stage.events("#").await;
    let exchange = stage.broker.names().events();
    publish(&stage, &exchange, "A.0.0", "1").await.expect("routed");
    let unbound = Topology { bindings: vec![Binding::queue(&exchange, &queue, "#")], ..Topology::default() };
    in_time(stage.broker.delete(&unbound)).await;
    assert_eq!(publish(&stage, &exchange, "A.0.0", "2").await, Err(PublishError::Unrouted));
    publish(&stage, "", &queue, "3").await.expect("the queue is there");
    let deleted = Topology { queues: vec![classic(&queue)], ..Topology::default() };
    in_time(stage.broker.delete(&deleted)).await;
    assert_eq!(publish(&stage, "", &queue, "4").await, Err(PublishError::Unrouted));
    stage.end().await;
}

on_both!(
    a_direct_exchange_goes_by_the_whole_key,
    what_no_queue_takes_goes_to_the_alternate_exchange,
    a_guild_s_events_stay_in_one_partition_in_order,
    what_is_there_and_differs_is_refused_by_name,
    what_is_deleted_takes_nothing_any_more,
);
