// SPDX-License-Identifier: AGPL-3.0-only
//! A change of the count of shards: its course, and steps that are told twice, too late or out of turn. Over both
//! stores.

mod interrupted;

use holdfast_cluster::{
    Change, Cluster, FleetConflict, HeartbeatError, Reshard, ReshardBegun, ReshardPhase, Seen, ShardId,
};
use tokio::sync::broadcast;

use crate::support::{World, eventually, over_both, standing, take, within};

mod lasting {
    crate::support::over_both! { LASTING;
        a_bot_grows_from_four_shards_to_eight,
        a_bot_shrinks_from_eight_shards_to_three,
        of_many_who_begin_one_does_and_all_others_see_it,
        there_is_no_way_from_a_count_that_the_fleet_does_not_have,
        another_bot_under_the_prefix_has_no_part_in_it,
        a_new_shard_that_cools_is_waited_for,
        a_step_that_is_told_twice_counts_once,
        a_step_of_another_change_or_out_of_turn_is_passed_over,
        while_the_new_shards_gather_it_can_be_given_up_and_begun_anew,
        once_the_old_shards_are_being_cut_it_cannot_be_given_up,
        the_last_one_to_leave_takes_the_change_along,
    }
    use super::*;
}

over_both! { BRIEF;
    a_fleet_of_another_count_does_not_inherit_the_change,
    the_count_is_known_as_long_as_there_is_a_fleet_to_go_on_with,
}

async fn a_bot_grows_from_four_shards_to_eight(world: World) {
    a_change_takes_its_course(world, 4, 8).await;
}

async fn a_bot_shrinks_from_eight_shards_to_three(world: World) {
    a_change_takes_its_course(world, 8, 3).await;
}

async fn a_change_takes_its_course(world: World, from: u32, to: u32) {
    let (a, b) = (member(&world, "a", from).await, member(&world, "b", from).await);
    let turns = |shard: ShardId| if shard.shard.is_multiple_of(2) { &a } else { &b };
    let mut changes = b.changes();
    assert_eq!(b.reshard().await.unwrap(), None);
    let begun = begin(&a, from, to).await;
    assert!(begun.begun_unix_ms > 1_700_000_000_000, "{begun:?}");
    heard(&mut changes).await;

    let mut expected =
        Reshard { from, to, phase: ReshardPhase::Warming, warm: 0, cut: 0, opened: 0, ..begun };
    for shard in ShardId::all(to) {
        assert_eq!((under_way(&a).await, under_way(&b).await), (expected, expected));
        turns(shard).warmed(&[shard]).await.unwrap();
        expected.warm += 1;
    }
    heard(&mut changes).await;
    expected.phase = ReshardPhase::Cutting;

    for shard in ShardId::all(from) {
        assert_eq!((under_way(&a).await, under_way(&b).await), (expected, expected));
        assert_eq!(a.seen(ShardId::new(0, to)).await.unwrap(), None, "not all are cut");
        // Each new shard but the last has taken over something from each old one.
        let seen: Vec<_> = (0..to - 1).map(|new| (new, events(shard.shard, new))).collect();
        turns(shard).cut(shard, &seen).await.unwrap();
        expected.cut += 1;
    }
    heard(&mut changes).await;
    for shard in ShardId::all(to) {
        let all = (0..from).flat_map(|old| events(old, shard.shard)).collect();
        let all = if shard.shard == to - 1 { Vec::new() } else { all };
        assert_eq!(turns(shard).seen(shard).await.unwrap(), Some(all), "{shard}");
    }

    for shard in ShardId::all(to) {
        assert_eq!((under_way(&a).await, under_way(&b).await), (expected, expected));
        for replica in [&a, &b] {
            replica.heartbeat(&standing(from)).await.unwrap();
            assert!(is_conflict(replica, to).await, "not yet");
        }
        turns(shard).opened(&[shard]).await.unwrap();
        expected.opened += 1;
    }
    heard(&mut changes).await;
    for replica in [&a, &b] {
        assert_eq!(replica.reshard().await.unwrap(), None);
        assert_eq!(replica.fleet_total().await.unwrap(), Some(to));
        assert_eq!(replica.seen(ShardId::new(0, to)).await.unwrap(), None);
        assert!(is_conflict(replica, from).await);
        replica.heartbeat(&standing(to)).await.unwrap();
    }
    if let World::Redis { .. } = &world {
        assert!(!world.keys().iter().any(|key| key.contains("reshard")), "{:?}", world.keys());
    }
}

