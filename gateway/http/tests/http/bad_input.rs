// SPDX-License-Identifier: AGPL-3.0-only
//! Requests that aren't Discord's, aren't new, or are none: refused, and no worker hears of them.

use bytes::Bytes;
use holdfast_http::Config;
use holdfast_simulator::{Posted, Press, Signing};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Running, SOON, Stage, command, hello, stage, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_is_401() {
    let stage = stage(|_| {}).await;
    for signing in
        [Signing::OtherKey, Signing::None, Signing::Garbage, Signing::Ago(3_600), Signing::Ago(-3_600)]
    {
        let pressed = stage.press(Press { signing: signing.clone(), ..command("ping") }).await;
        assert_eq!(pressed.status, 401, "{signing:?}");
        assert_eq!(event(&stage, &signing).await.status, 401, "{signing:?}");
    }
    assert!((stage.http.metric(r#"holdfast_http_refused_total{reason="signature"}"#) - 6.0).abs() < 0.1);
    assert!((stage.http.metric(r#"holdfast_http_refused_total{reason="stale"}"#) - 4.0).abs() < 0.1);
    let asked = stage.http.metric("holdfast_amqp_requests_total");
    assert!(asked.abs() < 0.1, "{asked} were asked");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_bit_is_401() {
    let stage = stage(|_| {}).await;
    let body = Bytes::from_static(br#"{"type":1,"version":1}"#);
    let right = post(&stage, body.clone(), &Signing::Right).await;
    assert_eq!((right.status, &*right.body), (200, &br#"{"type":1}"#[..]));
    assert_eq!(right.content_type, "application/json");
    let recorded = Signing::Recorded(right.signed.0.clone(), right.signed.1.clone());
    for bit in 0..8 * body.len() {
        let mut changed = body.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(post(&stage, changed.into(), &recorded).await.status, 401, "bit {bit}");
    }
    let later = Signing::Recorded(right.signed.0, format!("{}0", right.signed.1));
    assert_eq!(post(&stage, body, &later).await.status, 401);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_request_is_taken_once() {
    let stage = stage(|_| {}).await;
    let mut worker = stage.worker(&["#"]).await;
    let body = Bytes::from(
        json!({ "type": 2, "id": "7", "application_id": "8", "token": "t", "data": { "name": "ban" } })
            .to_string(),
    );
    let answering = async {
        let ask = worker.next().await;
        ask.reply(hello(&ask.interaction, "banned")).await;
    };
    let (first, ()) = tokio::join!(post(&stage, body.clone(), &Signing::Right), answering);
    assert_eq!(first.status, 200);
    let recorded = Signing::Recorded(first.signed.0, first.signed.1);
    for _ in 0..3 {
        assert_eq!(post(&stage, body.clone(), &recorded).await.status, 401);
    }
    stage.counted(r#"holdfast_http_refused_total{reason="replay"}"#, 3.0).await;
    stage.counted("holdfast_amqp_requests_total", 1.0).await;
    stage.end().await;
}

/// Replicas with a store know what the others have taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_request_is_taken_by_one_replica() {
    let prefix = format!("http-{:016x}", fastrand::u64(..));
    let shared = |config: &mut Config| {
        let mut settings = holdfast_cluster::Settings::at("redis://127.0.0.1:6379").expect("an address");
        settings.prefix = prefix.clone();
        config.cluster = Some(settings);
    };
    let stage = stage(shared).await;
    let other = stage.replica(shared).await;
    for replica in [&stage.http, &other] {
        until(|| replica.metric("holdfast_rest_store_connected") > 0.0).await;
    }
    let at = |replica: &Running, path: &str| format!("http://{}{path}", replica.address);
    let ping = |number: u32| Bytes::from(format!(r#"{{"type":1,"number":{number}}}"#));
    let first = stage.discord.post(&at(&stage.http, "/interactions"), ping(1), &Signing::Right).await;
    assert_eq!(first.status, 200);
    let recorded = Signing::Recorded(first.signed.0, first.signed.1);
    assert_eq!(stage.discord.post(&at(&other, "/interactions"), ping(1), &recorded).await.status, 401);
    assert_eq!(stage.discord.post(&at(&other, "/interactions"), ping(2), &Signing::Right).await.status, 200);
    // An event that Discord sends to one, and then to the other.
    let data = json!({ "id": "1" });
    for replica in [&stage.http, &other] {
        let url = at(replica, "/events");
        let posted = stage.discord.post_event(&url, "ENTITLEMENT_CREATE", &data, &Signing::Right).await;
        assert_eq!(posted.status, 204);
    }
    let duplicates = other.metric(r#"holdfast_http_events_total{outcome="duplicate"}"#);
    assert!((duplicates - 1.0).abs() < f64::EPSILON, "{duplicates}");
    other.end().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused() {
    let stage = stage(|config| config.max_body = 64 << 10).await;
    for body in ["", "[]", "{}", "nonsense", r#"{"type":"2"}"#, "\u{0}", r#"{"type":2"#] {
        assert_eq!(post(&stage, body.into(), &Signing::Right).await.status, 400, "{body:?}");
        let posted = stage.discord.post(&stage.url("/events"), body.into(), &Signing::Right).await;
        assert_eq!(posted.status, 400, "{body:?}");
    }
    let large = Bytes::from(vec![b' '; 5 << 20]);
    assert_eq!(post(&stage, large, &Signing::Right).await.status, 413);
    let elsewhere = stage.discord.post(&stage.url("/"), "{}".into(), &Signing::Right).await;
    assert_eq!(elsewhere.status, 404);
    // It is well.
    assert_eq!(post(&stage, r#"{"type":1}"#.into(), &Signing::Right).await.status, 200);
    stage.end().await;
}

/// Without what looks like a signature nothing of a body is read.
#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_body_is_not_waited_for() {
    let stage = stage(|config| config.body_timeout = std::time::Duration::from_secs(60)).await;
    let mut stream = tokio::net::TcpStream::connect(stage.http.address).await.expect("it listens");
    let head = "POST /interactions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let mut status = [0; 12];
    timeout(SOON, stream.read_exact(&mut status)).await.expect("in time").expect("it answers");
    assert_eq!(&status, b"HTTP/1.1 401");
    stage.end().await;
}

/// All bodies together have a bound; what is answered gives its room back.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_a_bound_over_all() {
    let stage = stage(|config| {
        (config.max_body, config.bodies_memory) = (64 << 10, 64 << 10);
        config.body_timeout = std::time::Duration::from_secs(60);
    })
    .await;
    let mut stream = tokio::net::TcpStream::connect(stage.http.address).await.expect("it listens");
    let (signature, time) = ("00".repeat(64), "1700000000");
    let head = format!(
        "POST /interactions HTTP/1.1\r\nhost: localhost\r\nx-signature-ed25519: {signature}\r\n\
         x-signature-timestamp: {time}\r\ncontent-length: 65536\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    // What hasn't come needs no room.
    assert_eq!(post(&stage, r#"{"type":1}"#.into(), &Signing::Right).await.status, 200);
    stream.write_all(&[b' '; 65_000]).await.expect("it reads");
    stage.counted("holdfast_http_body_bytes", 65_536.0).await;
    assert_eq!(post(&stage, Bytes::from(vec![b' '; 1 << 10]), &Signing::Right).await.status, 503);
    stage.counted(r#"holdfast_http_refused_total{reason="full"}"#, 1.0).await;
    drop(stream);
    stage.counted("holdfast_http_body_bytes", 0.0).await;
    assert_eq!(post(&stage, r#"{"type":1,"id":"2"}"#.into(), &Signing::Right).await.status, 200);
    stage.end().await;
}

/// A clock that is wrong is seen: Discord takes such answers for failures. What somebody has recorded isn't Discord's.
#[tokio::test(flavor = "multi_thread")]
async fn what_discord_takes_for_failed_counts_as_failed() {
    let stage = stage(|_| {}).await;
    let ping = Bytes::from_static(br#"{"type":1}"#);
    let right = post(&stage, ping.clone(), &Signing::Right).await;
    let recorded = Signing::Recorded(right.signed.0, right.signed.1);
    for _ in 0..20 {
        assert_eq!(post(&stage, ping.clone(), &recorded).await.status, 401);
        assert_eq!(post(&stage, ping.clone(), &Signing::OtherKey).await.status, 401);
    }
    assert!(stage.http.metric("holdfast_http_failure_ratio").abs() < f64::EPSILON);
    for _ in 0..19 {
        assert_eq!(post(&stage, ping.clone(), &Signing::Ago(3_600)).await.status, 401);
    }
    stage.counted("holdfast_http_failure_ratio", 19.0 / 20.0).await;
    stage.end().await;
}

/// Each application has its key at its paths, or shares a path with others.
#[tokio::test(flavor = "multi_thread")]
async fn applications_are_known_by_path_and_by_key() {
    let stage = stage(|config| {
        // Test 1 of RFC 8032, section 7.1: nobody here has its other half.
        let other = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let key = holdfast_discord::signature::PublicKey::parse(other).unwrap();
        let discord = config.applications[0].clone();
        let shared = holdfast_http::settings::Application { key, ..discord.clone() };
        let own = holdfast_http::settings::Application {
            key,
            interactions: "/other/interactions".to_owned(),
            events: "/other/events".to_owned(),
        };
        config.applications = vec![shared, discord, own];
    })
    .await;
    let ping = Bytes::from_static(br#"{"type":1}"#);
    let at = async |path| stage.discord.post(&stage.url(path), ping.clone(), &Signing::Right).await.status;
    assert_eq!(at("/interactions").await, 200);
    assert_eq!(at("/other/interactions").await, 401);
    stage.end().await;
}

async fn post(stage: &Stage, body: Bytes, signing: &Signing) -> Posted {
    stage.discord.post(&stage.url("/interactions"), body, signing).await
}

async fn event(stage: &Stage, signing: &Signing) -> Posted {
    stage.discord.post_event(&stage.url("/events"), "APPLICATION_AUTHORIZED", &json!({}), signing).await
}
