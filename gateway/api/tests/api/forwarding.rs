// SPDX-License-Identifier: AGPL-3.0-only
//! What goes through unchanged, and what is answered here.

use holdfast_service::Secret;
use http::StatusCode;
use http_body_util::Full;

use super::support::{self, OTHER, SOON, TOKEN, api, configured, request, request_of, stage};

#[tokio::test]
async fn answers_of_discord_come_as_they_are() {
    let stage = stage(|_| {}).await;
    let answer = stage.ask("GET", "/api/v10/users/@me").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["username"], "simulated");
    assert_eq!(answer.header("x-ratelimit-limit"), Some("50"));
    assert_eq!(answer.header("holdfast-error"), None);
    let missing = stage.ask("GET", "/api/v10/guilds/1").await;
    assert_eq!((missing.status, missing.json()["code"].clone()), (StatusCode::NOT_FOUND, 10_004.into()));
}

#[tokio::test]
async fn prefixes_versions_queries_and_unknown_routes_go_through() {
    let stage = stage(|_| {}).await;
    for path in [
        "/api/v10/users/@me?x=1&y=%20",
        "/api/v9/users/@me",
        "/api/users/@me",
        "/users/@me",
        "/v10/users/@me",
    ] {
        assert_eq!(stage.ask("GET", path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(stage.ask("PUT", "/api/v10/novelties/1/things").await.status, StatusCode::NOT_FOUND);
    let paths: Vec<_> = stage.discord.requests().into_iter().map(|request| request.path).collect();
    let expected = [
        "/api/v10/users/@me?x=1&y=%20",
        "/api/v9/users/@me",
        "/api/v10/users/@me",
        "/api/v10/users/@me",
        "/api/v10/users/@me",
        "/api/v10/novelties/1/things",
    ];
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn each_token_is_its_own_and_none_is_none() {
    let stage = stage(|_| {}).await;
    for (token, status) in
        [(TOKEN, StatusCode::OK), (OTHER, StatusCode::OK), ("wrong", StatusCode::UNAUTHORIZED)]
    {
        let answer = stage.api.send(request_of(token, "GET", "/api/v10/users/@me", "")).await;
        assert_eq!(answer.status, status, "{token}");
    }
    let without = http::Request::get("/api/v10/users/@me").body(Full::default()).expect("a request");
    assert_eq!(stage.api.send(without).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn tokens_that_are_not_listed_stay_out() {
    let listed =
        |config: &mut holdfast_api::Config| config.tokens = vec![Secret::new(format!("Bot {OTHER}"))];
    let stage = configured(|_| {}, listed).await;
    for (token, status) in
        [(TOKEN, StatusCode::OK), (OTHER, StatusCode::OK), ("wrong", StatusCode::UNAUTHORIZED)]
    {
        let answer = stage.api.send(request_of(token, "GET", "/api/v10/users/@me", "")).await;
        assert_eq!(answer.status, status, "{token}");
    }
    assert_eq!(stage.discord.requests().len(), 2, "the third never left");
}

#[tokio::test]
async fn the_trace_is_passed_on() {
    let stage = stage(|_| {}).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut traced = request("GET", "/api/v10/users/@me", "");
    traced.headers_mut().insert("traceparent", trace.parse().expect("a value"));
    assert_eq!(stage.api.send(traced).await.status, StatusCode::OK);
    assert_eq!(stage.discord.requests()[0].trace, trace);
}

#[tokio::test]
async fn a_default_token_stands_in_where_there_is_none_and_a_secret_keeps_others_out() {
    let stage = configured(
        |_| {},
        |config| {
            config.default_token = true;
            config.secret = Some(Secret::new("proxy-secret"));
        },
    )
    .await;
    let ask = |secret: Option<&str>| {
        let mut request = http::Request::get("/api/v10/users/@me").body(Full::default()).expect("a request");
        if let Some(secret) = secret {
            request.headers_mut().insert("holdfast-secret", secret.parse().expect("a value"));
        }
        stage.api.send(request)
    };
    assert_eq!(ask(Some("proxy-secret")).await.status, StatusCode::OK);
    for secret in [None, Some("guess")] {
        let refused = ask(secret).await;
        assert_eq!(
            (refused.status, refused.header("holdfast-error")),
            (StatusCode::UNAUTHORIZED, Some("access"))
        );
    }
    assert_eq!(stage.discord.requests().len(), 1);
}

#[tokio::test]
async fn bots_are_told_to_connect_to_the_front_and_our_own_services_are_not() {
    let stage = configured(
        |_| {},
        |config| {
            config.gateway_url = "ws://front:7878".to_owned();
            config.shards = Some(7);
        },
    )
    .await;
    assert_eq!(stage.ask("GET", "/api/v10/gateway").await.json()["url"], "ws://front:7878");
    let bot = stage.ask("GET", "/api/v10/gateway/bot").await.json();
    assert_eq!((&bot["url"], &bot["shards"]), (&"ws://front:7878".into(), &7.into()));
    assert!(bot["session_start_limit"]["remaining"].as_u64().expect("a number") > 10_000);
    let mut ours = request("GET", "/api/v10/gateway/bot", "");
    ours.headers_mut().insert("user-agent", "DiscordBot (holdfast, 1.0)".parse().expect("a value"));
    let truth = stage.api.send(ours).await.json();
    assert_eq!(truth["url"], stage.discord.gateway_url());
    // Another bot's gateway isn't ours.
    let other = stage.api.send(request_of(OTHER, "GET", "/api/v10/gateway/bot", "")).await.json();
    assert_eq!(other["url"], stage.discord.gateway_url());
    let wrong = stage.api.send(request_of("wrong", "GET", "/api/v10/gateway/bot", "")).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn discord_out_of_reach_is_a_502_in_discords_form() {
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = nowhere.local_addr().expect("bound");
    drop(nowhere);
    let api = api(&format!("http://{address}/api/v10"), |_| {}).await;
    let answer = api.send(request("GET", "/api/v10/users/@me", "")).await;
    assert_eq!(
        (answer.status, answer.header("holdfast-error")),
        (StatusCode::BAD_GATEWAY, Some("unreachable"))
    );
    assert_eq!(answer.json()["code"], 0);
    assert!(answer.json()["message"].as_str().expect("text").contains("reached"));
}

#[tokio::test]
async fn a_drain_lets_requests_end_that_are_under_way() {
    let stage = stage(|limits| limits.latency_ms = [300, 300]).await;
    let asked = stage.ask("GET", "/api/v10/users/@me");
    let (answer, ()) = tokio::join!(asked, async {
        stage.discord.wait_until("request under way", |_| true).await.expect("at once");
        support::until(|| stage.api.metric("holdfast_rest_in_flight") == 1.0).await;
        stage.api.shutdown.cancel();
    });
    assert_eq!(answer.status, StatusCode::OK);
    stage.api.service.tasks.finish(SOON).await.expect("everything ends");
    assert!(tokio::net::TcpStream::connect(stage.api.address).await.is_err());
}
