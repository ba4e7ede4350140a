// SPDX-License-Identifier: AGPL-3.0-only
//! Where events are missing, a gap stands in their place.

use holdfast_contract::v1::GapReason;
use holdfast_simulator::{Fault, FaultKind, Traffic};
use serde_json::json;

use crate::contract::emit;
use crate::stage::{Body, Front, Stage};
use crate::support::discord;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_of_discords_is_a_gap_in_its_place() {
    let discord = discord(1, 2).await;
    let mut stage = Stage::new().await;
    let holdfast = stage.holdfast(&discord, &Front::default()).await;
    holdfast.live().await;
    let mut inbox = stage.inbox("all");
    discord.traffic(Traffic::burst(100));
    inbox.until_last(&discord.finish_traffic().await.sent).await;
    discord.fault(&Fault::new(0, FaultKind::Op9).resumable(false));
    discord.wait_for_identify(0).await.expect("a new session");
    let gap = inbox.until_gap().await;
    emit(&discord, "HOLDFAST_TEST_END", json!({}));
    inbox.until_event("HOLDFAST_TEST_END").await;
    let at = inbox.arrivals.iter().position(|arrival| arrival.gap().is_some()).expect("the gap");
    let (before, after) = (&inbox.arrivals[at - 1], &inbox.arrivals[at + 1]);
    let (Body::Event(before), Body::Event(after)) = (&before.body, &after.body) else { panic!("events") };
    assert_eq!((gap.from, gap.to), (before.position, after.position));
    assert_eq!((&gap.stream, &gap.next_stream), (&before.stream, &after.stream));
    assert_ne!(gap.stream, gap.next_stream);
    assert_eq!((gap.reason(), gap.lost, gap.name.as_str()), (GapReason::NewSession, 0, "HOLDFAST_GAP"));
    assert_eq!(after.name, "GUILD_CREATE");
    let arrival = &inbox.arrivals[at];
    assert_eq!(arrival.key, "HOLDFAST_GAP.0.0");
    assert_eq!(arrival.id(), format!("{}:{}-{}", gap.stream, gap.from, gap.to));
    assert_eq!(arrival.message.headers.text("guild"), Some("0"));
    assert_eq!(arrival.message.properties.kind.as_deref(), Some("holdfast.v1.Gap"));
    inbox.assert_unbroken();
    drop(holdfast);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_broker_does_not_take_is_a_gap_in_its_place() {
    let discord = discord(1, 2).await;
    let mut stage = Stage::new().await;
    let front = Front { broker: "max_message_bytes = \"64 KiB\"", ..Front::default() };
    let holdfast = stage.holdfast(&discord, &front).await;
    holdfast.live().await;
    let mut inbox = stage.inbox("all");
    for (number, bytes) in [(1, 10), (2, 100_000), (3, 10), (4, 70_000), (5, 80_000), (6, 60_000)] {
        emit(&discord, "SOMETHING_NEW", json!({ "n": number, "x": "x".repeat(bytes) }));
    }
    let long = format!("LONG_{}", "X".repeat(300));
    emit(&discord, &long, json!({}));
    emit(&discord, "HOLDFAST_TEST_END", json!({}));
    let end = inbox.until_event("HOLDFAST_TEST_END").await;
    let began = end.position - 8;
    let tail: Vec<_> = inbox.arrivals.iter().rev().take(8).rev().collect();
    let told: Vec<(u64, bool)> = tail
        .iter()
        .map(|arrival| match &arrival.body {
            Body::Event(event) => (event.position - began, true),
            Body::Gap(gap) => {
                assert_eq!((gap.reason(), gap.lost), (GapReason::TooLarge, 1));
                assert_eq!((gap.to, &gap.stream, &gap.next_stream), (gap.from + 2, &end.stream, &end.stream));
                (gap.from + 1 - began, false)
            }
        })
        .collect();
    let expected =
        [(1, true), (2, false), (3, true), (4, false), (5, false), (6, true), (7, false), (8, true)];
    assert_eq!(told, expected);
    assert_eq!(holdfast.metric("holdfast_ws_amqp_unsendable_total").await, 4.0);
    assert_eq!(holdfast.metric("holdfast_ws_amqp_gaps_total").await, 4.0);
    inbox.assert_unbroken();
    drop(holdfast);
    stage.end().await;
}
