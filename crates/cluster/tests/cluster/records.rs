// SPDX-License-Identifier: AGPL-3.0-only
//! Records and checkpoints: what an owner saves is what the next one reads, and nobody else writes. Over both stores.

use std::collections::BTreeMap;

use holdfast_cluster::{ClientRecord, Cluster, Fenced, Lease, ShardId, SpreadRecord, StreamId, WriteError};

use crate::support::{World, granted, over_both, session, take};

const SHARD: ShardId = ShardId::new(3, 16);

over_both! { LASTING;
    a_session_comes_back_with_its_latest_progress,
    progress_of_another_session_is_none,
    a_forgotten_session_stays_forgotten,
    a_write_of_an_older_generation_is_refused_and_touches_nothing,
    whoever_has_released_a_shard_writes_nothing_more,
    one_refused_write_does_not_hinder_the_others,
    a_write_under_a_later_generation_than_the_store_knows_raises_it,
    clients_come_back,
    guilds_come_back_each_once_and_removed_ones_do_not,
}

async fn a_session_comes_back_with_its_latest_progress(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    assert!(b.load_sessions(&[SHARD]).await.unwrap()[0].is_none());
    let lease = take(&a, SHARD).await;
    save(&a, &lease, "one").await.unwrap();
    let mut progress = session(SHARD, "one").progress();
    (progress.sequence, progress.position, progress.state_from) = (Some(90), 91, 80);
    a.save_progress(&[(lease, progress)]).await.unwrap()[0].unwrap();
    let records = b.load_sessions(&[ShardId::new(0, 16), SHARD]).await.unwrap();
    assert!(records[0].is_none());
    let record = records[1].as_ref().unwrap();
    assert_eq!(record.session_id, "one");
    assert_eq!(record.ready.get(), r#"{"v":10, "unknown":[1]}"#, "byte by byte");
    assert_eq!(record.progress(), progress);
    save(&a, &lease, "two").await.unwrap();
    let record = b.load_sessions(&[SHARD]).await.unwrap().remove(0).unwrap();
    assert_eq!((record.session_id.as_str(), record.position), ("two", 77), "a whole record replaces both");
}

async fn progress_of_another_session_is_none(world: World) {
    let a = world.replica("a").await;
    let lease = take(&a, SHARD).await;
    save(&a, &lease, "one").await.unwrap();
    let mut progress = session(SHARD, "one").progress();
    (progress.stream, progress.position) = (StreamId::from_number(10), 1000);
    a.save_progress(&[(lease, progress)]).await.unwrap()[0].unwrap();
    assert_eq!(a.load_sessions(&[SHARD]).await.unwrap()[0].as_ref().unwrap().position, 77);
}

async fn a_forgotten_session_stays_forgotten(world: World) {
    let a = world.replica("a").await;
    let lease = take(&a, SHARD).await;
    save(&a, &lease, "one").await.unwrap();
    a.forget_session(&lease).await.unwrap();
    a.save_progress(&[(lease, session(SHARD, "one").progress())]).await.unwrap()[0].unwrap();
    assert!(a.load_sessions(&[SHARD]).await.unwrap()[0].is_none());
}

async fn a_write_of_an_older_generation_is_refused_and_touches_nothing(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let old = take(&a, SHARD).await;
    a.release(&[old]).await.unwrap();
    let new = take(&b, SHARD).await;
    save(&b, &new, "new").await.unwrap();
    b.save_guilds(&new, &[(1, b"new".to_vec())]).await.unwrap();
    b.save_clients(&new, &[client("new")]).await.unwrap();

    let refused = Fenced { shard: SHARD, generation: old.generation, latest: new.generation };
    assert_eq!(save(&a, &old, "old").await, Err(refused));
    let progress = session(SHARD, "old").progress();
    assert_eq!(a.save_progress(&[(old, progress)]).await.unwrap(), [Err(refused)]);
    let refused = Err(WriteError::Fenced(refused));
    assert_eq!(a.forget_session(&old).await, refused);
    assert_eq!(a.save_clients(&old, &[]).await, refused);
    assert_eq!(a.save_guilds(&old, &[(1, b"old".to_vec()), (2, b"old".to_vec())]).await, refused);
    assert_eq!(a.remove_guilds(&old, &[1]).await, refused);
    // Of the same generation, but another's: as after a failover that lost who had been granted it.
    let stolen = Lease { owner: a.identity().id, ..new };
    assert!(save(&a, &stolen, "old").await.is_err());

    assert_eq!(b.load_sessions(&[SHARD]).await.unwrap()[0].as_ref().unwrap().session_id, "new");
    assert_eq!(b.load_clients(SHARD).await.unwrap(), [client("new")]);
    assert_eq!(guilds(&b, SHARD).await, BTreeMap::from([(1, b"new".to_vec())]));
}

async fn whoever_has_released_a_shard_writes_nothing_more(world: World) {
    let a = world.replica("a").await;
    let lease = take(&a, SHARD).await;
    a.release(&[lease]).await.unwrap();
    let latest = lease.generation;
    assert_eq!(save(&a, &lease, "late").await, Err(Fenced { shard: SHARD, generation: latest, latest }));
}

async fn one_refused_write_does_not_hinder_the_others(world: World) {
    let a = world.replica("a").await;
    let shards: Vec<ShardId> = ShardId::all(40).collect();
    let leases: Vec<Lease> = a.acquire(&shards).await.unwrap().iter().map(granted).collect();
    a.release(&leases[7..8]).await.unwrap();
    let mut large = session(SHARD, "one");
    // Together they are more than go in one round trip.
    large.settings = "x".repeat(100_000);
    let writes: Vec<_> = leases.iter().map(|lease| (*lease, &large)).collect();
    let results = a.save_sessions(&writes).await.unwrap();
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), index == 7, "{index}");
    }
    let records = a.load_sessions(&shards).await.unwrap();
    assert_eq!(records.iter().filter(|record| record.is_none()).count(), 1);
}