async fn of_many_who_begin_one_does_and_all_others_see_it(world: World) {
    let mut wishes = tokio::task::JoinSet::new();
    for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let replica = member(&world, name, 4).await;
        let to = 8 + u32::try_from(number).unwrap();
        wishes.spawn(async move { replica.begin_reshard(4, to).await.unwrap() });
    }
    let (mut begun, mut under_way) = (Vec::new(), Vec::new());
    for answer in wishes.join_all().await {
        match answer {
            ReshardBegun::Begun(reshard) => begun.push(reshard),
            ReshardBegun::UnderWay(reshard) => under_way.push(reshard),
            ReshardBegun::Count(count) => panic!("{count} shards"),
        }
    }
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert_eq!(under_way, vec![begun[0]; 3]);
}

async fn there_is_no_way_from_a_count_that_the_fleet_does_not_have(world: World) {
    let a = world.replica("a").await;
    assert_eq!(a.begin_reshard(4, 8).await.unwrap(), ReshardBegun::Count(0), "there is no fleet");
    assert_eq!(a.begin_reshard(0, 8).await.unwrap(), ReshardBegun::Count(0), "which isn't one of 0 shards");
    a.heartbeat(&standing(4)).await.unwrap();
    for (from, to) in [(5, 8), (8, 4), (4, 4), (4, 0)] {
        assert_eq!(a.begin_reshard(from, to).await.unwrap(), ReshardBegun::Count(4), "{from} to {to}");
    }
    assert_eq!(a.reshard().await.unwrap(), None);
}

async fn another_bot_under_the_prefix_has_no_part_in_it(world: World) {
    let a = member(&world, "a", 4).await;
    let stranger = world.replica_of(43, "b").await;
    assert_eq!(stranger.fleet_total().await.unwrap(), None);
    assert_eq!(stranger.begin_reshard(4, 8).await.unwrap(), ReshardBegun::Count(0));
    assert_eq!(a.reshard().await.unwrap(), None);
}

async fn a_new_shard_that_cools_is_waited_for(world: World) {
    let (a, b) = (member(&world, "a", 1).await, member(&world, "b", 1).await);
    begin(&a, 1, 3).await;
    let [one, other, last] = [0, 1, 2].map(|shard| ShardId::new(shard, 3));
    a.warmed(&[one, other]).await.unwrap();
    b.cooled(&[one]).await.unwrap();
    b.cooled(&[one]).await.unwrap();
    a.warmed(&[last]).await.unwrap();
    assert_eq!((under_way(&b).await.phase, under_way(&b).await.warm), (ReshardPhase::Warming, 2));
    a.warmed(&[one]).await.unwrap();
    assert_eq!((under_way(&b).await.phase, under_way(&b).await.warm), (ReshardPhase::Cutting, 3));
    b.cooled(&[one, other, last]).await.unwrap();
    assert_eq!((under_way(&b).await.phase, under_way(&b).await.warm), (ReshardPhase::Cutting, 3), "too late");
}

