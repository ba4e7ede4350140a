// SPDX-License-Identifier: AGPL-3.0-only
//! A broker that takes nothing for a while (`connection.blocked`): nobody is held up, nothing is lost.

use std::time::Duration;

use holdfast_broker::{ConsumerOptions, Publication, PublisherOptions, RequestError, State};

use super::proxy::Proxy;
use crate::stage::{Stage, classic, in_time, message, next, numbered, text};

#[tokio::test]
async fn a_blocked_stream_holds_up_nobody_and_goes_on_when_it_may() {
    const WINDOW: u64 = 16;
    let proxy = Proxy::start().await;
    let stage = Stage::at(&proxy.url()).await;
    let queue = stage.name("queue");
    stage.queue(classic(&queue)).await;
    let options = PublisherOptions { window: 16, ..PublisherOptions::default() };
    let mut publisher = stage.broker.publisher(options, Box::new(|_| {}));
    publisher.send(numbered(1, "", &queue)).await.expect("taken");
    in_time(publisher.confirmed_through(1)).await.expect("confirmed");

    proxy.block("events", "low on memory").await;
    let mut state = stage.broker.state();
    let blocked = State::Blocked { reason: "low on memory".to_owned() };
    in_time(state.wait_for(|state| *state == blocked)).await.expect("lives");
    assert_eq!(stage.service.readiness.unmet(), ["broker: the broker takes no messages: low on memory"]);
    // What fits into the window and the queue before it is taken at once, and no more: the caller may give up.
    let mut sent = 1;
    loop {
        let batch = (sent + 1..=sent + WINDOW).map(|position| numbered(position, "", &queue)).collect();
        match tokio::time::timeout(Duration::from_millis(200), publisher.send_batch(batch)).await {
            Ok(taken) => taken.expect("no interruption"),
            Err(_) => break,
        }
        sent += WINDOW;
        assert!(sent <= 1 + 4 * WINDOW, "the queue has no bound");
    }
    assert_eq!(publisher.confirmed(), Some(1));
    // The other connections know of no alarm.
    let mut consumer = stage.broker.consume(ConsumerOptions::new(&queue));
    let first = next(&mut consumer).await;
    assert_eq!(text(&first), "1");
    first.ack();
    let other = Publication::new("", queue.clone(), message("other")).mandatory();
    in_time(stage.broker.publish(other)).await.expect("published");
    assert_eq!(text(&next(&mut consumer).await), "other");

    proxy.unblock("events").await;
    in_time(state.wait_for(|state| *state == State::Connected)).await.expect("lives");
    in_time(publisher.confirmed_through(sent)).await.expect("no interruption");
    for position in 2..=sent {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), position.to_string());
        delivery.ack();
    }
    stage.end().await;
}

#[tokio::test]
async fn a_request_during_an_alarm_ends_in_time_and_is_not_sent_late() {
    let proxy = Proxy::start().await;
    let stage = Stage::at(&proxy.url()).await;
    let queue = stage.name("requests");
    stage.queue(classic(&queue)).await;
    let mut state = stage.broker.state();
    proxy.block("rpc", "low on disk").await;
    in_time(state.wait_for(|state| matches!(state, State::Blocked { .. }))).await.expect("lives");
    let requester = stage.broker.requester(1);
    let asked =
        requester.request(Publication::new("", queue.clone(), message("late")), Duration::from_millis(200));
    assert_eq!(in_time(asked).await.expect_err("nothing is sent"), RequestError::TimedOut);
    proxy.unblock("rpc").await;
    in_time(state.wait_for(|state| *state == State::Connected)).await.expect("lives");
    let after = Publication::new("", queue.clone(), message("after")).mandatory();
    in_time(stage.broker.publish(after)).await.expect("published");
    assert_eq!(text(&next(&mut stage.consume(&queue)).await), "after");
    stage.end().await;
}
