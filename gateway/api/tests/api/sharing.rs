// SPDX-License-Identifier: AGPL-3.0-only
//! Identical GETs: one request for all who wait at once, and answers that are kept for a moment.

use std::time::Duration;

use futures_util::future::join_all;
use holdfast_simulator::RestFault;
use http::StatusCode;

use super::support::{OTHER, configured, request, request_of, stage, until};

const ME: &str = "/api/v10/users/@me";

#[tokio::test(flavor = "multi_thread")]
async fn identical_requests_at_once_are_one_and_different_ones_are_not() {
    let stage = configured(|limits| limits.latency_ms = [300, 300], |config| config.gateway = false).await;
    let identical = (0..20).map(|_| stage.ask("GET", ME));
    let mut accepting = request("GET", ME, "");
    accepting.headers_mut().insert("accept-language", "de".parse().expect("a value"));
    let others = [accepting, request_of(OTHER, "GET", ME, ""), request("GET", &format!("{ME}?x=1"), "")];
    let others = others.map(|other| stage.api.send(other));
    let (identical, others) = tokio::join!(join_all(identical), join_all(others));
    assert!(identical.iter().chain(&others).all(|answer| answer.status == StatusCode::OK));
    assert!(identical.iter().all(|answer| answer.body == identical[0].body));
    assert_eq!(stage.discord.requests().len(), 4);
    assert_eq!(stage.api.metric(r#"holdfast_api_shared_total{by="flight"}"#), 19.0);
    // They were at once, no longer.
    stage.ask("GET", ME).await;
    assert_eq!(stage.discord.requests().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_is_never_shared_and_the_setting_switches_it_off() {
    let stage = configured(|limits| limits.latency_ms = [100, 100], |config| config.coalesce = false).await;
    join_all((0..3).map(|_| stage.ask("GET", ME))).await;
    assert_eq!(stage.discord.requests().len(), 3);
    let posts = (0..3).map(|_| stage.api.send(request("POST", "/api/v10/channels/1/typing", "")));
    join_all(posts).await;
    assert_eq!(stage.discord.requests().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_takes_nothing_from_those_who_stay() {
    let stage = stage(|limits| limits.latency_ms = [400, 400]).await;
    let leaves = async {
        let asked = stage.ask("GET", ME);
        assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
    };
    let stays = async {
        until(|| stage.api.metric("holdfast_rest_in_flight") == 1.0).await;
        stage.ask("GET", ME).await
    };
    let ((), stayed) = tokio::join!(leaves, stays);
    assert_eq!((stayed.status, stage.discord.requests().len()), (StatusCode::OK, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_not_shared() {
    let stage = stage(|limits| limits.latency_ms = [600, 600]).await;
    // Lost twice: the first is sent again once, and then its caller hears of it.
    stage.discord.rest_fault(RestFault::HangUp);
    stage.discord.rest_fault(RestFault::HangUp);
    let (first, others) = tokio::join!(stage.ask("GET", ME), async {
        until(|| stage.api.metric("holdfast_rest_in_flight") == 1.0).await;
        join_all((0..3).map(|_| stage.ask("GET", ME))).await
    });
    assert_eq!(first.header("holdfast-error"), Some("lost"));
    assert!(others.iter().all(|answer| answer.status == StatusCode::OK), "{others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_comes_whole_to_each() {
    let stage = stage(|limits| limits.latency_ms = [200, 200]).await;
    let guilds = stage.ask("GET", "/api/v10/users/@me/guilds").await.json();
    let guild = guilds[0]["id"].as_str().expect("a guild");
    let path = format!("/api/v10/guilds/{guild}/members/1");
    let answers = join_all((0..3).map(|_| stage.ask("GET", &path))).await;
    assert!(answers.iter().all(|answer| answer.body == answers[0].body && !answer.body.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_for_a_moment_where_the_settings_say_so() {
    let stage = configured(|_| {}, |config| config.cache = Duration::from_secs(60)).await;
    for _ in 0..3 {
        assert_eq!(stage.ask("GET", ME).await.json()["username"], "simulated");
    }
    assert_eq!(stage.api.metric(r#"holdfast_api_shared_total{by="cache"}"#), 2.0);
    // Another token's is another one; errors aren't kept; what changes something makes all forgotten.
    stage.api.send(request_of(OTHER, "GET", ME, "")).await;
    for _ in 0..2 {
        stage.ask("GET", "/api/v10/guilds/1").await;
    }
    assert_eq!(stage.discord.requests().len(), 4);
    stage.api.send(request("POST", "/api/v10/channels/1/typing", "")).await;
    stage.ask("GET", ME).await;
    stage.api.send(request_of(OTHER, "GET", ME, "")).await;
    assert_eq!(stage.discord.requests().len(), 6);
}
