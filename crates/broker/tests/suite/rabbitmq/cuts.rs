// SPDX-License-Identifier: AGPL-3.0-only
//! Connections that end in the middle of something: nothing is lost, order is kept, what waits is told.

use std::time::Duration;

use holdfast_broker::{
    Binding, Broker, ConsumerOptions, Exchange, ExchangeKind, Names, OrderedPublisher, Publication,
    PublisherOptions, Queue, RequestError, State, StreamError, Topology,
};

use super::proxy::Proxy;
use crate::stage::{DEADLINE, Stage, classic, in_time, message, next, numbered, quorum, text};

/// Publishes positions 1 to `last`, as a reader of a log would: from the first unconfirmed one after each
/// interruption. Gives how often it was interrupted.
async fn publish_all(publisher: &mut OrderedPublisher, queue: &str, last: u64) -> usize {
    let (mut sent, mut interruptions) = (0, 0);
    loop {
        let outcome = if sent < last {
            let end = (sent + 100).min(last);
            let batch = (sent + 1..=end).map(|position| numbered(position, "", queue)).collect();
            publisher.send_batch(batch).await.map(|()| sent = end)
        } else {
            publisher.confirmed_through(last).await
        };
        match outcome {
            Ok(()) if publisher.confirmed() == Some(last) => return interruptions,
            Ok(()) => {}
            Err(StreamError::Interrupted(interrupted)) => {
                sent = interrupted.confirmed.unwrap_or(0);
                interruptions += 1;
            }
            Err(StreamError::Closed) => unreachable!("the process goes on"),
        }
    }
}

/// Reads positions up to `last`. Each is the one behind the position before it, or one that came already.
async fn read_all(broker: &Broker, queue: &str, last: u64) -> u64 {
    let mut consumer = broker.consume(ConsumerOptions::new(queue));
    let (mut before, mut repeated) = (0, 0);
    while before < last {
        let delivery = next(&mut consumer).await;
        let position: u64 = text(&delivery).parse().expect("a number");
        assert!(position <= before + 1, "{position} came behind {before}");
        repeated += u64::from(position <= before);
        before = position;
        delivery.ack();
    }
    repeated
}

#[tokio::test]
async fn a_stream_cut_five_times_loses_nothing_and_keeps_its_order() {
    const MESSAGES: u64 = 20_000;
    let (proxy, direct) = (Proxy::start().await, Stage::rabbit().await);
    let queue = direct.name("queue");
    direct.queue(quorum(&queue)).await;
    let stage = Stage::at(&proxy.url()).await;
    let reading = {
        let (broker, queue) = (direct.broker.clone(), queue.clone());
        tokio::spawn(async move { read_all(&broker, &queue, MESSAGES).await })
    };
    let mut publisher = stage.broker.publisher(PublisherOptions::default(), Box::new(|_| {}));
    let cutting = async {
        let mut lost = 0;
        let mut state = stage.broker.state();
        while lost < 5 {
            in_time(state.wait_for(|state| *state == State::Connected)).await.expect("lives");
            // A message is about 100 bytes with its frames.
            proxy.cut_after(150_001 + lost * 7);
            in_time(state.wait_for(|state| *state != State::Connected)).await.expect("lives");
            lost += 1;
        }
    };
    let (interruptions, ()) =
        tokio::join!(async { in_time(publish_all(&mut publisher, &queue, MESSAGES)).await }, cutting);
    assert!(interruptions >= 5, "{interruptions}");
    let repeated = in_time(reading).await.expect("in order and whole");
    assert!(repeated <= 5 * 1024, "{repeated} repeated: more than a window each time");
    stage.end().await;
    direct.end().await;
}

