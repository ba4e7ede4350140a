// SPDX-License-Identifier: AGPL-3.0-only
//! A change of the count of shards that is interrupted between two steps, or that nobody asks for any more. Over Redis:
//! there, and only there, the end is two steps, and keys expire.

use holdfast_cluster::{Cluster, Seen, ShardId};

use super::{begin, events, is_conflict, member, under_way};
use crate::support::{LASTING, Server, World, settings, standing};

#[tokio::test]
async fn an_end_that_is_interrupted_before_the_count_is_changed_is_completed_by_whoever_asks_next() {
    let server = Server::start(&[]);
    let (world, guest) = guest_of(&server).await;
    let host = member(&world, "b", 1).await;
    all_but_the_end(&guest, 1, 2).await;
    let () = server.tell("ACL", &["SETUSER", "me", "resetkeys", "~*{42}*"]);
    guest.opened(&[ShardId::new(1, 2)]).await.unwrap_err();
    assert_eq!(host.fleet_total().await.unwrap(), Some(1));
    assert_eq!(world.look::<String>("HGET", "{42}:reshard", &["open"]), "2");
    guest.reshard().await.unwrap_err();
    host.heartbeat(&standing(1)).await.unwrap();

    assert_eq!(host.reshard().await.unwrap(), None);
    assert_eq!(host.fleet_total().await.unwrap(), Some(2));
    assert!(is_conflict(&host, 1).await);
}

#[tokio::test]
async fn an_end_that_is_interrupted_after_the_count_is_changed_is_completed_by_whoever_comes_next() {
    for repair in ["asks", "opens", "begins", "lives"] {
        let server = Server::start(&[]);
        let (world, guest) = guest_of(&server).await;
        let host = member(&world, "b", 1).await;
        all_but_the_end(&guest, 1, 2).await;
        let () = server.tell("ACL", &["SETUSER", "me", "-unlink"]);
        guest.opened(&[ShardId::new(1, 2)]).await.unwrap_err();
        assert_eq!(host.fleet_total().await.unwrap(), Some(2));
        assert!(world.keys().contains(&"{42}:reshard".to_owned()), "there is something to repair");

        match repair {
            "asks" => assert_eq!(host.reshard().await.unwrap(), None),
            "opens" => host.opened(&[ShardId::new(0, 2)]).await.unwrap(),
            "begins" => assert_eq!(begin(&host, 2, 3).await.opened, 0),
            _ => drop(host.heartbeat(&standing(2)).await.unwrap()),
        }
        let left: Vec<String> = world.keys().into_iter().filter(|key| key.contains("reshard")).collect();
        let expected = if repair == "begins" { vec!["{42}:reshard"] } else { vec![] };
        assert_eq!(left, expected, "by one that {repair}");
        assert_eq!(host.fleet_total().await.unwrap(), Some(2));
    }
}

#[tokio::test]
async fn an_end_without_a_fleet_waits_until_it_is_back() {
    let world = World::redis(LASTING);
    let a = member(&world, "a", 1).await;
    all_but_the_end(&a, 1, 2).await;
    // Thrown away for want of memory.
    let _: i64 = world.look("DEL", "fleet", &[]);
    a.opened(&[ShardId::new(1, 2)]).await.unwrap();
    assert_eq!(under_way(&a).await.opened, 2);
    a.heartbeat(&standing(1)).await.unwrap();
    assert_eq!(a.reshard().await.unwrap(), None);
    assert_eq!(a.fleet_total().await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_change_is_kept_as_long_as_somebody_asks_for_it() {
    let world = World::redis(LASTING);
    let a = member(&world, "a", 1).await;
    all_but_the_end(&a, 1, 2).await;
    let keys = ["{42}:reshard", "{42}:reshard:seen:0"];
    let expiry = |key: &str| world.look::<i64>("PTTL", key, &[]);
    let soon = || {
        for key in keys {
            let _: i64 = world.look("PEXPIRE", key, &["60000"]);
        }
    };
    let kept = 3_500_000..=3_600_000;
    assert!(keys.iter().all(|key| kept.contains(&expiry(key))), "an hour");
    soon();
    a.reshard().await.unwrap();
    assert!(kept.contains(&expiry(keys[0])));
    soon();
    a.seen(ShardId::new(0, 2)).await.unwrap();
    assert!(keys.iter().all(|key| kept.contains(&expiry(key))));
    soon();
    a.opened(&[ShardId::new(0, 2)]).await.unwrap();
    assert!(kept.contains(&expiry(keys[0])));
}

#[tokio::test]
async fn tens_of_thousands_of_events_that_were_seen_arrive_whole() {
    let world = World::redis(LASTING);
    let a = member(&world, "a", 1).await;
    begin(&a, 1, 2).await;
    a.warmed(&ShardId::all(2).collect::<Vec<_>>()).await.unwrap();
    let seen: Vec<Seen> = (0..65_000).map(|number| Seen { guild: number, hash: !number }).collect();
    a.cut(ShardId::new(0, 1), &[(1, seen.clone())]).await.unwrap();
    assert!(a.seen(ShardId::new(1, 2)).await.unwrap() == Some(seen));
}

/// Everything but the last new shard's opening.
async fn all_but_the_end(replica: &Cluster, from: u32, to: u32) {
    begin(replica, from, to).await;
    let new: Vec<ShardId> = ShardId::all(to).collect();
    replica.warmed(&new).await.unwrap();
    for shard in ShardId::all(from) {
        replica.cut(shard, &[(0, events(shard.shard, 0))]).await.unwrap();
    }
    replica.opened(&new[..new.len() - 1]).await.unwrap();
}

/// A world on this server, and a replica in it whose rights can be taken away.
async fn guest_of(server: &Server) -> (World, Cluster) {
    let () = server.tell("ACL", &["SETUSER", "me", "on", ">hush", "~*", "&*", "+@all"]);
    let world = World::at(&server.url(), LASTING);
    let World::Redis { prefix, .. } = &world else { panic!("it is a Redis") };
    let mut settings = settings(&format!("url = \"redis://me:hush@127.0.0.1:{}\"", server.port));
    (settings.prefix, settings.times) = (prefix.clone(), LASTING);
    let guest = world.replica_with(&settings, "a").await;
    guest.heartbeat(&standing(1)).await.unwrap();
    (world, guest)
}
