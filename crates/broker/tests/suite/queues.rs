// SPDX-License-Identifier: AGPL-3.0-only
//! Queues: what is settled and what isn't, bounds, priorities, age, the dead.

use std::time::Duration;

use holdfast_broker::{
    Binding, Broker, ConsumerOptions, DeadLetter, Exchange, ExchangeKind, HEADER_REASON, Header, Message,
    Overflow, Properties, Publication, PublishError, Queue, Topology,
};

use crate::stage::{DEADLINE, Stage, classic, in_time, message, next, quorum, text};

async fn publish(broker: &Broker, queue: &str, message: Message) {
    let publication = Publication::new("", queue.to_owned(), message).mandatory();
    in_time(broker.publish(publication)).await.expect("published");
}

/// The exchange of the dead with a queue on it; the queue's name.
async fn graveyard(stage: &Stage) -> String {
    let (exchange, queue) = (stage.broker.names().dead(), stage.name("graveyard"));
    stage
        .declare(Topology {
            exchanges: vec![Exchange::new(&exchange, ExchangeKind::Topic)],
            queues: vec![classic(&queue)],
            bindings: vec![Binding::queue(&exchange, &queue, "#")],
        })
        .await;
    queue
}

fn dead_letter(stage: &Stage) -> Option<DeadLetter> {
    Some(DeadLetter { exchange: stage.broker.names().dead(), key: None })
}

async fn a_message_keeps_body_properties_and_headers(stage: Stage) {
    let queue = stage.name("queue");
    stage.queue(classic(&queue)).await;
    let properties = Properties {
        message_id: Some("stream:7".into()),
        correlation_id: Some("c".into()),
        reply_to: Some("answers".into()),
        kind: Some("holdfast.v1.Event".into()),
        content_type: Some("application/x-protobuf".into()),
        expiration: Some(Duration::from_secs(60)),
        priority: Some(3),
        timestamp: Some(1_700_000_000),
        persistent: true,
    };
    let sent = Message { properties, ..Message::new("", vec![0, 255, 10]) }
        .header("guild", "81384788765712384")
        .header("generation", 7)
        .header("flag", true);
    publish(&stage.broker, &queue, sent.clone()).await;
    let delivery = next(&mut stage.consume(&queue)).await;
    assert_eq!((delivery.exchange.as_str(), delivery.key.as_str()), ("", queue.as_str()));
    assert!(!delivery.redelivered);
    assert_eq!(delivery.message.body, sent.body);
    assert_eq!(delivery.message.properties, sent.properties);
    let headers = &delivery.message.headers;
    assert_eq!(headers.text("guild"), Some("81384788765712384"));
    assert_eq!((headers.integer("generation"), headers.get("flag")), (Some(7), Some(&Header::Flag(true))));
    stage.end().await;
}

async fn ten_megabytes_arrive_whole(stage: Stage) {
    let queue = stage.name("queue");
    stage.queue(classic(&queue)).await;
    let body: Vec<u8> = (0..10 * 1024 * 1024u32).map(|at| (at % 251) as u8).collect();
    publish(&stage.broker, &queue, Message::new("TEST", body.clone())).await;
    let delivery = next(&mut stage.consume(&queue)).await;
    assert!(delivery.message.body == body, "{} bytes came", delivery.message.body.len());
    delivery.ack();
    stage.end().await;
}

async fn what_is_acknowledged_is_gone_and_the_rest_comes_again(stage: Stage) {
    let queue = stage.name("queue");
    stage.queue(classic(&queue)).await;
    for number in 1..=6 {
        publish(&stage.broker, &queue, message(number.to_string())).await;
    }
    let mut consumer = stage.consume(&queue);
    let mut held = Vec::new();
    for number in 1..=6 {
        let delivery = next(&mut consumer).await;
        match number {
            // 1 to 3.
            3 => delivery.ack_up_to(),
            5 => delivery.ack(),
            _ => held.push(delivery),
        }
    }
    drop((consumer, held));
    let mut again = stage.consume(&queue);
    for number in ["4", "6"] {
        let delivery = next(&mut again).await;
        assert_eq!((text(&delivery).as_str(), delivery.redelivered), (number, true));
        delivery.ack();
    }
    stage.end().await;
}

