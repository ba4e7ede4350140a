// SPDX-License-Identifier: AGPL-3.0-only
//! Leases: who gets a shard, for how long, and what others hear of it. Over both stores.

use std::collections::HashSet;
use std::time::Duration;

use holdfast_cluster::{Acquired, Change, Lease, Renewed, ShardId};

use crate::support::{BRIEF, World, eventually, granted, over_both, take, take_in_time, within};

const SHARD: ShardId = ShardId::new(3, 16);

mod lasting {
    crate::support::over_both! { LASTING;
        of_many_who_wish_for_a_shard_one_gets_it,
        who_has_a_shard_is_told_to_everybody,
        asking_again_for_ones_own_shard_gives_the_same_lease,
        a_released_shard_is_free_at_once_and_those_who_wait_hear_of_it,
        hundreds_of_leases_are_renewed_at_once_and_the_lost_ones_are_named,
        shards_of_another_count_are_other_shards,
        a_lease_that_the_store_has_never_heard_of_is_taken_at_its_word,
        a_released_lease_is_not_renewed,
        a_lost_lease_cannot_be_released,
        a_count_that_is_forgotten_leaves_nothing,
    }
    use super::*;
}

over_both! { BRIEF;
    a_lease_that_is_not_renewed_lapses_and_the_next_generation_is_higher,
    a_lapsed_lease_that_nobody_has_taken_is_renewed_under_its_own_generation,
    a_renewed_lease_does_not_lapse,
}

async fn of_many_who_wish_for_a_shard_one_gets_it(world: World) {
    let shards: Vec<ShardId> = ShardId::all(64).collect();
    let mut wishes = tokio::task::JoinSet::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let replica = world.replica(name).await;
        let shards = shards.clone();
        wishes.spawn(async move {
            let mut owned = Vec::new();
            for shards in shards.chunks(8) {
                let acquired = replica.acquire(shards).await.unwrap();
                owned.extend(acquired.into_iter().filter_map(|acquired| match acquired {
                    Acquired::Granted(lease) => Some(lease),
                    _ => None,
                }));
                tokio::task::yield_now().await;
            }
            owned
        });
    }
    let owned: Vec<Lease> = wishes.join_all().await.into_iter().flatten().collect();
    assert_eq!(owned.len(), shards.len());
    assert_eq!(owned.iter().map(|lease| lease.shard).collect::<HashSet<_>>().len(), shards.len());
}

async fn who_has_a_shard_is_told_to_everybody(world: World) {
    let (a, b) = (world.replica("a:1").await, world.replica("b:1").await);
    let lease = take(&a, SHARD).await;
    let owners = b.owners(&[ShardId::new(0, 16), SHARD]).await.unwrap();
    assert_eq!(owners[0], None);
    let owner = owners[1].clone().unwrap();
    assert_eq!(
        (owner.replica, owner.address.as_str(), owner.generation),
        (a.identity().id, "a:1", lease.generation)
    );
    assert_eq!(b.acquire(&[SHARD]).await.unwrap(), [Acquired::Held(owner)]);
}

async fn asking_again_for_ones_own_shard_gives_the_same_lease(world: World) {
    let a = world.replica("a").await;
    let lease = take(&a, SHARD).await;
    assert_eq!(take(&a, SHARD).await, lease);
}

async fn a_released_shard_is_free_at_once_and_those_who_wait_hear_of_it(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let lease = take(&a, SHARD).await;
    let mut changes = b.changes();
    a.release(&[lease]).await.unwrap();
    let heard = async { while changes.recv().await.unwrap() != Change::Released(SHARD) {} };
    within(heard).await;
    assert_eq!(b.owners(&[SHARD]).await.unwrap(), [None]);
    let next = take(&b, SHARD).await;
    assert_eq!(next.generation, lease.generation + 1);
}

async fn hundreds_of_leases_are_renewed_at_once_and_the_lost_ones_are_named(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let shards: Vec<ShardId> = ShardId::all(500).collect();
    let leases: Vec<Lease> = a.acquire(&shards).await.unwrap().iter().map(granted).collect();
    let moved = &leases[100..102];
    a.release(moved).await.unwrap();
    let taken = take(&b, moved[0].shard).await;
    let renewed = a.renew(&leases).await.unwrap();
    for (index, renewed) in renewed.iter().enumerate() {
        match index {
            100 => match renewed {
                Renewed::Lost(Some(owner)) => {
                    assert_eq!((owner.replica, owner.generation), (b.identity().id, taken.generation));
                }
                other => panic!("{other:?}"),
            },
            101 => assert_eq!(*renewed, Renewed::Lost(None)),
            _ => assert_eq!(*renewed, Renewed::Held, "{index}"),
        }
    }
}

