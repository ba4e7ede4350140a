// SPDX-License-Identifier: AGPL-3.0-only
//! Permits to identify, over all replicas: as Discord counts, by one clock. Over both stores, in real time.

use std::time::Duration;

use holdfast_cluster::{Exhausted, Permits, Times};
use holdfast_discord::limits::{IdentifyQueue, SessionStartLimit};
use tokio::time::Instant;

use crate::support::{DEADLINE, LASTING, Proxy, Server, Way, World, eventually, over_both, within};

over_both! { LASTING;
    replicas_share_a_bucket_and_go_one_per_interval_lowest_first,
    buckets_go_at_once,
    the_day_is_over_for_all_replicas_together,
    of_two_answers_for_one_day_the_lower_counts,
    another_day_is_not_bound_by_the_day_before,
    who_gives_up_holds_up_nobody,
    a_refused_identify_blocks_its_bucket_for_all,
    when_buckets_change_each_waits_for_the_latest_identify,
}

async fn replicas_share_a_bucket_and_go_one_per_interval_lowest_first(world: World) {
    let permits = pair(&world, limit(1000, 1)).await;
    let begin = Instant::now();
    permits[0].acquire(4).await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for (shard, permits) in [(2, permits[1].clone()), (1, permits[0].clone())] {
        waiting.spawn(async move {
            permits.acquire(shard).await.unwrap();
            (shard, begin.elapsed())
        });
    }
    let granted = within(waiting.join_all()).await;
    let at = |shard| granted.iter().find(|(other, _)| *other == shard).unwrap().1;
    assert!(at(1) >= IdentifyQueue::INTERVAL - Duration::from_millis(50), "{granted:?}");
    assert!(at(2) >= at(1) + Duration::from_secs(5), "{granted:?}");
    assert!(at(2) < Duration::from_secs(15), "no turn was wasted: {granted:?}");
    assert_eq!(permits[1].remaining(), 1000 - 3 - IdentifyQueue::KEEP, "the last to be granted knows all");
}

