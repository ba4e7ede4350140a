// SPDX-License-Identifier: AGPL-3.0-only
//! Another server takes the store's place: one that lacks the latest writes, and one that Sentinels name.

use holdfast_cluster::{Acquired, Renewed, ShardId, Times};

use crate::support::{LASTING, Proxy, Server, Way, World, eventually, session, standing, take, take_in_time};

const SHARD: ShardId = ShardId::new(0, 1);
/// Longer than a test takes once it has begun; a server that has just begun is waited for as long.
const TIMES: Times = Times { expiry: std::time::Duration::from_secs(8), ..LASTING };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_the_latest_owner_gives_the_shard_back_to_it() {
    let mut primary = Server::start(&[]);
    // Between the servers; a second one is between them and us.
    let copying = Proxy::to(primary.port).await;
    let replica = follower(copying.port());
    let proxy = Proxy::to(primary.port).await;
    // Its keys go with the servers.
    let world = World::through(&proxy.url(), &replica.url(), TIMES);
    let (a, b, c) = (world.replica("a").await, world.replica("b").await, world.replica("c").await);
    for one in [&a, &b, &c] {
        one.heartbeat(&standing(1)).await.unwrap();
    }
    let old = take_in_time(&a, SHARD).await;
    a.save_sessions(&[(old, &session(SHARD, "old"))]).await.unwrap()[0].unwrap();
    assert!(primary.is_copied(10_000));

    // From here on nothing reaches the replica: it doesn't hear that the shard has moved.
    copying.set(Way::Stalled);
    // What the proxy had in hand still arrives.
    while primary.is_copied(100) {}
    a.release(&[old]).await.unwrap();
    let new = take(&b, SHARD).await;
    primary.kill();
    let () = replica.tell("REPLICAOF", &["NO", "ONE"]);
    proxy.set(Way::To(replica.port));

    for one in [&a, &b, &c] {
        eventually("it has found the other server", async || one.owners(&[SHARD]).await.ok()).await;
    }
    // By what this server knows the shard is the old owner's, who knows better.
    let owner = c.owners(&[SHARD]).await.unwrap().remove(0).unwrap();
    assert_eq!(owner.generation, old.generation);
    assert!(!matches!(c.acquire(&[SHARD]).await.unwrap()[0], Acquired::Granted(_)));
    assert_eq!(b.renew(&[new]).await.unwrap(), [Renewed::Held]);
    let owner = c.owners(&[SHARD]).await.unwrap().remove(0).unwrap();
    assert_eq!((owner.replica, owner.generation), (b.identity().id, new.generation));
    assert!(a.save_sessions(&[(old, &session(SHARD, "late"))]).await.unwrap()[0].is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_a_release_and_the_next_owner_keeps_strangers_out() {
    let mut primary = Server::start(&[]);
    // Between the servers; a second one is between them and us.
    let copying = Proxy::to(primary.port).await;
    let replica = follower(copying.port());
    let proxy = Proxy::to(primary.port).await;
    let world = World::through(&proxy.url(), &replica.url(), TIMES);
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    a.heartbeat(&standing(1)).await.unwrap();
    let old = take_in_time(&a, SHARD).await;
    a.release(&[old]).await.unwrap();
    assert!(primary.is_copied(10_000));
    copying.set(Way::Stalled);
    // What the proxy had in hand still arrives.
    while primary.is_copied(100) {}
    let new = take(&a, SHARD).await;
    primary.kill();
    let () = replica.tell("REPLICAOF", &["NO", "ONE"]);
    proxy.set(Way::To(replica.port));
    for one in [&a, &b] {
        eventually("it has found the other server", async || one.owners(&[SHARD]).await.ok()).await;
    }
    // By what this server knows the shard was released in order, and is free.
    assert_eq!(b.owners(&[SHARD]).await.unwrap(), [None]);
    assert!(matches!(b.acquire(&[SHARD]).await.unwrap()[0], Acquired::Reserved(_)));
    assert_eq!(a.renew(&[new]).await.unwrap(), [Renewed::Held]);
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_left_for_the_one_that_sentinels_name() {
    let primary = Server::start(&[]);
    let replica = follower(primary.port);
    let monitor = format!("sentinel monitor bots 127.0.0.1 {} 1", primary.port);
    let sentinel = Server::start(&["--sentinel", &monitor, "sentinel down-after-milliseconds bots 2000"]);
    let url = format!("redis-sentinel://127.0.0.1:{}/bots", sentinel.port);
    let world = World::through(&url, &replica.url(), LASTING);
    let a = world.replica("a").await;
    a.heartbeat(&standing(1)).await.unwrap();
    eventually("the Sentinel has found the replica", async || {
        let found: Vec<redis::Value> = sentinel.tell("SENTINEL", &["REPLICAS", "bots"]);
        (!found.is_empty()).then_some(())
    })
    .await;
    let () = eventually("the failover begins", async || {
        let mut told = redis::Client::open(sentinel.url()).unwrap().get_connection().unwrap();
        redis::cmd("SENTINEL").arg(&["FAILOVER", "bots"]).query(&mut told).ok()
    })
    .await;
    eventually("the other server has the heartbeat", async || {
        a.heartbeat(&standing(1)).await.ok()?;
        let role: Vec<redis::Value> = replica.tell("ROLE", &[]);
        let leads = role[0] == redis::Value::BulkString(b"master".to_vec());
        let there: Vec<String> = world.look("HKEYS", "{42}:replicas", &[]);
        (leads && there == [a.identity().id.to_string()]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_service_that_sentinels_do_not_know_is_a_refusal() {
    let primary = Server::start(&[]);
    let monitor = format!("sentinel monitor bots 127.0.0.1 {} 1", primary.port);
    let sentinel = Server::start(&["--sentinel", &monitor]);
    let world = World::at(&format!("redis-sentinel://127.0.0.1:{}/others", sentinel.port), LASTING);
    let why = crate::refusal::refused(&world).await;
    assert!(why.contains("others"), "{why}");
}

fn follower(primary: u16) -> Server {
    let port = primary.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]);
    let begin = std::time::Instant::now();
    loop {
        let info: String = replica.tell("INFO", &["replication"]);
        if info.contains("master_link_status:up") {
            return replica;
        }
        assert!(begin.elapsed() < crate::support::DEADLINE, "it follows");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