async fn a_write_under_a_later_generation_than_the_store_knows_raises_it(world: World) {
    if matches!(world, World::Memory { .. }) {
        // It never loses anything: there such a lease must be renewed first.
        return;
    }
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let old = take(&a, SHARD).await;
    let later = Lease { owner: b.identity().id, generation: old.generation + 5, ..old };
    save(&b, &later, "later").await.unwrap();
    assert!(save(&a, &old, "old").await.is_err());
}

async fn clients_come_back(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    assert_eq!(b.load_clients(SHARD).await.unwrap(), []);
    let lease = take(&a, SHARD).await;
    let clients = [client("one"), client("two")];
    a.save_clients(&lease, &clients).await.unwrap();
    assert_eq!(b.load_clients(SHARD).await.unwrap(), clients);
}

async fn guilds_come_back_each_once_and_removed_ones_do_not(world: World) {
    let (a, b) = (world.replica("a").await, world.replica("b").await);
    let lease = take(&a, SHARD).await;
    assert!(guilds(&b, SHARD).await.is_empty());
    // Bytes of every kind, and more of them than go in one round trip.
    let checkpoint = |guild: u64| (0..6000).map(|byte| (byte * guild % 251) as u8).collect::<Vec<u8>>();
    let mut saved: BTreeMap<u64, Vec<u8>> =
        (1..=400).map(|guild| (81_384_788_765_712_384 + guild, checkpoint(guild))).collect();
    let all: Vec<_> = saved.clone().into_iter().collect();
    a.save_guilds(&lease, &all).await.unwrap();
    a.save_guilds(&lease, &[(1, vec![0; 2 << 20])]).await.unwrap();
    saved.insert(1, vec![0; 2 << 20]);
    assert!(guilds(&b, SHARD).await == saved);

    let removed: Vec<u64> = saved.keys().copied().filter(|guild| guild % 3 == 0).collect();
    a.remove_guilds(&lease, &removed).await.unwrap();
    saved.retain(|guild, _| !removed.contains(guild));
    assert!(guilds(&b, SHARD).await == saved);
    a.remove_guilds(&lease, &[]).await.unwrap();
    a.save_guilds(&lease, &[]).await.unwrap();
}

