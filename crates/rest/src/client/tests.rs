// SPDX-License-Identifier: AGPL-3.0-only
//! The client against a server that answers as Discord does, and as it doesn't.

use axum::Router;
use axum::extract::Request as Received;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::get;

use super::*;

const GATEWAY: &str = r#"{"url":"wss://gateway.discord.gg","shards":9,"session_start_limit":
    {"total":1000,"remaining":999,"reset_after":14400000,"max_concurrency":1},"new":{}}"#;

#[tokio::test]
async fn the_gateway_is_asked_for_with_the_token() {
    let discord = serve(Router::new().route(
        "/api/v10/gateway/bot",
        get(async |headers: HeaderMap| {
            let ours = headers["authorization"] == "Bot secret.token"
                && headers["user-agent"].to_str().is_ok_and(|agent| agent.starts_with("DiscordBot ("));
            if ours { GATEWAY.into_response() } else { StatusCode::BAD_REQUEST.into_response() }
        }),
    ))
    .await;
    let gateway = client(&discord).gateway_bot(Some("ws://localhost:7878")).await.expect("answers");
    assert_eq!((gateway.url.as_str(), gateway.shards), ("wss://gateway.discord.gg", 9));
    assert_eq!(gateway.session_start_limit.reset_after, Duration::from_secs(4 * 3600));
}

#[tokio::test]
async fn a_gateway_that_is_our_own_is_refused() {
    let discord = serve(Router::new().route("/api/v10/gateway/bot", get(async || GATEWAY))).await;
    let error =
        client(&discord).gateway_bot(Some("wss://gateway.discord.gg:443/")).await.expect_err("refused");
    assert!(matches!(error, RestError::OwnGateway { .. }) && error.is_final(), "{error}");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let status = |code: u16| move || async move { StatusCode::from_u16(code).expect("a status") };
    let limited = async || (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "2.5")]);
    for (route, expected) in [
        (get(status(401)), RestError::Unauthorized),
        (get(status(403)), RestError::Forbidden { path: "/users/@me".to_owned() }),
        (get(status(502)), RestError::Status { path: "/users/@me".to_owned(), status: 502 }),
        (
            get(limited),
            RestError::RateLimited {
                path: "/users/@me".to_owned(),
                retry_after: Duration::from_millis(2500),
            },
        ),
    ] {
        let discord = serve(Router::new().route("/api/v10/users/@me", route)).await;
        assert_eq!(client(&discord).current_user().await, Err(expected));
    }
}

#[tokio::test]
async fn what_is_not_discord_is_an_error_and_never_endless() {
    let page = serve(Router::new().fallback(async |_: Received| "<html>")).await;
    assert!(matches!(client(&page).application().await, Err(RestError::NotDiscord { .. })));
    let huge = serve(Router::new().fallback(async || vec![b' '; MAX_ANSWER + 1])).await;
    assert!(matches!(client(&huge).application().await, Err(RestError::NotDiscord { .. })));
    let silent = serve(Router::new().fallback(async || std::future::pending::<()>().await)).await;
    let hasty = client(&silent).with_timeout(Duration::from_millis(50));
    assert!(matches!(hasty.application().await, Err(RestError::TimedOut { .. })));
}

#[tokio::test]
async fn nobody_there_is_an_error_that_names_the_address() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/api/v10", free.local_addr().expect("bound"));
    drop(free);
    let error = client(&url).current_user().await.expect_err("nobody there");
    assert!(error.to_string().contains(&url), "{error}");
}

#[test]
fn an_address_that_is_none_and_a_token_that_is_none_are_refused_at_once() {
    let token = Secret::new("secret.token");
    for url in ["", "discord.com", "ftp://discord.com", "http:///x"] {
        assert!(matches!(Client::new(url, &token), Err(RestError::Address { .. })), "{url}");
    }
    assert_eq!(Client::new("http://localhost", &Secret::new("a\nb")).err(), Some(RestError::Token));
}

#[test]
fn the_token_is_not_in_what_is_printed() {
    let client = client("http://localhost");
    assert!(!format!("{client:?}").contains("secret.token"));
}

fn client(url: &str) -> Client {
    Client::new(url, &Secret::new("secret.token")).expect("a client")
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/api/v10")
}