async fn a_step_that_is_told_twice_counts_once(world: World) {
    let (a, b) = (member(&world, "a", 2).await, member(&world, "b", 2).await);
    let begun = begin(&a, 2, 3).await;
    assert_eq!(a.begin_reshard(2, 3).await.unwrap(), ReshardBegun::UnderWay(begun));
    let new: Vec<ShardId> = ShardId::all(3).collect();
    for replica in [&a, &b, &a] {
        replica.warmed(&new[..2]).await.unwrap();
        replica.warmed(&[new[0], new[0]]).await.unwrap();
        replica.warmed(&[]).await.unwrap();
        assert_eq!((under_way(&b).await.phase, under_way(&b).await.warm), (ReshardPhase::Warming, 2));
    }
    a.warmed(&new).await.unwrap();
    a.warmed(&new).await.unwrap();
    for (number, replica) in [(0, &a), (5, &b), (6, &a)] {
        replica.cut(ShardId::new(0, 2), &[(1, events(number, 1))]).await.unwrap();
        assert_eq!(under_way(&b).await.cut, 1);
    }
    a.cut(ShardId::new(1, 2), &[]).await.unwrap();
    assert_eq!(b.seen(new[1]).await.unwrap(), Some(events(0, 1)), "the first counts");
    assert_eq!(b.seen(new[1]).await.unwrap(), Some(events(0, 1)), "and stays");
    for replica in [&a, &b, &a] {
        replica.opened(&new[..2]).await.unwrap();
        assert_eq!(under_way(&b).await.opened, 2);
    }
    // What comes after the end does nothing.
    for replica in [&a, &b] {
        replica.opened(&new).await.unwrap();
        replica.warmed(&new).await.unwrap();
        replica.cut(ShardId::new(0, 2), &[(0, events(0, 0))]).await.unwrap();
        replica.cooled(&new).await.unwrap();
        assert_eq!(b.reshard().await.unwrap(), None);
        assert_eq!(replica.fleet_total().await.unwrap(), Some(3));
    }
}

async fn a_step_of_another_change_or_out_of_turn_is_passed_over(world: World) {
    let a = member(&world, "a", 2).await;
    let new: Vec<ShardId> = ShardId::all(3).collect();
    a.warmed(&new).await.unwrap();
    let begun = begin(&a, 2, 3).await;
    let others: Vec<ShardId> = ShardId::all(4).collect();
    a.warmed(&others).await.unwrap();
    a.opened(&new).await.unwrap();
    a.cut(ShardId::new(0, 2), &[(0, events(0, 0))]).await.unwrap();
    assert_eq!(under_way(&a).await, begun, "only warming is to be done");
    a.warmed(&new).await.unwrap();
    let warm = Reshard { phase: ReshardPhase::Cutting, warm: 3, ..begun };
    a.opened(&others).await.unwrap();
    a.cut(ShardId::new(0, 3), &[(0, events(0, 0))]).await.unwrap();
    assert_eq!(under_way(&a).await, warm);
    for shard in ShardId::all(2) {
        a.cut(shard, &[]).await.unwrap();
    }
    assert_eq!(a.seen(new[0]).await.unwrap(), Some(Vec::new()), "what was told too early is forgotten");
    assert_eq!(a.seen(others[0]).await.unwrap(), None);
}

async fn while_the_new_shards_gather_it_can_be_given_up_and_begun_anew(world: World) {
    let (a, b) = (member(&world, "a", 4).await, member(&world, "b", 4).await);
    assert!(!a.abandon_reshard().await.unwrap(), "there is none");
    begin(&a, 4, 8).await;
    a.warmed(&[ShardId::new(0, 8), ShardId::new(1, 8)]).await.unwrap();
    let mut changes = a.changes();
    assert!(b.abandon_reshard().await.unwrap());
    heard(&mut changes).await;
    assert_eq!(a.reshard().await.unwrap(), None);
    assert!(!a.abandon_reshard().await.unwrap(), "asking twice does no harm");
    assert_eq!(a.fleet_total().await.unwrap(), Some(4));
    assert_eq!(begin(&a, 4, 8).await.warm, 0, "nothing is left of the one before");
}

async fn once_the_old_shards_are_being_cut_it_cannot_be_given_up(world: World) {
    let a = member(&world, "a", 1).await;
    begin(&a, 1, 2).await;
    let new: Vec<ShardId> = ShardId::all(2).collect();
    a.warmed(&new).await.unwrap();
    let warm = under_way(&a).await;
    assert!(!a.abandon_reshard().await.unwrap());
    assert_eq!(under_way(&a).await, warm);
    a.cut(ShardId::new(0, 1), &[]).await.unwrap();
    assert!(!a.abandon_reshard().await.unwrap());
    a.opened(&new).await.unwrap();
    assert!(!a.abandon_reshard().await.unwrap());
    assert_eq!(a.fleet_total().await.unwrap(), Some(2));
}

