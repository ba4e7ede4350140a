// SPDX-License-Identifier: AGPL-3.0-only
//! What the service holds while much goes through it, measured from outside.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpStream;

use super::support::{Process, TOKEN, stage};

/// KiB in a MiB.
const MIB: u64 = 1_024;

#[tokio::test(flavor = "multi_thread")]
async fn four_large_uploads_at_once_take_less_than_20_mib() {
    let stage = stage(|_| {}).await;
    let service = Process::start(stage.discord.api_url(), None, "").await;
    // What is allocated once isn't the uploads' own.
    upload(&service, 1 << 20).await;
    let before = service.memory("VmRSS");
    service.forget_peak();
    let answers = join_all((0..4).map(|_| upload(&service, 24 << 20))).await;
    assert!(answers.iter().all(|status| *status == StatusCode::NOT_FOUND), "{answers:?}");
    let grown = service.memory("VmHWM").saturating_sub(before);
    assert!(grown < 20 * MIB, "grew by {} MiB", grown / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_are_held_and_others_are_served() {
    let connections = 10_000;
    holdfast_service::raise_file_limit();
    let stage = stage(|_| {}).await;
    let service = Process::start(stage.discord.api_url(), None, "").await;
    let before = service.memory("VmRSS");
    let connect = |_| TcpStream::connect(service.address.clone());
    let held: Vec<_> = stream::iter(0..connections).map(connect).buffer_unordered(64).collect().await;
    assert!(held.iter().all(Result::is_ok));
    let all = async { while service.metric("holdfast_api_connections").await < f64::from(connections) {} };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("all are taken");
    assert_eq!(upload(&service, 1_000).await, StatusCode::NOT_FOUND);
    let each =
        (service.memory("VmRSS").saturating_sub(before)) * 1_024 / u64::try_from(connections).expect("many");
    assert!(each < 16 * 1_024, "{each} bytes each");
}

/// Sends a body of so many bytes, which comes in pieces.
async fn upload(service: &Process, bytes: usize) -> StatusCode {
    let client: Client<HttpConnector, BoxBody<Bytes, std::io::Error>> =
        Client::builder(TokioExecutor::new()).build_http();
    let piece = Bytes::from(vec![b'x'; bytes.min(64 << 10)]);
    let pieces = stream::iter(vec![piece; bytes.div_ceil(64 << 10)]).map(|piece| Ok(Frame::data(piece)));
    let body = if bytes <= 64 << 10 {
        Full::from(vec![b'x'; bytes]).map_err(|never| match never {}).boxed()
    } else {
        BodyExt::boxed(StreamBody::new(pieces))
    };
    let request = Request::post(format!("http://{}/api/v10/channels/1/messages", service.address))
        .header("authorization", format!("Bot {TOKEN}"))
        .header("content-type", "application/octet-stream")
        .body(body)
        .expect("a request");
    let answer = client.request(request).await.expect("an answer");
    let status = answer.status();
    answer.into_body().collect().await.expect("a body");
    status
}
