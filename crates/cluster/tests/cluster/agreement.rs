// SPDX-License-Identifier: AGPL-3.0-only
//! The two stores say the same: what is written in Lua and what is written in Rust are each other's model.

use std::collections::HashMap;

use holdfast_cluster::{Acquired, Cluster, Lease, Renewed, Reshard, ReshardBegun, Seen, ShardId};

use crate::support::{LASTING, World, session, standing};

const REPLICAS: usize = 3;
const SHARDS: u32 = 3;

/// What a step did, the same in words wherever it was done: generations are counted from the shard's first.
#[derive(Default)]
struct Actor {
    replicas: Vec<Cluster>,
    /// Every lease that was ever granted, in order.
    leases: Vec<Lease>,
    first: HashMap<ShardId, u64>,
}

#[tokio::test]
async fn whatever_replicas_do_memory_and_redis_answer_alike() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (memory, redis) = (World::memory(LASTING), World::redis(LASTING));
    let (mut one, mut other) = (Actor::default(), Actor::default());
    for name in ["a", "b", "c"].iter().take(REPLICAS) {
        one.replicas.push(memory.replica(name).await);
        other.replicas.push(redis.replica(name).await);
    }
    for number in 0..600 {
        let (kind, replica) = (random.u8(..12), random.usize(..REPLICAS));
        let (shard, lease) = (ShardId::new(random.u32(..SHARDS), SHARDS), random.usize(..));
        let done = one.step(kind, replica, shard, lease).await;
        let alike = other.step(kind, replica, shard, lease).await;
        assert_eq!(done, alike, "seed {seed}, step {number}: {kind} by {replica} on {shard}");
    }
}

#[tokio::test]
async fn however_replicas_change_their_count_memory_and_redis_answer_alike() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (memory, redis) = (World::memory(LASTING), World::redis(LASTING));
    let one = [memory.replica("a").await, memory.replica("b").await];
    let other = [redis.replica("a").await, redis.replica("b").await];
    for number in 0..1000 {
        let (kind, replica, total) = (random.u8(..64), random.usize(..2), random.u32(2..4));
        let shard = ShardId::new(random.u32(..total), total);
        let done = reshard(&one[replica], kind, shard, number).await;
        let alike = reshard(&other[replica], kind, shard, number).await;
        assert_eq!(done, alike, "seed {seed}, step {number}: {kind} by {replica} on {shard}");
    }
}

/// A step of a change between 2 and 3 shards, and how things are after it.
async fn reshard(replica: &Cluster, kind: u8, shard: ShardId, number: u64) -> String {
    let undated = |reshard: Reshard| Reshard { begun_unix_ms: 0, ..reshard };
    let told = match kind {
        0..8 => match replica.begin_reshard(shard.total, 5 - shard.total).await.unwrap() {
            ReshardBegun::Begun(reshard) => format!("begun {:?}", undated(reshard)),
            ReshardBegun::UnderWay(reshard) => format!("under way {:?}", undated(reshard)),
            ReshardBegun::Count(count) => format!("count {count}"),
        },
        8 => format!("{}", replica.abandon_reshard().await.unwrap()),
        9..11 => format!("{:?}", replica.cooled(&[shard]).await),
        11..27 => format!("{:?}", replica.warmed(&[shard]).await),
        27..39 => {
            let seen = vec![Seen { guild: number, hash: number }; 2];
            format!("{:?}", replica.cut(shard, &[(0, seen), (1, Vec::new())]).await)
        }
        39..55 => format!("{:?}", replica.opened(&[shard]).await),
        55..60 => format!("{:?}", replica.seen(shard).await.unwrap()),
        _ => format!("{}", replica.heartbeat(&standing(shard.total)).await.is_ok()),
    };
    let (change, total) = (replica.reshard().await.unwrap(), replica.fleet_total().await.unwrap());
    format!("{told}, {:?}, {total:?}", change.map(undated))
}

impl Actor {
    async fn step(&mut self, kind: u8, replica: usize, shard: ShardId, lease: usize) -> String {
        let cluster = self.replicas[replica].clone();
        // Mostly a late one: the others are fenced off.
        let lease = self.leases.len().checked_sub(1 + lease % 4).map(|index| self.leases[index]);
        match (kind, lease) {
            (0..3, _) | (_, None) => {
                let acquired = cluster.acquire(&[shard]).await.unwrap().remove(0);
                if let Acquired::Granted(lease) = &acquired {
                    self.first.entry(shard).or_insert(lease.generation);
                    self.leases.push(*lease);
                }
                match acquired {
                    Acquired::Granted(lease) => format!("granted {}", self.count(shard, lease.generation)),
                    Acquired::Held(owner) => {
                        format!("held {} {}", owner.address, self.count(shard, owner.generation))
                    }
                    Acquired::Reserved(_) => "reserved".to_owned(),
                }
            }
            (3..6, Some(lease)) => {
                // Whoever asks, the lease says whose it is.
                let owner = self.replica_of(&lease);
                match owner.renew(&[lease]).await.unwrap().remove(0) {
                    Renewed::Held => "held".to_owned(),
                    Renewed::Lost(None) => "lost".to_owned(),
                    Renewed::Lost(Some(owner)) => {
                        format!("lost {} {}", owner.address, self.count(lease.shard, owner.generation))
                    }
                }
            }
            (6..8, Some(lease)) => {
                self.replica_of(&lease).release(&[lease]).await.unwrap();
                String::new()
            }
            (8..10, Some(lease)) => {
                let record = session(lease.shard, &format!("{replica}"));
                match cluster.save_sessions(&[(lease, &record)]).await.unwrap().remove(0) {
                    Ok(()) => "written".to_owned(),
                    Err(fenced) => format!("fenced {}", self.count(lease.shard, fenced.latest)),
                }
            }
            (10, _) => {
                let owner = cluster.owners(&[shard]).await.unwrap().remove(0);
                owner.map_or_else(String::new, |owner| {
                    format!("{} {}", owner.address, self.count(shard, owner.generation))
                })
            }
            _ => {
                let record = cluster.load_sessions(&[shard]).await.unwrap().remove(0);
                record.map_or_else(String::new, |record| record.session_id)
            }
        }
    }

    fn replica_of(&self, lease: &Lease) -> Cluster {
        let owner = self.replicas.iter().find(|replica| replica.identity().id == lease.owner);
        owner.unwrap().clone()
    }

    fn count(&self, shard: ShardId, generation: u64) -> u64 {
        generation - self.first[&shard]
    }
}
