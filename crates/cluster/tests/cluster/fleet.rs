// SPDX-License-Identifier: AGPL-3.0-only
//! Replicas: who lives, and who may not begin. Over both stores.

use holdfast_cluster::{Change, Cluster, FleetConflict, HeartbeatError, Standing};

use crate::support::{BRIEF, World, eventually, over_both, standing, within};

mod lasting {
    crate::support::over_both! { LASTING;
        a_replica_that_registers_is_on_everybodys_list_until_it_leaves,
        how_a_replica_stands_is_told_anew,
        those_who_listen_hear_who_comes_and_goes,
        another_count_of_shards_is_refused_with_what_to_do,
        another_bot_is_refused_with_what_to_do,
        the_last_one_to_leave_makes_room_for_another_fleet,
        the_count_can_be_replaced_by_those_who_know_it,
    }
    use super::*;
}

over_both! { BRIEF;
    a_silent_replica_lapses_and_a_heartbeat_brings_it_back,
    a_fleet_of_which_nobody_lives_lapses,
    a_fleet_of_which_one_lives_does_not_lapse,
}

async fn a_replica_that_registers_is_on_everybodys_list_until_it_leaves(world: World) {
    let (a, b) = (world.replica("a:1").await, world.replica("b:1").await);
    assert_eq!(listed(&a).await, ["a:1"]);
    assert_eq!(listed(&b).await, ["a:1", "b:1"]);
    assert_eq!(listed(&a).await, ["a:1", "b:1"]);
    b.leave().await.unwrap();
    assert_eq!(listed(&a).await, ["a:1"]);
}

async fn how_a_replica_stands_is_told_anew(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let full =
        Standing { weight: 7, max_shards: Some(5), draining: true, started_unix_ms: 9, ..standing(16) };
    b.heartbeat(&standing(16)).await.unwrap();
    b.heartbeat(&full).await.unwrap();
    let replicas = a.heartbeat(&standing(16)).await.unwrap();
    let found = replicas.iter().find(|replica| replica.id == b.identity().id).unwrap();
    assert_eq!(
        (found.weight, found.max_shards, found.draining, found.started_unix_ms),
        (7, Some(5), true, 9)
    );
}

async fn those_who_listen_hear_who_comes_and_goes(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let mut changes = a.changes();
    let mut heard = async || while changes.recv().await.unwrap() != Change::Replicas {};
    b.heartbeat(&standing(16)).await.unwrap();
    within(heard()).await;
    b.heartbeat(&Standing { draining: true, ..standing(16) }).await.unwrap();
    within(heard()).await;
    b.leave().await.unwrap();
    within(heard()).await;
}

async fn another_count_of_shards_is_refused_with_what_to_do(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    a.heartbeat(&standing(16)).await.unwrap();
    let error = b.heartbeat(&standing(32)).await.unwrap_err();
    let HeartbeatError::Conflict(conflict) = &error else { panic!("{error:?}") };
    assert!(matches!(conflict, FleetConflict::Count { ours: 32, theirs: 16, .. }), "{conflict:?}");
    assert_eq!(conflict.lapses_in(), None, "one of them lives");
    assert!(error.to_string().contains("ws.shards.total = 16"), "{error}");
    assert_eq!(a.heartbeat(&standing(16)).await.unwrap().len(), 1, "it was not registered");
}

async fn another_bot_is_refused_with_what_to_do(world: World) {
    let (a, b) = (world.replica("a").await, world.replica_of(43, "b").await);
    a.heartbeat(&standing(16)).await.unwrap();
    let error = b.heartbeat(&standing(16)).await.unwrap_err();
    assert!(
        matches!(&error, HeartbeatError::Conflict(FleetConflict::Application { ours: 43, theirs: 42, .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("cluster.prefix"), "{error}");
}

async fn the_last_one_to_leave_makes_room_for_another_fleet(world: World) {
    let (a, b, c) = (world.replica("a").await, world.replica("b").await, world.replica("c").await);
    a.heartbeat(&standing(16)).await.unwrap();
    b.heartbeat(&standing(16)).await.unwrap();
    a.leave().await.unwrap();
    assert!(c.heartbeat(&standing(32)).await.is_err());
    a.heartbeat(&standing(16)).await.unwrap();
    b.leave().await.unwrap();
    a.leave().await.unwrap();
    c.heartbeat(&standing(32)).await.unwrap();
}

async fn the_count_can_be_replaced_by_those_who_know_it(world: World) {
    let a = world.replica("a").await;
    a.heartbeat(&standing(16)).await.unwrap();
    assert!(!a.replace_total(8, 32).await.unwrap());
    a.heartbeat(&standing(16)).await.unwrap();
    assert!(a.replace_total(16, 32).await.unwrap());
    assert!(a.replace_total(16, 32).await.unwrap(), "asking twice does no harm");
    assert!(a.heartbeat(&standing(16)).await.is_err());
    a.heartbeat(&standing(32)).await.unwrap();
}

async fn a_silent_replica_lapses_and_a_heartbeat_brings_it_back(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    assert_eq!(listed(&b).await, ["b"]);
    eventually("it lapses", async || (listed(&a).await == ["a"]).then_some(())).await;
    assert_eq!(listed(&b).await, ["a", "b"]);
}

async fn a_fleet_of_which_nobody_lives_lapses(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    a.heartbeat(&standing(16)).await.unwrap();
    let mut told = false;
    eventually("it lapses", async || match b.heartbeat(&standing(32)).await {
        Ok(_) => Some(()),
        Err(HeartbeatError::Conflict(conflict)) => {
            told |= conflict.lapses_in().is_some();
            None
        }
        Err(error) => panic!("{error}"),
    })
    .await;
    assert!(told || matches!(world, World::Memory { .. }), "that it would was told before");
    assert!(a.heartbeat(&standing(16)).await.is_err(), "the old one is the stranger now");
}

async fn a_fleet_of_which_one_lives_does_not_lapse(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let begin = tokio::time::Instant::now();
    while begin.elapsed() < 3 * BRIEF.expiry {
        a.heartbeat(&standing(16)).await.unwrap();
        assert!(b.heartbeat(&standing(32)).await.is_err());
        tokio::time::sleep(BRIEF.renew / 4).await;
    }
}

async fn listed(replica: &Cluster) -> Vec<String> {
    let replicas = replica.heartbeat(&standing(16)).await.unwrap();
    let mut names: Vec<String> = replicas.into_iter().map(|replica| replica.address).collect();
    names.sort();
    names
}
