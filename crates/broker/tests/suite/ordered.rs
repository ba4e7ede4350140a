// SPDX-License-Identifier: AGPL-3.0-only
//! Ordered streams: order, confirmations, what comes back, what can't be sent.

use holdfast_broker::{
    Cause, Interrupted, Overflow, PublisherOptions, Queue, Reason, StreamError, Unsendable,
};

use crate::stage::{Stage, classic, in_time, ledger, next, numbered, text};

async fn a_stream_arrives_in_order_and_is_confirmed_to_its_end(stage: Stage) {
    const MESSAGES: u64 = 5_000;
    let queue = stage.events("#").await;
    let exchange = stage.broker.names().events();
    let mut publisher = stage.broker.publisher(PublisherOptions::default(), Box::new(|_| {}));
    for batch in (1..=MESSAGES).collect::<Vec<_>>().chunks(300) {
        let batch = batch.iter().map(|position| numbered(*position, &exchange, "A.0.0")).collect();
        in_time(publisher.send_batch(batch)).await.expect("no interruption");
    }
    in_time(publisher.confirmed_through(MESSAGES)).await.expect("no interruption");
    assert_eq!(publisher.confirmed(), Some(MESSAGES));
    let mut consumer = stage.consume(&queue);
    for position in 1..=MESSAGES {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), position.to_string());
        if position % 64 == 0 {
            delivery.ack_up_to();
        }
    }
    stage.end().await;
}

async fn what_no_queue_takes_is_told_by_its_key_and_counts_as_done(stage: Stage) {
    let queue = stage.events("A.#").await;
    let exchange = stage.broker.names().events();
    let (ledger, observer) = ledger();
    let mut publisher = stage.broker.publisher(PublisherOptions::default(), observer);
    let keys = ["A.0.0", "B.0.0", "A.0.0", "C.0.0", "A.0.0"];
    let batch = (1..).zip(keys).map(|(position, key)| numbered(position, &exchange, key)).collect();
    publisher.send_batch(batch).await.expect("no interruption");
    in_time(publisher.confirmed_through(5)).await.expect("no interruption");
    let mut told: Vec<_> = ledger.lock().expect("unpoisoned").iter().map(|one| one.key.clone()).collect();
    told.sort();
    assert_eq!(told, ["B.0.0", "C.0.0"]);
    assert!(ledger.lock().expect("unpoisoned").iter().all(|one| one.reason == Reason::Unrouted));
    let mut consumer = stage.consume(&queue);
    for position in ["1", "3", "5"] {
        assert_eq!(text(&next(&mut consumer).await), position);
    }
    stage.end().await;
}

async fn what_cannot_be_sent_is_told_and_the_rest_goes_on(stage: Stage) {
    let queue = stage.events("#").await;
    let exchange = stage.broker.names().events();
    let (ledger, observer) = ledger();
    let mut publisher = stage.broker.publisher(PublisherOptions::default(), observer);
    let mut large = numbered(2, &exchange, "A.0.0");
    large.publication.message.body = vec![0; 16 * 1024 * 1024 + 1].into();
    let long = numbered(3, &exchange, &"x".repeat(300));
    let batch = vec![numbered(1, &exchange, "A.0.0"), large, long, numbered(4, &exchange, "A.0.0")];
    publisher.send_batch(batch).await.expect("no interruption");
    in_time(publisher.confirmed_through(4)).await.expect("no interruption");
    let reasons: Vec<_> = ledger.lock().expect("unpoisoned").iter().map(|one| one.reason.clone()).collect();
    let bytes = 16 * 1024 * 1024;
    assert_eq!(
        reasons,
        [
            Reason::Unsendable(Unsendable::TooLarge { bytes: bytes + 1, max_bytes: bytes }),
            Reason::Unsendable(Unsendable::TooLong { what: "routing key" }),
        ]
    );
    let mut consumer = stage.consume(&queue);
    for position in ["1", "4"] {
        assert_eq!(text(&next(&mut consumer).await), position);
    }
    stage.end().await;
}

async fn a_refused_message_is_sent_again_before_anything_behind_it(stage: Stage) {
    let queue = stage.name("small");
    stage.queue(Queue { max_length: Some(3), overflow: Overflow::RejectPublish, ..classic(&queue) }).await;
    let mut publisher = stage.broker.publisher(PublisherOptions::default(), Box::new(|_| {}));
    publisher
        .send_batch((1..=10).map(|position| numbered(position, "", &queue)).collect())
        .await
        .expect("taken");
    let Err(StreamError::Interrupted(interrupted)) = in_time(publisher.confirmed_through(10)).await else {
        unreachable!("the queue has no room for ten");
    };
    assert_eq!(interrupted.cause, Cause::Nacked);
    let confirmed = interrupted.confirmed.expect("some fit");
    assert!((3..10).contains(&confirmed), "{confirmed}");
    // Room is made, and the stream goes on behind what is confirmed.
    let mut consumer = stage.consume(&queue);
    let mut seen = Vec::new();
    let mut resume = confirmed;
    while seen.last() != Some(&10) {
        let rest = (resume + 1..=10).map(|position| numbered(position, "", &queue)).collect();
        let sent = publisher.send_batch(rest).await;
        loop {
            tokio::select! {
                biased;
                delivery = next(&mut consumer) => {
                    seen.push(text(&delivery).parse::<u64>().expect("a number"));
                    delivery.ack();
                    if seen.last() == Some(&10) { break }
                }
                progressed = publisher.progressed() => if let Err(StreamError::Interrupted(again)) = progressed {
                    resume = again.confirmed.unwrap_or(0);
                    break;
                }
            }
        }
        drop(sent);
    }
    // Whatever is repeated: the first time of each position is in order behind its forerunner's first time.
    for position in 2..=10 {
        let last_of = |wanted| seen.iter().rposition(|seen| *seen == wanted).expect("none is lost");
        assert!(last_of(position - 1) < last_of(position), "{seen:?}");
    }
    stage.end().await;
}

async fn a_stream_to_an_exchange_that_is_not_there_goes_on_when_it_is(stage: Stage) {
    let exchange = stage.broker.names().events();
    let mut publisher = stage.broker.publisher(PublisherOptions::default(), Box::new(|_| {}));
    publisher.send(numbered(1, &exchange, "A.0.0")).await.expect("taken");
    let error = in_time(publisher.confirmed_through(1)).await.expect_err("there is no exchange");
    let StreamError::Interrupted(Interrupted { confirmed: None, cause: Cause::Channel(reason) }) = &error
    else {
        unreachable!("{error:?}");
    };
    assert!(reason.contains(&exchange), "{reason}");
    let queue = stage.events("#").await;
    publisher.send(numbered(1, &exchange, "A.0.0")).await.expect("taken");
    in_time(publisher.confirmed_through(1)).await.expect("no interruption");
    assert_eq!(text(&next(&mut stage.consume(&queue)).await), "1");
    stage.end().await;
}

on_both!(
    a_refused_message_is_sent_again_before_anything_behind_it,
    a_stream_to_an_exchange_that_is_not_there_goes_on_when_it_is,
    a_stream_arrives_in_order_and_is_confirmed_to_its_end,
    what_no_queue_takes_is_told_by_its_key_and_counts_as_done,
    what_cannot_be_sent_is_told_and_the_rest_goes_on,
);
