// SPDX-License-Identifier: AGPL-3.0-only
//! The store out of reach: told quickly, and come back from without one owner losing its shard to another who was
//! merely quicker.

use std::time::Duration;

use holdfast_cluster::{Acquired, Change, Cluster, Identity, Renewed, ReplicaId, ShardId, StoreState};
use tokio::time::Instant;

use crate::support::{
    BRIEF, DEADLINE, LASTING, MACHINE, Proxy, Server, Way, World, eventually, standing, take, take_in_time,
    within,
};

const REDIS: u16 = 6379;
const SHARDS: [ShardId; 3] = [ShardId::new(0, 3), ShardId::new(1, 3), ShardId::new(2, 3)];

#[tokio::test]
async fn a_cut_connection_is_told_at_once_and_comes_back_by_itself() {
    let proxy = Proxy::to(REDIS).await;
    let world = World::through(&proxy.url(), MACHINE, LASTING);
    let a = world.replica("a").await;
    let lease = take(&a, SHARDS[0]).await;
    let (mut state, mut changes) = (a.state(), a.changes());
    proxy.set(Way::Cut);
    within(state.wait_for(|state| !state.is_connected())).await.unwrap();
    let begin = Instant::now();
    for _ in 0..100 {
        let why = a.renew(&[lease]).await.unwrap_err();
        assert!(!why.is_refused(), "{why}");
    }
    assert!(begin.elapsed() < Duration::from_millis(500), "nobody waits for what isn't there");
    proxy.set(Way::To(REDIS));
    within(state.wait_for(StoreState::is_connected)).await.unwrap();
    assert_eq!(a.renew(&[lease]).await.unwrap(), [Renewed::Held]);
    assert_eq!(within(changes.recv()).await, Ok(Change::Missed));
}

#[tokio::test]
async fn a_stalled_connection_is_given_up_within_the_timeout() {
    let proxy = Proxy::to(REDIS).await;
    let world = World::through(&proxy.url(), MACHINE, LASTING);
    let a = world.replica("a").await;
    let lease = take(&a, SHARDS[0]).await;
    proxy.set(Way::Stalled);
    let begin = Instant::now();
    let error = a.renew(&[lease]).await.unwrap_err();
    let took = begin.elapsed();
    assert!(took >= LASTING.timeout && took < LASTING.timeout + Duration::from_secs(1), "{took:?}: {error}");
    assert!(error.to_string().contains("cluster.timeout"), "{error}");
    let mut state = a.state();
    within(state.wait_for(|state| !state.is_connected())).await.unwrap();
    proxy.set(Way::To(REDIS));
    eventually("it comes back", async || a.renew(&[lease]).await.ok()).await;
}

