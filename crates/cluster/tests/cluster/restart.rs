// SPDX-License-Identifier: AGPL-3.0-only
//! A store that keeps nothing on disk and is started again: what replicas know is told to it, and nothing goes back.

use holdfast_cluster::{Acquired, Renewed, ShardId, Times};
use tokio::time::Instant;

use crate::support::{
    BRIEF, LASTING, Server, World, eventually, session, standing, take, take_in_time, within,
};

const SHARDS: [ShardId; 3] = [ShardId::new(0, 3), ShardId::new(1, 3), ShardId::new(2, 3)];
/// Long enough to look around in it, short enough to be waited for.
const TIMES: Times = Times { expiry: std::time::Duration::from_secs(4), ..BRIEF };

#[tokio::test]
async fn a_store_that_comes_back_empty_learns_its_leases_from_their_owners() {
    let mut server = Server::start(&[]);
    let world = World::at(&server.url(), TIMES);
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    a.heartbeat(&standing(3)).await.unwrap();
    b.heartbeat(&standing(3)).await.unwrap();
    let first = take_in_time(&b, SHARDS[0]).await;
    b.release(&[first]).await.unwrap();
    let (mine, others) = (take_in_time(&a, SHARDS[0]).await, take_in_time(&b, SHARDS[1]).await);
    server.kill();
    within(a.state().wait_for(|state| !state.is_connected())).await.unwrap();
    server.start_again();
    let back = Instant::now();
    within(a.connected()).await.unwrap();

    // A newcomer, who knows nothing, is the first to ask.
    let newcomer = world.replica("c").await;
    let acquired = newcomer.acquire(&SHARDS).await.unwrap();
    assert!(acquired.iter().all(|acquired| matches!(acquired, Acquired::Reserved(_))), "{acquired:?}");
    assert_eq!(a.renew(&[mine]).await.unwrap(), [Renewed::Held]);
    // So is an owner that looks at others' shards before they are back.
    let acquired = a.acquire(&SHARDS[1..2]).await.unwrap();
    assert!(matches!(acquired[0], Acquired::Reserved(_)), "{acquired:?}");
    within(b.connected()).await.unwrap();
    assert_eq!(b.renew(&[others]).await.unwrap(), [Renewed::Held]);
    // Records are written again under the generation that the owner knows; older ones stay refused.
    let record = session(SHARDS[0], "mine");
    assert!(b.save_sessions(&[(first, &record)]).await.unwrap()[0].is_err());
    assert!(a.save_sessions(&[(mine, &record)]).await.unwrap()[0].is_ok());

    eventually("what nobody claims is free after one expiry", async || {
        assert_eq!(a.renew(&[mine]).await.unwrap(), [Renewed::Held]);
        assert_eq!(b.renew(&[others]).await.unwrap(), [Renewed::Held]);
        match newcomer.acquire(&SHARDS).await.unwrap().as_slice() {
            [Acquired::Held(_), Acquired::Held(_), Acquired::Granted(_)] => Some(()),
            [Acquired::Held(_), Acquired::Held(_), Acquired::Reserved(_)] => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert!(back.elapsed() > TIMES.expiry / 2, "{:?}", back.elapsed());
    a.release(&[mine]).await.unwrap();
    assert_eq!(take(&newcomer, SHARDS[0]).await.generation, mine.generation + 1);
}

#[tokio::test]
async fn generations_rise_even_when_the_store_is_lost_together_with_all_owners() {
    let mut server = Server::start(&[]);
    let world = World::at(&server.url(), BRIEF);
    let before = take_in_time(&world.replica("a").await, SHARDS[0]).await;
    server.kill();
    server.start_again();
    let after = take_in_time(&world.replica("b").await, SHARDS[0]).await;
    assert!(after.generation > before.generation, "{before:?} {after:?}");
}

#[tokio::test]
async fn a_new_fleet_on_a_store_that_has_just_begun_waits_until_nobody_can_be_missed() {
    let server = Server::start(&[]);
    let world = World::at(&server.url(), BRIEF);
    let a = world.replica("a").await;
    a.heartbeat(&standing(3)).await.unwrap();
    assert!(matches!(a.acquire(&SHARDS[..1]).await.unwrap()[0], Acquired::Reserved(_)));
    take_in_time(&a, SHARDS[0]).await;
    // One on a store that has been there for long doesn't: all tests on the machine's take shards at once.
}

#[tokio::test]
async fn a_store_that_was_emptied_under_living_replicas_is_noticed() {
    let server = Server::start(&[]);
    let world = World::at(&server.url(), TIMES);
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    a.heartbeat(&standing(3)).await.unwrap();
    b.heartbeat(&standing(3)).await.unwrap();
    let lease = take_in_time(&b, SHARDS[1]).await;
    a.heartbeat(&standing(3)).await.unwrap();
    let () = server.tell("FLUSHALL", &[]);
    // The first to come is one that can't know; the next one finds itself forgotten.
    let newcomer = world.replica("c").await;
    newcomer.heartbeat(&standing(3)).await.unwrap();
    assert_eq!(a.heartbeat(&standing(3)).await.unwrap().len(), 2, "the owner hasn't come back yet");
    assert!(matches!(a.acquire(&SHARDS[1..2]).await.unwrap()[0], Acquired::Reserved(_)));
    assert_eq!(b.renew(&[lease]).await.unwrap(), [Renewed::Held]);
}

#[tokio::test]
async fn a_store_that_forgets_its_scripts_is_given_them_again() {
    let server = Server::start(&[]);
    let world = World::at(&server.url(), LASTING);
    let a = world.replica("a").await;
    a.heartbeat(&standing(3)).await.unwrap();
    let () = server.tell("SCRIPT", &["FLUSH"]);
    a.heartbeat(&standing(3)).await.unwrap();
}

#[tokio::test]
async fn a_single_replica_that_left_in_order_is_back_without_waiting() {
    let world = World::redis(BRIEF);
    let a = world.replica("a").await;
    a.heartbeat(&standing(3)).await.unwrap();
    let lease = take(&a, SHARDS[0]).await;
    a.release(&[lease]).await.unwrap();
    a.leave().await.unwrap();
    drop(a);
    // Longer than a silence that would mean that the store was away.
    tokio::time::sleep(BRIEF.expiry).await;
    let a = world.replica("a").await;
    a.heartbeat(&standing(3)).await.unwrap();
    take(&a, SHARDS[0]).await;
    take(&a, SHARDS[1]).await;
}

#[tokio::test]
async fn a_process_that_goes_on_under_its_predecessors_name_has_its_shards_at_once() {
    let world = World::redis(BRIEF);
    let a = world.replica("a").await;
    a.heartbeat(&standing(3)).await.unwrap();
    let lease = take(&a, SHARDS[0]).await;
    let identity = a.identity().clone();
    drop(a);
    let b = world.replica("b").await;
    // It lapses, and the silence looks as if the store had been away.
    tokio::time::sleep(BRIEF.expiry * 5 / 4).await;
    assert!(matches!(b.acquire(&SHARDS[..1]).await.unwrap()[0], Acquired::Reserved(_)));
    let a = world.process(identity).await;
    assert_eq!(take(&a, SHARDS[0]).await.generation, lease.generation + 1);
}