async fn what_is_put_back_comes_again_marked(stage: Stage) {
    let queue = stage.name("queue");
    stage.queue(classic(&queue)).await;
    publish(&stage.broker, &queue, message("1")).await;
    let mut consumer = stage.consume(&queue);
    next(&mut consumer).await.requeue();
    let delivery = next(&mut consumer).await;
    assert_eq!((text(&delivery).as_str(), delivery.redelivered), ("1", true));
    stage.end().await;
}

async fn no_more_is_delivered_than_the_prefetch(stage: Stage) {
    let queue = stage.name("queue");
    stage.queue(classic(&queue)).await;
    for number in 1..=3 {
        publish(&stage.broker, &queue, message(number.to_string())).await;
    }
    let mut consumer = stage.broker.consume(ConsumerOptions { prefetch: 2, ..ConsumerOptions::new(&queue) });
    let first = next(&mut consumer).await;
    let _second = next(&mut consumer).await;
    // The third goes to somebody else, so it was not on its way to this one.
    let mut other = stage.consume(&queue);
    let third = next(&mut other).await;
    assert_eq!(text(&third), "3");
    third.requeue();
    drop(other);
    first.ack();
    assert_eq!(text(&next(&mut consumer).await), "3");
    stage.end().await;
}

async fn a_poison_message_is_dead_with_its_reason_and_queue(stage: Stage) {
    let queue = stage.name("queue");
    stage.queue(classic(&queue)).await;
    let graveyard = graveyard(&stage).await;
    publish(&stage.broker, &queue, message("poison").header("guild", "5")).await;
    publish(&stage.broker, &queue, message("good")).await;
    let mut consumer = stage.consume(&queue);
    in_time(next(&mut consumer).await.reject("MALFORMED")).await.expect("buried");
    let good = next(&mut consumer).await;
    assert_eq!(text(&good), "good");
    good.ack();
    let dead = next(&mut stage.consume(&graveyard)).await;
    assert_eq!((text(&dead).as_str(), dead.key.as_str()), ("poison", queue.as_str()));
    assert_eq!(dead.message.headers.text(HEADER_REASON), Some("MALFORMED"));
    assert_eq!(dead.message.headers.text("guild"), Some("5"));
    stage.end().await;
}

async fn a_poison_message_goes_even_if_nobody_looks_at_the_dead(stage: Stage) {
    let queue = stage.name("queue");
    stage.queue(classic(&queue)).await;
    publish(&stage.broker, &queue, message("poison")).await;
    let mut consumer = stage.consume(&queue);
    in_time(next(&mut consumer).await.reject("MALFORMED")).await.expect("gone");
    drop(consumer);
    publish(&stage.broker, &queue, message("good")).await;
    assert_eq!(text(&next(&mut stage.consume(&queue)).await), "good");
    stage.end().await;
}

async fn an_expired_message_is_dead_and_not_delivered(stage: Stage) {
    let queue = stage.name("queue");
    let graveyard = graveyard(&stage).await;
    stage.queue(Queue { dead_letter: dead_letter(&stage), ..classic(&queue) }).await;
    let mut late = message("late");
    late.properties.expiration = Some(Duration::from_millis(50));
    publish(&stage.broker, &queue, late).await;
    let dead = next(&mut stage.consume(&graveyard)).await;
    assert_eq!(text(&dead), "late");
    assert_eq!(dead.message.headers.text("x-first-death-reason"), Some("expired"));
    publish(&stage.broker, &queue, message("next")).await;
    assert_eq!(text(&next(&mut stage.consume(&queue)).await), "next");
    stage.end().await;
}

async fn a_full_queue_lets_go_of_its_oldest(stage: Stage) {
    let queue = stage.name("queue");
    let graveyard = graveyard(&stage).await;
    stage.queue(Queue { max_length: Some(2), dead_letter: dead_letter(&stage), ..classic(&queue) }).await;
    for number in 1..=3 {
        publish(&stage.broker, &queue, message(number.to_string())).await;
    }
    let dead = next(&mut stage.consume(&graveyard)).await;
    assert_eq!(text(&dead), "1");
    assert_eq!(dead.message.headers.text("x-first-death-reason"), Some("maxlen"));
    let mut consumer = stage.consume(&queue);
    for number in ["2", "3"] {
        assert_eq!(text(&next(&mut consumer).await), number);
    }
    stage.end().await;
}