#[tokio::test]
async fn many_large_writes_into_a_stalled_connection_do_not_wait_for_each_other() {
    let proxy = Proxy::to(REDIS).await;
    let world = World::through(&proxy.url(), MACHINE, LASTING);
    let a = world.replica("a").await;
    let lease = take(&a, SHARDS[0]).await;
    proxy.set(Way::Stalled);
    let begin = Instant::now();
    let mut writes = tokio::task::JoinSet::new();
    for guild in 0..40 {
        let a = a.clone();
        writes.spawn(async move { a.save_guilds(&lease, &[(guild, vec![7; 1 << 20])]).await });
    }
    let results = within(writes.join_all()).await;
    assert!(results.iter().all(Result::is_err));
    assert!(begin.elapsed() < 2 * LASTING.timeout, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_replica_that_begins_before_the_store_finds_it_once_it_is_there() {
    let mut server = Server::start(&[]);
    server.kill();
    let world = World::at(&server.url(), LASTING);
    let identity = Identity { id: ReplicaId::random(), application: 42, address: "a".to_owned() };
    let a = Cluster::start(&world.settings(), identity, world.tasks()).unwrap();
    assert!(a.heartbeat(&standing(3)).await.is_err());
    let mut state = a.state();
    let tried = |state: &StoreState| matches!(state, StoreState::Down { why, .. } if why.to_string().contains("refused"));
    within(state.wait_for(tried)).await.unwrap();
    server.start_again();
    within(a.connected()).await.unwrap();
    a.heartbeat(&standing(3)).await.unwrap();
}

#[tokio::test]
async fn after_an_outage_shards_are_kept_for_their_owners_for_one_expiry() {
    let proxy = Proxy::to(REDIS).await;
    let world = World::through(&proxy.url(), MACHINE, BRIEF);
    let mut replicas = Vec::new();
    let mut leases = Vec::new();
    for (name, shard) in ["a", "b", "c"].iter().zip(SHARDS) {
        let replica = world.replica(name).await;
        replica.heartbeat(&standing(3)).await.unwrap();
        leases.push(take(&replica, shard).await);
        replicas.push(replica);
    }
    proxy.set(Way::Cut);
    // All leases lapse meanwhile, by the store's clock.
    eventually("all leases have lapsed", async || {
        let left: [i64; 3] =
            ["0/3", "1/3", "2/3"].map(|shard| world.look("PTTL", &format!("{{42:{shard}}}:lease"), &[]));
        left.iter().all(|left| *left < 0).then_some(())
    })
    .await;
    // The third replica dies meanwhile.
    drop(replicas.pop());
    proxy.set(Way::To(REDIS));
    let (a, b) = (&replicas[0], &replicas[1]);
    within(a.connected()).await.unwrap();
    let back = Instant::now();
    // The first to come back finds the others' shards free, but may not have them.
    let acquired = a.acquire(&SHARDS[1..]).await.unwrap();
    assert!(acquired.iter().all(|acquired| matches!(acquired, Acquired::Reserved(_))), "{acquired:?}");
    assert_eq!(a.renew(&leases[..1]).await.unwrap(), [Renewed::Held]);
    within(b.connected()).await.unwrap();
    assert_eq!(b.renew(&leases[1..2]).await.unwrap(), [Renewed::Held], "the owner comes back for it");
    let taken = take_in_time(a, SHARDS[2]).await;
    assert!(back.elapsed() > BRIEF.expiry / 2, "not at once: {:?}", back.elapsed());
    assert_eq!(taken.generation, leases[2].generation + 1);
}

#[tokio::test]
async fn one_replica_that_is_cut_off_alone_is_not_waited_for_twice() {
    let proxy = Proxy::to(REDIS).await;
    let world = World::through(MACHINE, MACHINE, BRIEF);
    let b = world.replica("b").await;
    let a = {
        let identity = Identity { id: ReplicaId::random(), application: 42, address: "a".to_owned() };
        let mut settings = crate::support::settings(&format!("url = \"{}\"", proxy.url()));
        (settings.prefix, settings.times) = (world.settings().prefix, BRIEF);
        Cluster::start(&settings, identity, world.tasks()).unwrap()
    };
    within(a.connected()).await.unwrap();
    let lease = take(&a, SHARDS[0]).await;
    let begin = Instant::now();
    proxy.set(Way::Cut);
    let taken = loop {
        assert!(begin.elapsed() < DEADLINE);
        b.heartbeat(&standing(3)).await.unwrap();
        match &b.acquire(&SHARDS[..1]).await.unwrap()[0] {
            Acquired::Granted(lease) => break *lease,
            Acquired::Held(_) => tokio::time::sleep(BRIEF.renew / 4).await,
            Acquired::Reserved(_) => panic!("the store was never away"),
        }
    };
    assert_eq!(taken.generation, lease.generation + 1);
    proxy.set(Way::To(REDIS));
    within(a.connected()).await.unwrap();
    assert!(
        matches!(&a.renew(&[lease]).await.unwrap()[0], Renewed::Lost(Some(owner)) if owner.address == "b")
    );
}

#[tokio::test]
async fn nobody_identifies_while_the_store_is_away() {
    let proxy = Proxy::to(REDIS).await;
    let world = World::through(&proxy.url(), MACHINE, LASTING);
    let a = world.replica("a").await;
    let permits = holdfast_cluster::Permits::shared(&a, crate::permits::limit(100, 16));
    permits.acquire(0).await.unwrap();
    proxy.set(Way::Cut);
    within(a.state().wait_for(|state| !state.is_connected())).await.unwrap();
    let permit = permits.acquire(1);
    tokio::pin!(permit);
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut permit).await.is_err());
    proxy.set(Way::To(REDIS));
    within(permit).await.unwrap();
}
