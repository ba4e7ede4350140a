// SPDX-License-Identifier: AGPL-3.0-only
//! Many requests at once, and a Discord that says 429 to the first that is too many.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use holdfast_simulator::Refill;
use http::StatusCode;

use super::support::{OTHER, SEND, Stage, bucket, configured, request, request_of, stage};

#[tokio::test(flavor = "multi_thread")]
async fn buckets_of_both_forms_are_used_up_and_never_more() {
    for refill in [Refill::Fixed, Refill::Steady] {
        let stage = stage(|limits| {
            limits.latency_ms = [10, 40];
            limits.buckets = vec![bucket(&[SEND], 5, 1.0, refill)];
        })
        .await;
        let begun = Instant::now();
        send_all(&stage, "POST", (0..25).map(|_| "/channels/1/messages".to_owned())).await;
        let seen: Vec<_> = stage.discord.requests().into_iter().map(|it| (it.at_ms, it.status)).collect();
        assert_eq!(stage.answered(429), 0, "{refill:?}: {seen:?}");
        assert!(begun.elapsed() < Duration::from_millis(6_000), "{refill:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_a_bucket_with_room_go_at_once() {
    let stage = stage(|limits| {
        limits.global_per_second = 1_000;
        limits.latency_ms = [200, 200];
        limits.default_limit = 100;
    })
    .await;
    let begun = Instant::now();
    send_all(&stage, "GET", (0..40).map(|_| "/channels/1/pins".to_owned())).await;
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    let begun = Instant::now();
    send_all(&stage, "POST", (0..60).map(|number| format!("/interactions/{number}/t/callback"))).await;
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
    assert_eq!(stage.answered(429), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_and_edits_of_one_bucket_are_counted_together() {
    let (delete, edit) = (
        "DELETE /channels/{channel_id}/messages/{message_id}",
        "PATCH /channels/{channel_id}/messages/{message_id}",
    );
    let stage = stage(|limits| {
        limits.latency_ms = [5, 15];
        limits.buckets = vec![bucket(&[delete, edit], 20, 1.0, Refill::Fixed)];
    })
    .await;
    let path = |number: u64| format!("/channels/1/messages/{}", 1_000 + number);
    let deletes = send_all(&stage, "DELETE", (0..50).map(path));
    let edits = send_all(&stage, "PATCH", (50..100).map(path));
    tokio::join!(deletes, edits);
    assert_eq!((stage.discord.requests().len(), stage.answered(429)), (100, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_another_sender_has_spent_costs_one_429_at_most() {
    let stage = stage(|limits| limits.buckets = vec![bucket(&[SEND], 5, 1.0, Refill::Fixed)]).await;
    let elsewhere = super::support::api(stage.discord.api_url(), |_| {}).await;
    for _ in 0..5 {
        elsewhere.send(request("POST", "/api/v10/channels/1/messages", "{}")).await;
    }
    send_all(&stage, "POST", (0..3).map(|_| "/channels/1/messages".to_owned())).await;
    assert_eq!(stage.answered(429), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_have_limits_of_their_own() {
    let stage = stage(|limits| limits.global_per_second = 50).await;
    let begun = Instant::now();
    let asked = (0..90).map(|number| {
        let token = if number % 2 == 0 { super::support::TOKEN } else { OTHER };
        stage.api.send(request_of(token, "GET", &format!("/api/v10/channels/{number}"), ""))
    });
    join_all(asked).await;
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(stage.answered(429), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_is_never_sent() {
    let stage = stage(|limits| limits.buckets = vec![bucket(&[SEND], 1, 0.7, Refill::Fixed)]).await;
    send_all(&stage, "POST", ["/channels/1/messages".to_owned()]).await;
    let leaves = stage.api.send(request("POST", "/api/v10/channels/1/messages?leaves", "{}"));
    assert!(tokio::time::timeout(Duration::from_millis(200), leaves).await.is_err());
    super::support::until(|| stage.api.metric("holdfast_rest_left_total") == 1.0).await;
    send_all(&stage, "POST", ["/channels/1/messages".to_owned()]).await;
    assert!(stage.discord.requests().iter().all(|request| !request.path.contains("leaves")));
    assert_eq!(stage.api.metric("holdfast_rest_waiting"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_urgent_goes_before_bulk_work() {
    let stage =
        configured(|limits| limits.global_per_second = 5, |config| config.limits.global_limit = 5).await;
    let bulk = (0..20).map(|number| {
        let mut asked = request("GET", &format!("/api/v10/channels/{number}"), "");
        asked.headers_mut().insert("holdfast-priority", "low".parse().expect("a value"));
        stage.api.send(asked)
    });
    let urgent = async {
        super::support::until(|| stage.api.metric("holdfast_rest_waiting") >= 14.0).await;
        let mut asked = request("GET", "/api/v10/channels/999", "");
        asked.headers_mut().insert("holdfast-priority", "high".parse().expect("a value"));
        stage.api.send(asked).await
    };
    tokio::join!(join_all(bulk), urgent);
    let place = stage.discord.requests().iter().position(|request| request.path.ends_with("/999"));
    // Five went at once; the next five arrive in any order.
    assert!(place.expect("it was sent") < 10, "{place:?}");
    assert_eq!(stage.answered(429), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_global_limit_is_felt_for() {
    let stage = configured(
        |limits| (limits.global_per_second, limits.default_limit) = (10, 1_000),
        |config| (config.limits.global_limit, config.limits.global_limit_up_to) = (2, 5),
    )
    .await;
    let begun = Instant::now();
    // At 2 a second they would take 19 s. After ten of them it is 3.
    let asked =
        (0..40).map(|number| stage.api.send(request("GET", &format!("/api/v10/channels/{number}"), "")));
    assert!(join_all(asked).await.iter().all(|answer| answer.status == StatusCode::NOT_FOUND));
    assert!(begun.elapsed() < Duration::from_millis(18_500), "{:?}", begun.elapsed());
    assert_eq!(stage.answered(429), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_limit_of_names_is_kept() {
    let stage = stage(|_| {}).await;
    let rename = || {
        let mut asked = request("PATCH", "/api/v10/channels/1", r#"{"name":"new"}"#);
        asked.headers_mut().insert("holdfast-deadline-ms", "2000".parse().expect("a value"));
        stage.api.send(asked)
    };
    for _ in 0..2 {
        assert_eq!(rename().await.status, StatusCode::OK);
    }
    let third = rename().await;
    assert_eq!((third.status, third.header("holdfast-error")), (StatusCode::TOO_MANY_REQUESTS, Some("late")));
    let other = stage.api.send(request("PATCH", "/api/v10/channels/1", r#"{"nsfw":true}"#)).await;
    assert_eq!((other.status, stage.answered(429)), (StatusCode::OK, 0));
}

/// Sends requests at once, and expects an answer of Discord's to each that is no 429.
async fn send_all(stage: &Stage, method: &str, paths: impl IntoIterator<Item = String>) {
    let asked =
        paths.into_iter().map(|path| stage.api.send(request(method, &format!("/api/v10{path}"), "{}")));
    for answer in join_all(asked).await {
        assert!(answer.status != StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
        assert_eq!(answer.header("holdfast-error"), None);
    }
}