async fn the_last_one_to_leave_takes_the_change_along(world: World) {
    let new: Vec<ShardId> = ShardId::all(2).collect();
    for warm in [&new[..1], &new[..]] {
        let (a, b) = (member(&world, "a", 1).await, member(&world, "b", 1).await);
        begin(&a, 1, 2).await;
        a.warmed(warm).await.unwrap();
        a.cut(ShardId::new(0, 1), &[(0, events(0, 0))]).await.unwrap();
        a.leave().await.unwrap();
        assert!(b.reshard().await.unwrap().is_some(), "one goes on with it");
        let mut changes = a.changes();
        b.leave().await.unwrap();
        heard(&mut changes).await;
        assert_eq!(a.reshard().await.unwrap(), None);
        if let World::Redis { .. } = &world {
            assert!(!world.keys().iter().any(|key| key.contains("reshard")), "{:?}", world.keys());
        }
    }
}

async fn a_fleet_of_another_count_does_not_inherit_the_change(world: World) {
    let a = member(&world, "a", 4).await;
    begin(&a, 4, 8).await;
    a.warmed(&[ShardId::new(0, 8)]).await.unwrap();
    drop(a);
    let b = world.replica("b").await;
    let mut changes = b.changes();
    assert!(b.reshard().await.unwrap().is_some(), "whoever comes back with the old count goes on with it");
    eventually("the old fleet lapses", async || b.heartbeat(&standing(8)).await.ok()).await;
    heard(&mut changes).await;
    assert_eq!(b.reshard().await.unwrap(), None);
    assert!(begin(&b, 8, 4).await.warm == 0);
}

async fn the_count_is_known_as_long_as_there_is_a_fleet_to_go_on_with(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    assert_eq!(b.fleet_total().await.unwrap(), None, "there is none");
    a.heartbeat(&standing(16)).await.unwrap();
    assert_eq!(b.fleet_total().await.unwrap(), Some(16));
    let shard = ShardId::new(0, 16);
    take(&a, shard).await;
    eventually("everything of it lapses", async || {
        b.owners(&[shard]).await.unwrap()[0].is_none().then_some(())
    })
    .await;
    assert_eq!(b.fleet_total().await.unwrap(), Some(16), "it may come back");
    a.heartbeat(&standing(16)).await.unwrap();
    a.leave().await.unwrap();
    assert_eq!(b.fleet_total().await.unwrap(), None, "it won't");
}

/// A replica that belongs to a fleet of this many shards.
async fn member(world: &World, name: &str, total: u32) -> Cluster {
    let replica = world.replica(name).await;
    replica.heartbeat(&standing(total)).await.unwrap();
    replica
}

async fn begin(replica: &Cluster, from: u32, to: u32) -> Reshard {
    match replica.begin_reshard(from, to).await.unwrap() {
        ReshardBegun::Begun(reshard) => reshard,
        other => panic!("{other:?}"),
    }
}

async fn under_way(replica: &Cluster) -> Reshard {
    replica.reshard().await.unwrap().expect("a change is under way")
}

/// What an old shard may have had of a new one's guilds.
fn events(old: u32, new: u32) -> Vec<Seen> {
    let guild = 1 << 60 | u64::from(new);
    [0, u64::MAX, 7].map(|hash| Seen { guild, hash: hash ^ u64::from(old) << 32 }).to_vec()
}

async fn heard(changes: &mut broadcast::Receiver<Change>) {
    within(async { while changes.recv().await.unwrap() != Change::Reshard {} }).await;
}

async fn is_conflict(replica: &Cluster, total: u32) -> bool {
    let answer = replica.heartbeat(&standing(total)).await;
    matches!(answer, Err(HeartbeatError::Conflict(FleetConflict::Count { lapses_in: None, .. })))
}
