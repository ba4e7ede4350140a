// SPDX-License-Identifier: AGPL-3.0-only
//! Discord in trouble, and bots in trouble with Discord.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use holdfast_simulator::{Refill, RestFault};
use http::StatusCode;
use http::header::AUTHORIZATION;

use super::support::{OTHER, SEND, bucket, request, request_of, stage};

#[tokio::test]
async fn a_429_out_of_the_blue_is_waited_out_and_sent_again() {
    let stage = stage(|_| {}).await;
    let begun = Instant::now();
    stage.discord.rest_fault(RestFault::Global { seconds: 0.4 });
    let answer = stage.api.send(request("POST", "/api/v10/channels/1/typing", r#"{"a":1}"#)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert_eq!(stage.answered(429), 1);
    assert!(stage.api.metric("holdfast_rest_limited_total{scope=\"global\"}") == 1.0);
}

#[tokio::test]
async fn a_429_for_a_body_that_was_not_kept_is_passed_on_marked() {
    let stage = super::support::configured(|_| {}, |config| config.keep_body = 10).await;
    stage.discord.rest_fault(RestFault::Global { seconds: 0.4 });
    let answer = stage.api.send(request("POST", "/api/v10/channels/1/typing", &"x".repeat(100))).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.header("holdfast-unrepeatable"), Some("body"));
    assert_eq!(stage.discord.requests().len(), 1);
}

#[tokio::test]
async fn a_shared_limit_holds_only_what_it_is_about() {
    let stage = stage(|_| {}).await;
    stage.discord.rest_fault(RestFault::Shared { seconds: 1.0 });
    let begun = Instant::now();
    let (held, free) = tokio::join!(stage.ask("GET", "/api/v10/channels/1/pins"), async {
        stage.discord.wait_until("429", |discord| !discord.requests().is_empty()).await.expect("soon");
        let answer = stage.ask("GET", "/api/v10/channels/2/pins").await;
        (answer.status, begun.elapsed())
    });
    assert_eq!((held.status, free.0), (StatusCode::OK, StatusCode::OK));
    assert!(begun.elapsed() >= Duration::from_secs(1) && free.1 < Duration::from_millis(900), "{free:?}");
    assert_eq!(stage.api.metric("holdfast_rest_invalid"), 0.0);
}

#[tokio::test]
async fn what_could_not_be_in_time_is_refused_at_once_with_when() {
    let stage = stage(|_| {}).await;
    stage.discord.rest_fault(RestFault::Shared { seconds: 30.0 });
    let ask = || {
        let mut asked = request("GET", "/api/v10/channels/1/pins", "");
        asked.headers_mut().insert("holdfast-deadline-ms", "500".parse().expect("a value"));
        stage.api.send(asked)
    };
    // The first one hears it from Discord.
    let told = ask().await;
    assert_eq!((told.status, told.header("holdfast-error")), (StatusCode::TOO_MANY_REQUESTS, None));
    let begun = Instant::now();
    let refused = ask().await;
    assert_eq!(
        (refused.status, refused.header("holdfast-error")),
        (StatusCode::TOO_MANY_REQUESTS, Some("late"))
    );
    assert!(begun.elapsed() < Duration::from_millis(400));
    let retry_after = refused.json()["retry_after"].as_f64().expect("a number");
    assert!(retry_after > 28.0 && retry_after <= 30.0, "{retry_after}");
    assert_eq!(refused.header("retry-after"), Some("30"));
    assert_eq!(stage.discord.requests().len(), 1);
}

#[tokio::test]
async fn a_502_and_an_answer_that_breaks_off_are_passed_on() {
    let stage = stage(|_| {}).await;
    stage.discord.rest_fault(RestFault::Status { status: 502 });
    let answer = stage.ask("GET", "/api/v10/users/@me").await;
    assert_eq!((answer.status, answer.header("holdfast-error")), (StatusCode::BAD_GATEWAY, None));
    assert_eq!(stage.discord.requests().len(), 1);
    stage.discord.rest_fault(RestFault::Cut);
    let cut = tokio::time::timeout(Duration::from_secs(5), stage.api.breaks_off("/api/v10/users/@me")).await;
    assert!(cut.expect("it ends"), "the caller has to see that something is missing");
    assert_eq!(stage.ask("GET", "/api/v10/users/@me").await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_may_have_been_done_is_sent_again_only_if_it_may_be_done_twice() {
    let stage = stage(|_| {}).await;
    stage.discord.rest_fault(RestFault::HangUp);
    assert_eq!(stage.ask("GET", "/api/v10/users/@me").await.status, StatusCode::OK);
    assert_eq!(stage.discord.requests().len(), 2);
    stage.discord.rest_fault(RestFault::HangUp);
    let lost = stage.api.send(request("POST", "/api/v10/channels/1/typing", "{}")).await;
    assert_eq!((lost.status, lost.header("holdfast-error")), (StatusCode::BAD_GATEWAY, Some("lost")));
    assert_eq!(stage.discord.requests().len(), 3);
}

#[tokio::test]
async fn a_ban_page_stops_everything_until_it_is_over_or_cleared() {
    let stage = stage(|_| {}).await;
    stage.discord.rest_fault(RestFault::Ban { seconds: 60.0 });
    let page = stage.ask("GET", "/api/v10/users/@me").await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    let other = stage.api.send(request_of(OTHER, "GET", "/api/v10/users/@me", "")).await;
    assert_eq!(
        (other.status, other.header("holdfast-error")),
        (StatusCode::TOO_MANY_REQUESTS, Some("banned"))
    );
    assert!(other.header("via").is_some(), "without it libraries take it for the ban itself");
    assert_eq!(stage.discord.requests().len(), 1);
    let posted =
        holdfast_service::Posted { authorization: holdfast_service::Secret::default(), query: String::new() };
    assert_eq!(stage.api.service.pages.post("/rest/clear", posted).await.map(|page| page.status), Some(200));
    assert_eq!(stage.ask("GET", "/api/v10/users/@me").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_discord_does_not_know_is_not_sent_again_and_one_odd_401_is_no_proof() {
    let stage = stage(|_| {}).await;
    for _ in 0..6 {
        assert_eq!(
            stage.api.send(request_of("wrong", "GET", "/api/v10/users/@me", "")).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(stage.discord.requests().len(), 3);
    assert_eq!(stage.ask("GET", "/api/v10/users/@me").await.status, StatusCode::OK);
    for _ in 0..6 {
        stage.discord.rest_fault(RestFault::Status { status: 401 });
        stage.ask("GET", "/api/v10/users/@me").await;
        assert_eq!(stage.ask("GET", "/api/v10/users/@me").await.status, StatusCode::OK);
    }
    assert_eq!(stage.api.metric("holdfast_rest_invalid"), 9.0);
}

/// Whoever comes without a token is nobody's account: their refusals are no webhook's.
#[tokio::test]
async fn refusals_of_who_has_no_token_stop_no_webhook() {
    let stage = stage(|_| {}).await;
    let without = |method: &str, path: &str| {
        let mut asked = request(method, path, r#"{"content":"hello"}"#);
        asked.headers_mut().remove(AUTHORIZATION);
        stage.api.send(asked)
    };
    for _ in 0..4 {
        stage.discord.rest_fault(RestFault::Status { status: 401 });
        assert_eq!(without("GET", "/api/v10/users/@me").await.status, StatusCode::UNAUTHORIZED);
    }
    let posted = without("POST", "/api/v10/webhooks/7/secret").await;
    assert!(posted.status.is_success(), "{} {:?}", posted.status, posted.header("holdfast-error"));
}

/// A page of something before Discord says nothing of a bucket: those who wait still go one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_of_discord_opens_no_bucket() {
    let buckets = vec![bucket(&[SEND], 5, 1.0, Refill::Fixed)];
    let stage = stage(|limits| limits.buckets = buckets).await;
    stage.discord.rest_fault(RestFault::Status { status: 502 });
    let asked = (0..15).map(|_| stage.api.send(request("POST", "/api/v10/channels/1/messages", "{}")));
    let answers = join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::BAD_GATEWAY).count(), 1);
    assert_eq!((stage.answered(429), stage.discord.requests().len()), (0, 15));
}

/// What waited when Discord banned the address isn't sent when its turn comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_when_the_ban_comes_is_not_sent() {
    let buckets = vec![bucket(&[SEND], 1, 0.7, Refill::Fixed)];
    let stage = stage(|limits| limits.buckets = buckets).await;
    let send = || stage.api.send(request("POST", "/api/v10/channels/1/messages", "{}"));
    send().await;
    let banned = async {
        super::support::until(|| stage.api.metric("holdfast_rest_waiting") == 3.0).await;
        stage.discord.rest_fault(RestFault::Ban { seconds: 60.0 });
        assert_eq!(stage.ask("GET", "/api/v10/users/@me").await.status, StatusCode::TOO_MANY_REQUESTS);
    };
    let (waited, ()) = tokio::join!(join_all((0..3).map(|_| send())), banned);
    for answer in waited {
        assert_eq!(answer.header("holdfast-error"), Some("banned"));
    }
    assert_eq!(stage.discord.requests().len(), 2);
}

#[tokio::test]
async fn near_the_ban_requests_are_refused_before_discord_counts_them() {
    let stage = super::support::configured(
        |_| {},
        |config| {
            (config.limits.invalid_brake, config.limits.invalid_stop) = (3, 4);
        },
    )
    .await;
    for _ in 0..4 {
        stage.discord.rest_fault(RestFault::Status { status: 403 });
        stage.ask("GET", "/api/v10/users/@me").await;
    }
    let refused = stage.ask("GET", "/api/v10/users/@me").await;
    assert_eq!(
        (refused.status, refused.header("holdfast-error")),
        (StatusCode::TOO_MANY_REQUESTS, Some("guarded"))
    );
    assert_eq!(stage.discord.requests().len(), 4);
}
