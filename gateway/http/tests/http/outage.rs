// SPDX-License-Identifier: AGPL-3.0-only
//! No broker: Discord is answered all the same, and sends its events again.

use holdfast_broker::BrokerSettings;
use holdfast_http::settings::{Defer, Kinds, RouteSettings, WayKind};
use holdfast_simulator::Signing;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{command, route, unready};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_discord_is_told_to_wait_or_to_come_again() {
    // Nobody listens there any more.
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let stage = unready(|config| {
        config.answer_within = std::time::Duration::from_millis(150);
        config.broker = Some(BrokerSettings::at(format!("amqp://guest:guest@{nobody}/%2f")));
    })
    .await;
    let pressed = stage.press(command("ping")).await;
    assert_eq!((pressed.answer, pressed.failure), (json!({ "type": 5 }), None));
    let event = async || {
        let url = stage.url("/events");
        stage.discord.post_event(&url, "ENTITLEMENT_CREATE", &json!({}), &Signing::Right).await.status
    };
    // Not for good: it isn't a repetition of what was taken.
    assert_eq!((event().await, event().await), (503, 503));
    stage.counted(r#"holdfast_http_events_total{outcome="unavailable"}"#, 2.0).await;
    assert!(!stage.http.service.readiness.unmet().is_empty(), "/readyz says so");
    stage.end().await;
}

/// Whoever is asked next is asked at once.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_the_next_way_is_asked() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let stage = unready(|config| {
        config.broker = Some(BrokerSettings::at(format!("amqp://guest:guest@{nobody}/%2f")));
        // Nobody is there either, as is found at once.
        let ways = [WayKind::Amqp, WayKind::Http];
        let url = Some("http://127.0.0.1:9/".to_owned());
        config.routes = vec![RouteSettings { url, ..route(Kinds::All, "*", &ways, Defer::Public) }];
    })
    .await;
    let pressed = stage.press(command("ping")).await;
    assert_eq!((pressed.answer, pressed.failure), (json!({ "type": 5 }), None));
    assert!(pressed.took_ms < 1_500, "{} ms", pressed.took_ms);
    stage.end().await;
}