async fn shards_of_another_count_are_other_shards(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    take(&a, ShardId::new(3, 16)).await;
    take(&b, ShardId::new(3, 32)).await;
}

async fn a_lease_that_the_store_has_never_heard_of_is_taken_at_its_word(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let lease = Lease { shard: SHARD, owner: a.identity().id, generation: 1 << 40 };
    assert_eq!(a.renew(&[lease]).await.unwrap(), [Renewed::Held]);
    assert!(matches!(b.acquire(&[SHARD]).await.unwrap()[0], Acquired::Held(_)));
    a.release(&[lease]).await.unwrap();
    assert_eq!(take(&b, SHARD).await.generation, lease.generation + 1, "the counter never goes back");
}

async fn a_released_lease_is_not_renewed(world: World) {
    let a = world.replica("a").await;
    let lease = take(&a, SHARD).await;
    a.release(&[lease]).await.unwrap();
    assert_eq!(a.renew(&[lease]).await.unwrap(), [Renewed::Lost(None)]);
    assert_eq!(a.owners(&[SHARD]).await.unwrap(), [None]);
}

async fn a_lost_lease_cannot_be_released(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let lost = take(&a, SHARD).await;
    a.release(&[lost]).await.unwrap();
    let lease = take(&b, SHARD).await;
    a.release(&[lost]).await.unwrap();
    assert_eq!(b.renew(&[lease]).await.unwrap(), [Renewed::Held]);
    assert_eq!(a.owners(&[SHARD]).await.unwrap()[0].as_ref().unwrap().replica, b.identity().id);
}

async fn a_count_that_is_forgotten_leaves_nothing(world: World) {
    let a = world.replica("a").await;
    let (old, new) = (take(&a, ShardId::new(1, 2)).await, take(&a, ShardId::new(1, 4)).await);
    for lease in [&old, &new] {
        let record = crate::support::session(lease.shard, "secret");
        a.save_sessions(&[(*lease, &record)]).await.unwrap()[0].unwrap();
    }
    a.forget(2).await.unwrap();
    let records = a.load_sessions(&[old.shard, new.shard]).await.unwrap();
    assert!(records[0].is_none() && records[1].is_some());
    assert_eq!(a.owners(&[old.shard]).await.unwrap(), [None]);
    assert!(a.owners(&[new.shard]).await.unwrap()[0].is_some());
}

async fn a_lease_that_is_not_renewed_lapses_and_the_next_generation_is_higher(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let lapsed = take(&a, SHARD).await;
    let begin = tokio::time::Instant::now();
    let lease = take_in_time(&b, SHARD).await;
    assert!(begin.elapsed() > BRIEF.expiry - Duration::from_millis(500), "not before its time");
    assert_eq!(lease.generation, lapsed.generation + 1);
    assert!(matches!(&a.renew(&[lapsed]).await.unwrap()[0], Renewed::Lost(Some(_))));
}

async fn a_lapsed_lease_that_nobody_has_taken_is_renewed_under_its_own_generation(world: World) {
    let a = world.replica("a").await;
    let lease = take(&a, SHARD).await;
    eventually("it lapses", async || {
        let owners = a.owners(&[SHARD]).await.unwrap();
        owners[0].is_none().then_some(())
    })
    .await;
    assert_eq!(a.renew(&[lease]).await.unwrap(), [Renewed::Held]);
    assert_eq!(a.owners(&[SHARD]).await.unwrap()[0].as_ref().unwrap().generation, lease.generation);
}

async fn a_renewed_lease_does_not_lapse(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let lease = take(&a, SHARD).await;
    let begin = tokio::time::Instant::now();
    while begin.elapsed() < 2 * BRIEF.expiry {
        assert_eq!(a.renew(&[lease]).await.unwrap(), [Renewed::Held]);
        assert!(matches!(b.acquire(&[SHARD]).await.unwrap()[0], Acquired::Held(_)));
        tokio::time::sleep(BRIEF.renew / 4).await;
    }
}

#[tokio::test]
async fn a_store_that_throws_keys_away_for_want_of_memory_does_not_give_a_shard_back() {
    let world = World::redis(crate::support::LASTING);
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let old = take(&a, SHARD).await;
    a.release(&[old]).await.unwrap();
    let new = take(&b, SHARD).await;
    let _: i64 = world.look("DEL", "{42:3/16}:generation", &[]);
    assert!(matches!(&a.renew(&[old]).await.unwrap()[0], Renewed::Lost(Some(_))));
    assert_eq!(b.renew(&[new]).await.unwrap(), [Renewed::Held]);
    b.release(&[new]).await.unwrap();
    assert_eq!(
        take(&a, SHARD).await.generation,
        new.generation + 1,
        "its owner had told it the number again"
    );
}