#[tokio::test]
async fn a_consumer_goes_on_by_itself_and_settling_what_is_lost_does_nothing() {
    let (proxy, direct) = (Proxy::start().await, Stage::rabbit().await);
    let queue = direct.name("queue");
    direct.queue(classic(&queue)).await;
    let stage = Stage::at(&proxy.url()).await;
    let mut consumer = stage.broker.consume(ConsumerOptions::new(&queue));
    for number in 1..=3 {
        let publication = Publication::new("", queue.clone(), message(number.to_string()));
        in_time(direct.broker.publish(publication)).await.expect("published");
    }
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    first.ack();
    proxy.cut();
    stage.counted("holdfast_amqp_connections_lost_total 3").await;
    second.ack();
    // The first one's acknowledgement may have been lost with the connection; the second one's was.
    let mut came = Vec::new();
    while came.last().is_none_or(|last| last != "3") {
        let delivery = next(&mut consumer).await;
        came.push(text(&delivery));
        delivery.ack();
    }
    assert!(came.ends_with(&["2".to_owned(), "3".to_owned()]), "{came:?}");
    stage.counted("holdfast_amqp_stale_settlements_total 1").await;
    stage.end().await;
    direct.end().await;
}

#[tokio::test]
async fn what_was_declared_is_declared_again() {
    let (proxy, direct) = (Proxy::start().await, Stage::rabbit().await);
    let stage = Stage::at(&proxy.url()).await;
    // An exclusive queue goes with its connection, and so does its binding.
    let (exchange, queue) = (stage.name("commands"), stage.name("mine"));
    stage
        .declare(Topology {
            exchanges: vec![Exchange::new(&exchange, ExchangeKind::Direct)],
            queues: vec![Queue::exclusive(&queue)],
            bindings: vec![Binding::queue(&exchange, &queue, "key")],
        })
        .await;
    let mut consumer = stage.broker.consume(ConsumerOptions::new(&queue));
    let publish = async |text: &str| {
        let publication = Publication::new(exchange.clone(), "key", message(text)).mandatory();
        in_time(direct.broker.publish(publication)).await
    };
    publish("before").await.expect("routed");
    assert_eq!(text(&next(&mut consumer).await), "before");
    let mut state = stage.broker.state();
    proxy.cut();
    stage.counted("holdfast_amqp_connections_lost_total 3").await;
    in_time(state.wait_for(|state| *state == State::Connected)).await.expect("lives");
    let received = tokio::spawn(async move { text(&next(&mut consumer).await) });
    publish("after").await.expect("bound again");
    assert_eq!(in_time(received).await.expect("no panic"), "after");
    stage.end().await;
    direct.end().await;
}

#[tokio::test]
async fn whoever_waits_for_a_reply_is_told_of_the_cut() {
    let proxy = Proxy::start().await;
    let stage = Stage::at(&proxy.url()).await;
    let queue = stage.broker.names().shard_commands(0, 1, 1);
    stage.queue(classic(&queue)).await;
    let requester = stage.broker.requester(1);
    let request = Publication::new("", queue.clone(), message("?"));
    let mut answers = in_time(requester.request_many(request, DEADLINE, |_| true)).await.expect("published");
    proxy.cut();
    let error = in_time(answers.next()).await.expect("an answer").expect_err("none can come");
    assert!(matches!(error, RequestError::Disconnected(_)), "{error:?}");
    stage.end().await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_at_the_start_is_waited_for() {
    let proxy = Proxy::start().await;
    proxy.refuse(true);
    let stage = Stage::at(&proxy.url()).await;
    let mut state = stage.broker.state();
    assert!(matches!(*state.borrow(), State::Connecting { .. }), "{:?}", *state.borrow());
    let unmet = stage.service.readiness.unmet();
    assert!(unmet.len() == 1 && unmet[0].starts_with("broker: connecting: "), "{unmet:?}");
    // Whoever publishes meanwhile waits, and may give up.
    let publication = Publication::new("", "nowhere", message("1")).mandatory();
    let waited = tokio::time::timeout(Duration::from_millis(50), stage.broker.publish(publication)).await;
    assert!(waited.is_err(), "{waited:?}");
    proxy.refuse(false);
    in_time(state.wait_for(|state| *state == State::Connected)).await.expect("lives");
    assert!(stage.service.readiness.unmet().is_empty());
    let queue = stage.events("#").await;
    let key = Names::event_key("A", 0, None);
    let publication = Publication::new(stage.broker.names().events(), key, message("2")).mandatory();
    in_time(stage.broker.publish(publication)).await.expect("published");
    assert_eq!(text(&next(&mut stage.consume(&queue)).await), "2");
    stage.end().await;
}