async fn a_full_queue_that_rejects_says_so(stage: Stage) {
    let queue = stage.name("queue");
    let bound = Queue { max_length: Some(1), overflow: Overflow::RejectPublish, ..classic(&queue) };
    stage.queue(bound).await;
    let mut refused = false;
    // RabbitMQ takes one or two more until the queue has told its channels that it is full.
    for number in 0..10 {
        let publication = Publication::new("", queue.clone(), message(number.to_string()));
        match in_time(stage.broker.publish(publication)).await {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, PublishError::Nacked);
                refused = true;
            }
        }
    }
    assert!(refused);
    stage.end().await;
}

async fn the_higher_priority_goes_first(stage: Stage) {
    let queue = stage.name("queue");
    stage.queue(Queue { max_priority: Some(5), ..classic(&queue) }).await;
    for (text, priority) in [("low", 0), ("middle", 3), ("high", 5), ("middle too", 3)] {
        let mut message = message(text);
        message.properties.priority = Some(priority);
        publish(&stage.broker, &queue, message).await;
    }
    let mut consumer = stage.consume(&queue);
    for expected in ["high", "middle", "middle too", "low"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), expected);
        delivery.ack();
    }
    stage.end().await;
}

async fn of_single_active_consumers_one_gets_all_until_it_leaves(stage: Stage) {
    let queue = stage.name("queue");
    stage.queue(Queue { single_active_consumer: true, ..quorum(&queue) }).await;
    let mut first = stage.consume(&queue);
    publish(&stage.broker, &queue, message("1")).await;
    next(&mut first).await.ack();
    let mut second = stage.consume(&queue);
    for number in 2..=20 {
        publish(&stage.broker, &queue, message(number.to_string())).await;
    }
    for number in 2..=19 {
        let delivery = tokio::select! {
            delivery = next(&mut first) => delivery,
            _ = second.next() => unreachable!("the second one waits"),
        };
        assert_eq!(text(&delivery), number.to_string());
        delivery.ack();
    }
    drop(first);
    assert_eq!(text(&next(&mut second).await), "20");
    stage.end().await;
}

async fn what_is_delivered_too_often_is_dead(stage: Stage) {
    let queue = stage.name("queue");
    let graveyard = graveyard(&stage).await;
    let limited = Queue { delivery_limit: Some(2), dead_letter: dead_letter(&stage), ..quorum(&queue) };
    stage.queue(limited).await;
    publish(&stage.broker, &queue, message("again")).await;
    let mut consumer = stage.consume(&queue);
    for count in [None, Some(1), Some(2)] {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.headers.integer("x-delivery-count"), count);
        delivery.requeue();
    }
    let dead = next(&mut stage.consume(&graveyard)).await;
    assert_eq!(dead.message.headers.text("x-first-death-reason"), Some("delivery_limit"));
    stage.end().await;
}

async fn a_consumer_may_begin_before_its_queue_is_there(stage: Stage) {
    let queue = stage.name("queue");
    let mut consumer = stage.consume(&queue);
    let waiting = tokio::spawn(async move { next(&mut consumer).await });
    stage.queue(classic(&queue)).await;
    publish(&stage.broker, &queue, message("1")).await;
    let delivery = tokio::time::timeout(DEADLINE, waiting).await.expect("in time").expect("no panic");
    assert_eq!(text(&delivery), "1");
    stage.end().await;
}

async fn a_consumer_ends_with_the_process(stage: Stage) {
    let queue = stage.name("queue");
    stage.queue(classic(&queue)).await;
    let mut consumer = stage.consume(&queue);
    let waiting = tokio::spawn(async move { consumer.next().await.is_none() });
    stage.end().await;
    assert!(in_time(waiting).await.expect("no panic"));
}

on_both!(
    a_message_keeps_body_properties_and_headers,
    ten_megabytes_arrive_whole,
    what_is_acknowledged_is_gone_and_the_rest_comes_again,
    what_is_put_back_comes_again_marked,
    no_more_is_delivered_than_the_prefetch,
    a_poison_message_is_dead_with_its_reason_and_queue,
    a_poison_message_goes_even_if_nobody_looks_at_the_dead,
    an_expired_message_is_dead_and_not_delivered,
    a_full_queue_lets_go_of_its_oldest,
    a_full_queue_that_rejects_says_so,
    the_higher_priority_goes_first,
    of_single_active_consumers_one_gets_all_until_it_leaves,
    what_is_delivered_too_often_is_dead,
    a_consumer_may_begin_before_its_queue_is_there,
    a_consumer_ends_with_the_process,
);
