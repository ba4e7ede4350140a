// SPDX-License-Identifier: AGPL-3.0-only
//! Workers over HTTP: they get what Discord posted as it was posted, and what they answer counts like any reply.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holdfast_broker::{Binding, Exchange, ExchangeKind, Names, Queue, QueueKind, Topology};
use holdfast_discord::signature::PublicKey;
use holdfast_http::settings::{Defer, Kinds, RouteSettings, WayKind};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Stage, command, hello, route, stage, unready};

/// What a worker answers, and after how long.
#[derive(Clone)]
struct Script {
    status: u16,
    body: &'static str,
    after: Duration,
}

/// What it got.
type Got = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

const PONG: &str = r#"{"type":4,"data":{"content":"pong"}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_the_same_bytes_with_a_signature_that_holds() {
    let (stage, got) = with_worker(200, PONG, Duration::ZERO, &[WayKind::Http]).await;
    let pressed = stage.press(command("ping")).await;
    assert_eq!((pressed.answer["data"]["content"].as_str(), pressed.failure), (Some("pong"), None));
    {
        let got = got.lock().expect("not poisoned");
        let (headers, body) = &got[0];
        let text = |name: &str| headers[name].to_str().expect("text");
        let signed =
            holdfast_discord::signature::signature(text("x-signature-ed25519")).expect("a signature");
        let message = [text("x-signature-timestamp").as_bytes(), body].concat();
        assert!(PublicKey::parse(&stage.discord.public_key()).expect("a key").signed(&signed, &message));
        assert_eq!(text("content-type"), "application/json");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_answers_by_rest_says_202() {
    for status in [202, 204] {
        let (stage, _) = with_worker(status, "", Duration::ZERO, &[WayKind::Http]).await;
        assert_eq!(stage.press(command("ping")).await.status, 202);
        stage.counted(r#"holdfast_http_interactions_total{kind="command",outcome="taken"}"#, 1.0).await;
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_workers_answer_is_sent_late() {
    let (stage, _) = with_worker(200, PONG, Duration::from_millis(600), &[WayKind::Http]).await;
    let pressed = stage.press(command("ping")).await;
    assert_eq!((&pressed.answer, &pressed.failure), (&json!({ "type": 5 }), &None));
    let followed = stage.followed(&pressed, |followed| !followed.edits.is_empty()).await;
    assert_eq!(followed.edits, [json!({ "content": "pong" })]);
    stage.end().await;
}

/// Fails, talks nonsense, or isn't there: Discord is told to wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_fails_keeps_nobody_waiting() {
    for (status, body, cause) in [
        (500, "", "unavailable"),
        (404, PONG, "unavailable"),
        (200, "oops", "invalid"),
        (200, r#"{"type":6}"#, "invalid"),
    ] {
        let (stage, _) = with_worker(status, body, Duration::ZERO, &[WayKind::Http]).await;
        let pressed = stage.press(command("ping")).await;
        assert_eq!((pressed.answer, pressed.failure), (json!({ "type": 5 }), None), "{status} {body}");
        stage.counted(&format!("holdfast_http_deferred_total{{cause=\"{cause}\"}}"), 1.0).await;
        stage.end().await;
    }
    let stage =
        stage(|config| config.routes.insert(0, over_http("http://127.0.0.1:9/", &[WayKind::Http]))).await;
    assert_eq!(stage.press(command("ping")).await.answer, json!({ "type": 5 }));
    stage.counted(r#"holdfast_http_deferred_total{cause="no_worker"}"#, 1.0).await;
    stage.end().await;
}

/// Who is asked first is not there: the next one is asked.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_way_is_asked_when_one_leads_nowhere() {
    let ways = [WayKind::WebSocket, WayKind::Amqp, WayKind::Http];
    let (stage, got) = with_worker(200, PONG, Duration::ZERO, &ways).await;
    assert_eq!(stage.press(command("ping")).await.answer["data"]["content"], "pong");
    let mut worker = stage.worker(&["#"]).await;
    let answering = async {
        let ask = worker.next().await;
        ask.reply(hello(&ask.interaction, "by amqp")).await;
    };
    let (pressed, ()) = tokio::join!(stage.press(command("ping")), answering);
    assert_eq!(pressed.answer["data"]["content"], "by amqp");
    assert_eq!(got.lock().expect("not poisoned").len(), 1);
    stage.end().await;
}

/// A shard's owner is there and stands still: nobody waits for it longer than for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_way_is_asked_when_one_says_nothing() {
    let (address, _) = worker(Script { status: 200, body: PONG, after: Duration::ZERO }).await;
    let ways = [WayKind::WebSocket, WayKind::Http];
    let stage = stage(|config| {
        config.routes.insert(0, over_http(&format!("http://{address}/interactions"), &ways));
    })
    .await;
    let (exchange, queue) = (stage.broker.names().commands(), stage.queue());
    let topology = Topology {
        exchanges: vec![Exchange::new(&exchange, ExchangeKind::Direct)],
        queues: vec![Queue::new(&queue, QueueKind::Classic)],
        bindings: vec![Binding::queue(&exchange, &queue, Names::GUILD_KEY)],
    };
    stage.broker.declare(&topology).await.expect("declared");
    let pressed = stage.press(command("ping")).await;
    assert_eq!(pressed.answer["data"]["content"], "pong");
    stage.end().await;
}

/// Nobody could have the events: Discord is to refuse the address when somebody enters it.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_way_for_events_there_is_no_address_for_them() {
    let stage = unready(|config| config.broker = None).await;
    let ping = json!({ "version": 1, "application_id": "7", "type": 0 }).to_string();
    let signing = holdfast_simulator::Signing::Right;
    assert_eq!(stage.discord.post(&stage.url("/events"), ping.into(), &signing).await.status, 404);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_events_go_to_a_workers_url() {
    for (status, expected) in [(200, 204), (204, 204), (503, 503)] {
        let (address, got) = worker(Script { status, body: "", after: Duration::ZERO }).await;
        let stage = stage(|config| config.events_url = Some(format!("http://{address}/events"))).await;
        let signing = holdfast_simulator::Signing::Right;
        let data = json!({ "id": "7" });
        for _ in 0..2 {
            let url = stage.url("/events");
            let posted = stage.discord.post_event(&url, "ENTITLEMENT_CREATE", &data, &signing).await;
            assert_eq!(posted.status, expected);
        }
        // What was taken isn't sent again, what wasn't is.
        let times = if expected == 204 { 1 } else { 2 };
        assert_eq!(got.lock().expect("not poisoned").len(), times, "{status}");
        stage.end().await;
    }
}

/// The service before a worker over HTTP, which is told soon to wait.
async fn with_worker(status: u16, body: &'static str, after: Duration, ways: &[WayKind]) -> (Stage, Got) {
    let (address, got) = worker(Script { status, body, after }).await;
    let stage = stage(|config| {
        config.answer_within = Duration::from_millis(300);
        config.routes.insert(0, over_http(&format!("http://{address}/interactions"), ways));
    })
    .await;
    (stage, got)
}

fn over_http(url: &str, ways: &[WayKind]) -> RouteSettings {
    RouteSettings { url: Some(url.to_owned()), ..route(Kinds::All, "*", ways, Defer::Public) }
}

/// A worker that does as the script says.
async fn worker(script: Script) -> (SocketAddr, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let got = Got::default();
    let notes = Arc::clone(&got);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (script, notes) = (script.clone(), Arc::clone(&notes));
            let service = service_fn(move |request| answer(script.clone(), Arc::clone(&notes), request));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, got)
}

async fn answer(
    script: Script,
    got: Got,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    got.lock().expect("not poisoned").push((head.headers, body));
    // A worker that takes its time.
    tokio::time::sleep(script.after).await;
    let response = Response::builder().status(script.status).header("content-type", "application/json");
    Ok(response.body(Full::from(script.body)).expect("a response"))
}
