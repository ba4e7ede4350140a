// SPDX-License-Identifier: AGPL-3.0-only
//! A full queue refuses in the middle of a window: the rest of the window is waited for, and nothing else suffers.

use std::time::Duration;

use holdfast_broker::{
    Cause, OrderedPublisher, Overflow, Positioned, Publication, PublisherOptions, Queue, StreamError,
};

use super::proxy::Proxy;
use crate::stage::{Stage, classic, in_time, message, numbered};

/// Takes in what is confirmed until nothing more comes.
async fn rest(publisher: &mut OrderedPublisher) -> Result<Option<u64>, StreamError> {
    while let Ok(progressed) = tokio::time::timeout(Duration::from_millis(300), publisher.progressed()).await
    {
        progressed?;
    }
    Ok(publisher.confirmed())
}

#[tokio::test]
async fn after_a_nack_the_rest_of_the_window_is_waited_for() {
    const MESSAGES: u64 = 200;
    let proxy = Proxy::start().await;
    let stage = Stage::at(&proxy.url()).await;
    let (small, large) = (stage.name("small"), stage.name("large"));
    stage.queue(Queue { max_length: Some(5), overflow: Overflow::RejectPublish, ..classic(&small) }).await;
    stage.queue(classic(&large)).await;
    let mut refused = stage.broker.publisher(PublisherOptions::default(), Box::new(|_| {}));
    let mut other = stage.broker.publisher(PublisherOptions::default(), Box::new(|_| {}));
    other.send(numbered(1, "", &large)).await.expect("taken");
    in_time(other.confirmed_through(1)).await.expect("no interruption");
    let bulky = |position| {
        let body = "x".repeat(50_000);
        Positioned { position, publication: Publication::new("", small.clone(), message(body)) }
    };
    // A tenth of them arrives, and more of those than the queue has room for.
    proxy.hold_after(1_000_000);
    refused.send_batch((1..=MESSAGES).map(bulky).collect()).await.expect("taken");
    in_time(refused.progressed()).await.expect("the first ones fit");
    let confirmed = rest(&mut refused).await.expect("the caller may not send again yet").expect("some fit");
    assert!((5..MESSAGES / 10).contains(&confirmed), "{confirmed}");
    proxy.release();
    let Err(StreamError::Interrupted(interrupted)) = in_time(refused.confirmed_through(MESSAGES)).await
    else {
        unreachable!("the queue has no room for them");
    };
    assert_eq!((interrupted.confirmed, interrupted.cause), (Some(confirmed), Cause::Nacked));
    // The other stream on the connection noticed nothing.
    other.send(numbered(2, "", &large)).await.expect("taken");
    in_time(other.confirmed_through(2)).await.expect("no interruption");
    let metrics = stage.service.metrics.encode();
    assert!(metrics.contains("holdfast_amqp_connections_lost_total 0"), "{metrics}");
    stage.end().await;
}