async fn buckets_go_at_once(world: World) {
    let permits = pair(&world, limit(1000, 16)).await;
    let begin = Instant::now();
    for shard in 0..16 {
        permits[shard as usize % 2].acquire(shard).await.unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    let seventeenth = tokio::time::timeout(Duration::from_secs(1), permits[0].acquire(16)).await;
    assert!(seventeenth.is_err(), "its bucket has been used");
}

async fn the_day_is_over_for_all_replicas_together(world: World) {
    let permits = pair(&world, limit(3, 16)).await;
    permits[0].acquire(0).await.unwrap();
    permits[1].acquire(1).await.unwrap();
    for permits in &permits {
        let Exhausted { renewed_in } = permits.acquire(2).await.unwrap_err();
        assert!(
            renewed_in > Duration::from_secs(3000) && renewed_in <= Duration::from_secs(3600),
            "{renewed_in:?}"
        );
        assert_eq!(permits.remaining(), 0);
    }
}

async fn of_two_answers_for_one_day_the_lower_counts(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let first = Permits::shared(&a, limit(100, 16));
    first.acquire(0).await.unwrap();
    // Discord doesn't count it yet.
    let second = Permits::shared(&b, limit(100, 16));
    second.acquire(1).await.unwrap();
    assert_eq!(second.remaining(), 98 - IdentifyQueue::KEEP);
    let third = Permits::shared(&b, limit(50, 16));
    third.acquire(2).await.unwrap();
    assert_eq!(third.remaining(), 49 - IdentifyQueue::KEEP);
}

async fn another_day_is_not_bound_by_the_day_before(world: World) {
    let permits = pair(&world, limit(2, 16)).await;
    permits[0].acquire(0).await.unwrap();
    permits[0].acquire(1).await.unwrap_err();
    let tomorrow = SessionStartLimit { reset_after: IdentifyQueue::DAY, ..limit(1000, 16) };
    permits[1].update(tomorrow);
    within(permits[1].acquire(1)).await.unwrap();
    within(permits[0].acquire(2)).await.unwrap();
}

async fn who_gives_up_holds_up_nobody(world: World) {
    let permits = pair(&world, limit(1000, 1)).await;
    permits[0].acquire(9).await.unwrap();
    let gave_up = tokio::time::timeout(Duration::from_millis(500), permits[0].acquire(0)).await;
    assert!(gave_up.is_err());
    let begin = Instant::now();
    permits[1].acquire(1).await.unwrap();
    assert!(begin.elapsed() < IdentifyQueue::INTERVAL + Duration::from_secs(1), "{:?}", begin.elapsed());
}

async fn a_refused_identify_blocks_its_bucket_for_all(world: World) {
    let permits = pair(&world, limit(1000, 2)).await;
    permits[0].acquire(1).await.unwrap();
    let begin = Instant::now();
    let waits = permits[1].acquire(3);
    tokio::pin!(waits);
    // In the middle of the interval somebody else uses the bucket: the one that waits gets another one.
    assert!(tokio::time::timeout(IdentifyQueue::INTERVAL / 2, &mut waits).await.is_err());
    permits[0].refused(1);
    within(waits).await.unwrap();
    let waited = begin.elapsed();
    assert!(waited > IdentifyQueue::INTERVAL * 5 / 4, "{waited:?}");
}

async fn when_buckets_change_each_waits_for_the_latest_identify(world: World) {
    let permits = pair(&world, limit(1000, 1)).await;
    permits[0].acquire(0).await.unwrap();
    permits[1].update(limit(999, 16));
    let begin = Instant::now();
    // Another bucket by now, and by what Discord counted a moment ago the same.
    permits[1].acquire(7).await.unwrap();
    assert!(begin.elapsed() > Duration::from_secs(4), "{:?}", begin.elapsed());
    permits[0].acquire(8).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_store_that_comes_back_empty_is_told_what_is_left_of_the_day() {
    let mut server = Server::start(&[]);
    let world = World::at(&server.url(), LASTING);
    let a = world.replica("a").await;
    let permits = Permits::shared(&a, limit(100, 16));
    within(permits.acquire(0)).await.unwrap();
    within(permits.acquire(1)).await.unwrap();
    server.kill();
    server.start_again();
    within(permits.acquire(2)).await.unwrap();
    assert_eq!(permits.remaining(), 97 - IdentifyQueue::KEEP);
}

#[tokio::test]
async fn a_reserve_is_left_unused() {
    let world = World::redis(LASTING);
    let mut settings = world.settings();
    settings.identify_reserve = 10;
    let identity = holdfast_cluster::Identity {
        id: holdfast_cluster::ReplicaId::random(),
        application: 42,
        address: "a".to_owned(),
    };
    let a = holdfast_cluster::Cluster::start(&settings, identity, world.tasks()).unwrap();
    let permits = Permits::shared(&a, limit(11, 16));
    within(permits.acquire(0)).await.unwrap();
    assert_eq!(permits.remaining(), 0);
    assert!(within(permits.acquire(1)).await.is_err());
}

#[tokio::test]
async fn a_permit_that_is_granted_when_nobody_waits_any_more_is_given_back() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    // Answers are waited for as long as the test likes.
    let world = World::through(&proxy.url(), &server.url(), Times { timeout: DEADLINE, ..LASTING });
    let permits = Permits::shared(&world.replica("a").await, limit(1000, 2));
    within(permits.acquire(0)).await.unwrap();
    let left = || world.look::<u32>("HGET", "{42}:identify:budget", &["remaining"]);
    let used = || world.look::<bool>("HEXISTS", "{42}:identify:1", &["used"]);
    assert_eq!((left(), used()), (999, false));
    proxy.set(Way::Unanswered);
    {
        let asks = permits.acquire(1);
        tokio::pin!(asks);
        let granted = eventually("it is granted", async || (left() == 998 && used()).then_some(()));
        tokio::select! { biased;
            _ = &mut asks => panic!("the answer is held back"),
            () = granted => {}
        }
    }
    proxy.set(Way::To(server.port));
    eventually("it is given back", async || (left() == 999 && !used()).then_some(())).await;
    let begin = Instant::now();
    within(permits.acquire(1)).await.unwrap();
    assert!(begin.elapsed() < IdentifyQueue::INTERVAL / 2, "the bucket is free: {:?}", begin.elapsed());
}

async fn pair(world: &World, limit: SessionStartLimit) -> [Permits; 2] {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    [Permits::shared(&a, limit), Permits::shared(&b, limit)]
}

/// What Discord says.
pub(crate) fn limit(remaining: u32, max_concurrency: u32) -> SessionStartLimit {
    SessionStartLimit { total: 1000, remaining, reset_after: Duration::from_secs(3600), max_concurrency }
}
