// SPDX-License-Identifier: AGPL-3.0-only
//! The store is lost while replicas run: each account belongs to one of them until it is back.

use futures_util::future::join_all;
use holdfast_simulator::Refill;
use http::StatusCode;

use super::support::{Door, RunningApi, SEND, Stage, api, bucket, request, stage, store, until};

const REDIS: &str = "127.0.0.1:6379";

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_limits_are_kept_by_whom_each_account_belongs_to() {
    let (stage, replicas, door) = behind_a_door(3).await;
    ask_all(&stage, &replicas, 30).await;
    door.shut();
    until(|| replicas.iter().all(|replica| replica.metric("holdfast_rest_store_connected") == 0.0)).await;
    let page = || replicas[0].service.pages.get("/readyz").expect("a page");
    until(|| page().body.contains("store: ")).await;
    assert_eq!(page().status, 200);
    ask_all(&stage, &replicas, 150).await;
    let relayed = |replica: &RunningApi| {
        replica.service.metrics.encode().contains(r#"holdfast_api_relayed_total{outcome="answered"}"#)
    };
    assert_eq!(
        replicas.iter().filter(|replica| relayed(replica)).count(),
        2,
        "one of them owns the token's account"
    );
    door.open();
    until(|| replicas.iter().all(|replica| replica.metric("holdfast_rest_store_connected") == 1.0)).await;
    until(|| !page().body.contains("store: ")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_lost_too_leaves_its_accounts_to_the_next() {
    let (stage, mut replicas, door) = behind_a_door(3).await;
    door.shut();
    until(|| replicas.iter().all(|replica| replica.metric("holdfast_rest_store_connected") == 0.0)).await;
    ask_all(&stage, &replicas, 12).await;
    let owns = |replica: &RunningApi| {
        !replica.service.metrics.encode().contains(r#"holdfast_api_relayed_total{outcome="answered"}"#)
    };
    let owner = replicas.iter().position(owns).expect("one of them");
    let owner = replicas.remove(owner);
    owner.shutdown.cancel();
    owner.service.tasks.finish(super::support::SOON).await.expect("it ends");
    ask_all(&stage, &replicas, 60).await;
}

/// Many requests at once, by all replicas: no 429, and an answer of Discord's for each.
async fn ask_all(stage: &Stage, replicas: &[RunningApi], count: usize) {
    let asked = (0..count).map(|number| {
        let path = format!("/api/v10/channels/{}/messages", 1 + number % 10);
        replicas[number % replicas.len()].send(request("POST", &path, "{}"))
    });
    let answers = join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::NOT_FOUND), "{:?}", answers[0]);
    assert_eq!(stage.answered(429), 0);
}

/// Replicas that reach the store through something that can be shut.
async fn behind_a_door(count: usize) -> (Stage, Vec<RunningApi>, Door) {
    let stage = stage(|limits| {
        limits.latency_ms = [10, 20];
        limits.buckets = vec![bucket(&[SEND], 5, 0.5, Refill::Fixed)];
    })
    .await;
    let door = Door::to(REDIS).await;
    let store = store(&format!("redis://{}", door.address));
    let mut replicas = Vec::new();
    for _ in 0..count {
        let cluster = Some(store.clone());
        replicas.push(api(stage.discord.api_url(), |config| config.cluster = cluster).await);
    }
    let all = count as f64;
    until(|| replicas.iter().all(|replica| replica.metric("holdfast_api_replicas") == all)).await;
    (stage, replicas, door)
}
