// SPDX-License-Identifier: AGPL-3.0-only
//! Several replicas with one account in the store of this machine.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use holdfast_cluster::Settings;
use holdfast_simulator::Refill;
use http::StatusCode;

use super::support::{SEND, api, bucket, configured_fleet, fleet, request, stage, until};

#[tokio::test(flavor = "multi_thread")]
async fn one_bucket_is_shared_and_used_up() {
    for refill in [Refill::Fixed, Refill::Steady] {
        let (stage, replicas) = fleet(3, |limits| {
            limits.latency_ms = [10, 40];
            limits.buckets = vec![bucket(&[SEND], 5, 1.0, refill)];
        })
        .await;
        let begun = Instant::now();
        let asked = (0..25)
            .map(|number| replicas[number % 3].0.send(request("POST", "/api/v10/channels/1/messages", "{}")));
        join_all(asked).await;
        assert_eq!((stage.discord.requests().len(), stage.answered(429)), (25, 0), "{refill:?}");
        assert!(begun.elapsed() < Duration::from_millis(6_500), "{refill:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_takes_no_more_with_it_than_its_own_requests() {
    let (stage, replicas) = fleet(2, |limits| {
        limits.latency_ms = [80, 120];
        limits.buckets = vec![bucket(&[SEND], 5, 1.0, Refill::Fixed)];
    })
    .await;
    // A runtime of its own that ends in the middle: nothing of it is told to anybody, as after `kill -9`.
    let mortal = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (discord, settings) = (stage.discord.api_url().to_owned(), replicas[0].1.clone());
    mortal.spawn(async move {
        let replica = api(&discord, |config| config.cluster = Some(settings)).await;
        until(|| replica.metric("holdfast_rest_store_connected") == 1.0).await;
        join_all((0..40).map(|number| replica.send(message(number)))).await;
    });
    // Their buckets are known, and what comes next is under way.
    stage.discord.wait_until("requests", |discord| discord.requests().len() >= 6).await.expect("soon");
    mortal.shutdown_background();
    let answers = join_all((0..40).map(|number| replicas[number % 2].0.send(message(number)))).await;
    assert!(answers.iter().all(|answer| answer.header("holdfast-error").is_none()), "{answers:?}");
    assert_eq!(stage.answered(429), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_apart_is_learnt_by_all() {
    let edit = "PATCH /channels/{channel_id}/messages/{message_id}";
    let (stage, replicas) = fleet(2, |limits| {
        limits.buckets = vec![bucket(&[SEND], 3, 1.0, Refill::Fixed), bucket(&[edit], 3, 1.0, Refill::Fixed)];
    })
    .await;
    for round in 0..2 {
        replicas[0].0.send(request("POST", "/api/v10/channels/1/messages", "{}")).await;
        replicas[0]
            .0
            .send(request("PATCH", &format!("/api/v10/channels/1/messages/{}", 9_000 + round), "{}"))
            .await;
    }
    let begun = Instant::now();
    join_all((0..2).map(|_| replicas[1].0.send(request("PATCH", "/api/v10/channels/2/messages/9", "{}"))))
        .await;
    join_all((0..3).map(|_| replicas[1].0.send(request("POST", "/api/v10/channels/2/messages", "{}")))).await;
    assert!(begun.elapsed() < Duration::from_millis(900), "they count apart: {:?}", begun.elapsed());
    assert_eq!(stage.answered(429), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_of_all_replicas_count() {
    let (stage, replicas) = configured_fleet(
        2,
        |_| {},
        |config| {
            (config.limits.invalid_brake, config.limits.invalid_stop) = (2, 3);
        },
    )
    .await;
    for _ in 0..3 {
        stage.discord.rest_fault(holdfast_simulator::RestFault::Status { status: 403 });
        replicas[0].0.send(request("GET", "/api/v10/users/@me", "")).await;
    }
    until(|| replicas[1].0.metric("holdfast_rest_invalid") == 3.0).await;
    let refused = replicas[1].0.send(request("GET", "/api/v10/users/@me", "")).await;
    assert_eq!(
        (refused.status, refused.header("holdfast-error")),
        (StatusCode::TOO_MANY_REQUESTS, Some("guarded"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_store_a_replica_goes_on_by_itself() {
    let stage = stage(|_| {}).await;
    let nowhere = Settings::at("redis://127.0.0.1:1").expect("an address");
    let alone = api(stage.discord.api_url(), |config| config.cluster = Some(nowhere)).await;
    let answer = alone.send(request("GET", "/api/v10/users/@me", "")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(alone.metric("holdfast_rest_store_connected"), 0.0);
}

fn message(number: usize) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    request("POST", &format!("/api/v10/channels/{}/messages", 1 + number % 4), "{}")
}
