// SPDX-License-Identifier: AGPL-3.0-only
//! Requests that would lead somewhere else, or never end.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{Stage, configured, request, stage};

#[tokio::test]
async fn paths_hosts_and_methods_that_lead_elsewhere_are_refused() {
    let stage = stage(|_| {}).await;
    for head in [
        "GET /api/v10/../../etc HTTP/1.1\r\nhost: x",
        "GET /api/v10/%2e%2e/x HTTP/1.1\r\nhost: x",
        "GET /api/v10/users%2f@me HTTP/1.1\r\nhost: x",
        "GET http://elsewhere.example/api/v10/users/@me HTTP/1.1\r\nhost: elsewhere.example",
        "CONNECT elsewhere.example:443 HTTP/1.1\r\nhost: elsewhere.example",
        "GET /api/v10/users/@me HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6",
        "POST /api/v10/users/@me HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip",
        "POST /api/v10/users/@me HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked",
        "GET /api/v10/users/@me HTTP/1.1\r\nhost: x\r\nbad header: 1",
        "nonsense",
    ] {
        let answer = raw(&stage, &format!("{head}\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"), "{head}: {answer:?}");
    }
    assert!(stage.discord.requests().is_empty(), "{:?}", stage.discord.requests());
}

#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let stage = stage(|_| {}).await;
    let smuggled = "POST /api/v10/channels/1/typing HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\
                    transfer-encoding: chunked\r\nauthorization: Bot sim-token\r\nconnection: close\r\n\r\n\
                    0\r\n\r\nGET /api/v10/users/@me HTTP/1.1\r\nhost: x\r\nauthorization: Bot sim-token\r\n\r\n";
    raw(&stage, smuggled).await;
    let paths: Vec<_> = stage.discord.requests().into_iter().map(|request| request.path).collect();
    assert!(paths.len() <= 1 && !paths.iter().any(|path| path.contains("users")), "{paths:?}");
}

#[tokio::test]
async fn heads_and_bodies_have_a_bound() {
    let stage = configured(
        |_| {},
        |config| {
            config.max_header_bytes = 8 << 10;
            config.max_body = 100_000;
        },
    )
    .await;
    let long = "x".repeat(20 << 10);
    let answer =
        raw(&stage, &format!("GET /api/v10/users/@me HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    let large = "x".repeat(200_000);
    let refused = stage.api.send(request("POST", "/api/v10/channels/1/messages", &large)).await;
    assert_eq!(
        (refused.status, refused.header("holdfast-error")),
        (StatusCode::PAYLOAD_TOO_LARGE, Some("body"))
    );
    // One that doesn't say how long it is ends when it is too long.
    let chunk = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let head = "POST /api/v10/channels/1/messages HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close";
    let answer = raw(&stage, &format!("{head}\r\n\r\n{chunk}")).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    assert!(stage.discord.requests().is_empty());
}

#[tokio::test]
async fn who_is_slow_is_not_waited_for() {
    let stage = configured(
        |_| {},
        |config| {
            config.idle_timeout = Duration::from_millis(300);
            config.body_timeout = Duration::from_millis(300);
        },
    )
    .await;
    let head = raw(&stage, "GET /api/v10/users/@me HTTP/1.1\r\nhost: x\r\n").await;
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head:?}");
    let body =
        raw(&stage, "POST /api/v10/users/@me HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n12").await;
    assert!(body.starts_with("HTTP/1.1 408"), "{body:?}");
    assert!(stage.discord.requests().is_empty());
}

#[tokio::test]
async fn wishes_that_are_none_are_refused() {
    let stage = stage(|_| {}).await;
    for (name, value) in [("holdfast-deadline-ms", "soon"), ("holdfast-priority", "mine")] {
        let mut asked = request("GET", "/api/v10/users/@me", "");
        asked.headers_mut().insert(name, value.parse().expect("a value"));
        assert_eq!(stage.api.send(asked).await.status, StatusCode::BAD_REQUEST, "{name}");
    }
}

/// Sends bytes as they are, and reads until the service closes.
async fn raw(stage: &Stage, bytes: &str) -> String {
    let mut stream = TcpStream::connect(stage.api.address).await.expect("connects");
    stream.write_all(bytes.as_bytes()).await.expect("sends");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(super::support::SOON, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the service closes");
    String::from_utf8_lossy(&answer).into_owned()
}