#[tokio::test]
async fn records_of_the_version_before_are_read_and_those_of_a_later_one_are_not() {
    let world = World::redis(crate::support::LASTING);
    let a = world.replica("a").await;
    let lease = take(&a, SHARD).await;
    save(&a, &lease, "one").await.unwrap();
    // As it was before progress was written apart, and before some fields were there; with one that has gone since.
    let record = r#"{"session_id":"old","resume_url":"","stream":"000000000000000a","sequence_base":1,
        "position":5,"shard":3,"total":16,"ready":{},"gone":true}"#;
    let key = "{42:3/16}:session";
    let _: i64 = world.look("HDEL", key, &["progress"]);
    let _: i64 = world.look("HSET", key, &["record", record]);
    let read = a.load_sessions(&[SHARD]).await.unwrap().remove(0).unwrap();
    assert_eq!((read.session_id.as_str(), read.position, read.sequence), ("old", 5, None));
    let _: i64 = world.look("HSET", key, &["v", "2"]);
    assert!(a.load_sessions(&[SHARD]).await.unwrap()[0].is_none());
    let _: i64 = world.look("HSET", key, &["v", "1", "record", "{"]);
    assert!(a.load_sessions(&[SHARD]).await.unwrap()[0].is_none());
}

#[tokio::test]
async fn no_key_of_ours_is_outside_the_contract() {
    let world = World::redis(crate::support::LASTING);
    let a = world.replica("a").await;
    a.heartbeat(&crate::support::standing(16)).await.unwrap();
    let lease = take(&a, SHARD).await;
    save(&a, &lease, "one").await.unwrap();
    a.save_clients(&lease, &[]).await.unwrap();
    a.save_guilds(&lease, &[(1, vec![1])]).await.unwrap();
    let permits = holdfast_cluster::Permits::shared(&a, crate::permits::limit(100, 16));
    permits.acquire(3).await.unwrap();
    let mut keys = world.keys();
    keys.sort();
    let shard =
        ["clients", "generation", "lease", "session", "state"].map(|what| format!("{{42:3/16}}:{what}"));
    let common =
        ["contact", "identify:3", "identify:budget", "replicas"].map(|what| format!("{{42}}:{what}"));
    let expected: Vec<String> = shard.into_iter().chain(common).chain(["fleet".to_owned()]).collect();
    let expected: std::collections::BTreeSet<String> = expected.into_iter().collect();
    assert_eq!(keys.into_iter().collect::<std::collections::BTreeSet<_>>(), expected);
}

async fn save(replica: &Cluster, lease: &Lease, id: &str) -> Result<(), Fenced> {
    replica.save_sessions(&[(*lease, &session(lease.shard, id))]).await.unwrap().remove(0)
}

async fn guilds(replica: &Cluster, shard: ShardId) -> BTreeMap<u64, Vec<u8>> {
    let mut guilds = BTreeMap::new();
    let mut pages = replica.guilds(shard);
    while let Some(page) = pages.next().await.unwrap() {
        for (guild, checkpoint) in page {
            assert!(guilds.insert(guild, checkpoint.unwrap()).is_none(), "{guild} came twice");
        }
    }
    guilds
}

fn client(id: &str) -> ClientRecord {
    ClientRecord {
        session_id: id.to_owned(),
        identity: format!("hash of {id}"),
        name: None,
        intents: 513,
        written: 70,
        confirmed: 60,
        snapshot: 12,
        disconnected_unix_ms: Some(1),
        base: 10,
        stream: Some(StreamId::from_number(9)),
        requests: vec![(4, Some("nonce".to_owned())), (5, None)],
        spread: Some(SpreadRecord {
            session_id: format!("all of {id}"),
            shard: [0, 1],
            written: 7,
            confirmed: 6,
            owed: Some(5),
            given: vec![(7, 61), (8, 64)],
        }),
    }
}
