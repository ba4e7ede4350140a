// SPDX-License-Identifier: AGPL-3.0-only
//! Requests: one reply, several, none, too many.

use std::time::Duration;

use holdfast_broker::{
    Binding, ConsumerOptions, Exchange, ExchangeKind, Names, Publication, Queue, RequestError, Responder,
    Topology,
};

use crate::stage::{DEADLINE, Stage, in_time, message};

/// An exchange of commands with a shard's queue on it, and who answers it.
async fn shard(stage: &Stage) -> Responder {
    let (exchange, queue) = (stage.broker.names().commands(), stage.broker.names().shard_commands(0, 1, 1));
    stage
        .declare(Topology {
            exchanges: vec![Exchange::new(&exchange, ExchangeKind::Direct)],
            queues: vec![Queue { auto_delete: false, ..Queue::exclusive(&queue) }],
            bindings: vec![Binding::queue(&exchange, &queue, Names::shard_key(0, 1))],
        })
        .await;
    stage.broker.respond(ConsumerOptions::new(&queue))
}

fn command(stage: &Stage, shard: u32, text: &str) -> Publication {
    Publication::new(stage.broker.names().commands(), Names::shard_key(shard, 1), message(text))
}

fn said(message: &holdfast_broker::Message) -> String {
    String::from_utf8(message.body.to_vec()).expect("a text")
}

async fn a_request_gets_its_own_reply(stage: Stage) {
    let mut responder = shard(&stage).await;
    let answering = tokio::spawn(async move {
        // In the order in which they don't come back.
        let mut requests = Vec::new();
        for _ in 0..10 {
            requests.push(responder.next().await.expect("a request"));
        }
        while let Some(request) = requests.pop() {
            let reply = message(format!("re {}", said(request.message())));
            request.reply(reply).await.expect("replied");
            request.done();
        }
        responder
    });
    let requester = stage.broker.requester(16);
    let asked = (0..10).map(|number| {
        let (requester, request) = (requester.clone(), command(&stage, 0, &number.to_string()));
        tokio::spawn(async move { requester.request(request, DEADLINE).await })
    });
    for (number, asked) in asked.collect::<Vec<_>>().into_iter().enumerate() {
        let reply = in_time(asked).await.expect("no panic").expect("answered");
        assert_eq!(said(&reply), format!("re {number}"));
    }
    in_time(answering).await.expect("no panic");
    stage.end().await;
}

async fn replies_come_in_order_up_to_the_last(stage: Stage) {
    let mut responder = shard(&stage).await;
    let answering = tokio::spawn(async move {
        let request = responder.next().await.expect("a request");
        for number in 0..100 {
            request.reply(message(format!("chunk {number}"))).await.expect("replied");
        }
        request.reply(message("done")).await.expect("replied");
        // Behind the last one; nobody may see it.
        request.reply(message("chunk too many")).await.expect("replied");
        request.done();
    });
    let requester = stage.broker.requester(16);
    let mut answers = requester
        .request_many(command(&stage, 0, "members"), DEADLINE, |message| said(message) == "done")
        .await
        .expect("there");
    for number in 0..100 {
        let reply = answers.next().await.expect("more").expect("a reply");
        assert_eq!(said(&reply), format!("chunk {number}"));
    }
    assert_eq!(said(&answers.next().await.expect("the last").expect("a reply")), "done");
    assert!(answers.next().await.is_none());
    in_time(answering).await.expect("no panic");
    stage.end().await;
}

async fn a_request_for_a_shard_that_nobody_owns_fails_at_once(stage: Stage) {
    let _responder = shard(&stage).await;
    let requester = stage.broker.requester(16);
    // Far shorter than the request's own time.
    let asked = in_time(requester.request(command(&stage, 7, "?"), Duration::from_secs(3600))).await;
    assert_eq!(asked.expect_err("nobody"), RequestError::NoConsumer);
    stage.end().await;
}

async fn a_request_that_nobody_answers_ends_in_time(stage: Stage) {
    let mut responder = shard(&stage).await;
    let requester = stage.broker.requester(16);
    let asked = requester.request(command(&stage, 0, "?"), Duration::from_millis(100)).await;
    assert_eq!(asked.expect_err("no answer"), RequestError::TimedOut);
    // The broker drops it, or the responder sees that it is too late.
    let broker = stage.broker.clone();
    let next = command(&stage, 0, "next");
    let asking = tokio::spawn(async move { broker.requester(1).request(next, DEADLINE).await });
    let mut request = in_time(responder.next()).await.expect("a request");
    if said(request.message()) == "?" {
        request.expired();
        request = in_time(responder.next()).await.expect("a request");
    }
    assert_eq!(said(request.message()), "next");
    request.reply(message("here")).await.expect("replied");
    request.done();
    in_time(asking).await.expect("no panic").expect("answered");
    stage.end().await;
}

async fn too_many_requests_are_refused(stage: Stage) {
    let mut responder = shard(&stage).await;
    let requester = stage.broker.requester(1);
    let (first, second) = (command(&stage, 0, "1"), command(&stage, 0, "2"));
    let held = requester.request_many(first, DEADLINE, |_| true).await.expect("room for one");
    assert_eq!(requester.request(second.clone(), DEADLINE).await.expect_err("no room"), RequestError::Busy);
    drop(held);
    let asking = tokio::spawn(async move { requester.request(second, DEADLINE).await });
    for expected in ["1", "2"] {
        let request = in_time(responder.next()).await.expect("a request");
        assert_eq!(said(request.message()), expected);
        request.reply(message("re")).await.expect("nobody may be waiting, which is no error");
        request.done();
    }
    in_time(asking).await.expect("no panic").expect("answered");
    stage.end().await;
}

on_both!(
    a_request_gets_its_own_reply,
    replies_come_in_order_up_to_the_last,
    a_request_for_a_shard_that_nobody_owns_fails_at_once,
    a_request_that_nobody_answers_ends_in_time,
    too_many_requests_are_refused,
);
