// SPDX-License-Identifier: AGPL-3.0-only
//! Requests at once over 50 buckets of 5 a second, a global limit of 50 a second, 30 to 50 ms to Discord: no 429, in
//! hardly more than the least time. 2,000 of them with the long tests, else 300.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use holdfast_simulator::{Refill, RestLimits, Simulator};
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::support::{Process, SEND, Stage, bucket, fleet, full, request, stage, store, until};

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_under_a_fixed_global_window() {
    alone(Refill::Fixed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_under_a_rolling_global_window() {
    alone(Refill::Steady).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_under_a_fixed_global_window() {
    three(Refill::Fixed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_under_a_rolling_global_window() {
    three(Refill::Steady).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_of_which_one_is_killed() {
    let stage = stage(|limits| world(limits, Refill::Fixed)).await;
    let store = store("redis://127.0.0.1:6379");
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Process::start(stage.discord.api_url(), Some(&store), "").await);
    }
    for replica in &replicas {
        while replica.metric("holdfast_rest_store_connected").await != 1.0 {}
    }
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let places: Vec<_> = replicas.iter().map(|replica| replica.address.clone()).collect();
    let mut doomed = replicas.remove(0);
    let kill = async {
        let third = many() / 3;
        let discord: &Simulator = &stage.discord;
        discord.wait_until("a third", |discord| discord.requests().len() >= third).await.expect("soon");
        doomed.kill();
    };
    let begun = Instant::now();
    let asked = (0..many()).map(|number| {
        let mut asked = request("POST", &path(number), "{}");
        *asked.uri_mut() =
            format!("http://{}{}", places[number % 3], path(number)).parse().expect("an address");
        let sent = client.request(asked);
        async move {
            let answer = sent.await.ok()?;
            let status = answer.status();
            answer.into_body().collect().await.ok().map(|_| status)
        }
    });
    let (answers, ()) = tokio::join!(join_all(asked), kill);
    for (number, answer) in answers.iter().enumerate() {
        // Those on the killed connections got none; every other one got Discord's.
        assert!(
            *answer == Some(StatusCode::NOT_FOUND) || (answer.is_none() && number % 3 == 0),
            "{number}: {answer:?}"
        );
    }
    assert_eq!(stage.answered(429), 0);
    in_time(begun.elapsed(), Duration::from_secs(3));
}

async fn alone(global: Refill) {
    let stage = stage(|limits| world(limits, global)).await;
    let begun = Instant::now();
    let asked =
        (0..many()).map(|number| stage.api.send(request("POST", &path(number), r#"{"content":"hi"}"#)));
    let answers = join_all(asked).await;
    in_time(begun.elapsed(), Duration::ZERO);
    well(&stage, &answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
}

async fn three(refill: Refill) {
    let (stage, replicas) = fleet(3, |limits| {
        world(limits, refill);
        limits.buckets = vec![bucket(&[SEND], 5, 1.0, refill)];
    })
    .await;
    until(|| replicas.iter().all(|(replica, _)| replica.metric("holdfast_api_replicas") == 3.0)).await;
    let begun = Instant::now();
    let asked = (0..many()).map(|number| replicas[number % 3].0.send(request("POST", &path(number), "{}")));
    let answers = join_all(asked).await;
    in_time(begun.elapsed(), Duration::from_millis(500));
    well(&stage, &answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
}

fn world(limits: &mut RestLimits, global: Refill) {
    limits.global_refill = global;
    limits.latency_ms = [30, 50];
    limits.buckets = vec![bucket(&[SEND], 5, 1.0, Refill::Fixed)];
}

fn many() -> usize {
    if full() { 2_000 } else { 300 }
}

fn path(number: usize) -> String {
    format!("/api/v10/channels/{}/messages", 1 + number % 50)
}

/// The world has no such channels: 404s count as any.
fn well(stage: &Stage, statuses: &[StatusCode]) {
    assert!(statuses.iter().all(|status| *status == StatusCode::NOT_FOUND), "{statuses:?}");
    assert_eq!((stage.discord.requests().len(), stage.answered(429)), (many(), 0));
}

/// 2,000 take 39 s at least, and 43 s at most.
fn in_time(took: Duration, more: Duration) {
    let windows = u32::try_from(many() / 50).expect("few");
    let usual = Duration::from_millis(1_080) * (windows - 1) + Duration::from_secs(1) + more;
    let most = if full() { Duration::from_secs(43) } else { usual };
    assert!(took <= most, "took {took:?}, not {most:?}");
    println!("took {took:?}");
}
