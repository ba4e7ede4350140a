// SPDX-License-Identifier: AGPL-3.0-only
//! Worlds in which replicas meet: of one process's memory and files, or of a Redis. In: how long things last. Out:
//! replicas. A world removes what it stored when it is dropped.

mod proxy;
mod server;

use std::future::Future;
use std::time::Duration;

use holdfast_cluster::{
    Acquired, Cluster, Identity, Lease, Memory, ReplicaId, SessionRecord, Settings, ShardId, Standing, Store,
    StreamId, Times,
};
use holdfast_service::Tasks;
use holdfast_service::settings::Document;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) use self::proxy::{Proxy, Way};
pub(crate) use self::server::{Server, free_port};

/// The machine's Redis, which others use too: only keys of one's own prefix.
pub(crate) const MACHINE: &str = "redis://127.0.0.1:6379";
/// Longer than any of these things takes, on a machine that builds meanwhile.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// For what must not lapse during a test.
pub(crate) const LASTING: Times = times(60_000, 5_000);
/// For what must.
pub(crate) const BRIEF: Times = times(1_500, 400);

const fn times(expiry: u64, renew: u64) -> Times {
    Times {
        expiry: Duration::from_millis(expiry),
        renew: Duration::from_millis(renew),
        timeout: Duration::from_secs(2),
    }
}

/// Where replicas meet.
pub(crate) enum World {
    Memory {
        memory: Memory,
        _dir: TempDir,
    },
    /// `url`: where replicas connect; `server`: where its keys are.
    Redis {
        url: String,
        server: String,
        prefix: String,
        times: Times,
        tasks: Tasks,
    },
}

impl World {
    /// One process's memory, with files.
    pub(crate) fn memory(times: Times) -> World {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(Some(dir.path())).unwrap();
        World::Memory { memory: Memory::new(&store, times), _dir: dir }
    }

    /// The machine's Redis, under a prefix of its own.
    pub(crate) fn redis(times: Times) -> World {
        World::at(MACHINE, times)
    }

    /// Another Redis.
    pub(crate) fn at(url: &str, times: Times) -> World {
        World::through(url, url, times)
    }

    /// A Redis at `server`, which replicas reach at `url`.
    pub(crate) fn through(url: &str, server: &str, times: Times) -> World {
        let tasks = Tasks::new(tokio_util::sync::CancellationToken::new());
        let prefix = format!("holdfast-test-{}", ReplicaId::random());
        let (url, server) = (url.to_owned(), server.to_owned());
        World::Redis { url, server, prefix, times, tasks }
    }

    /// A replica of bot 42.
    pub(crate) async fn replica(&self, name: &str) -> Cluster {
        self.replica_of(42, name).await
    }

    /// A replica of some bot.
    pub(crate) async fn replica_of(&self, application: u64, name: &str) -> Cluster {
        self.process(Identity { id: ReplicaId::random(), application, address: name.to_owned() }).await
    }

    /// A replica under a name that it may have had before.
    pub(crate) async fn process(&self, identity: Identity) -> Cluster {
        let replica = match self {
            World::Memory { memory, .. } => Cluster::within(memory, identity),
            World::Redis { tasks, .. } => Cluster::start(&self.settings(), identity, tasks).unwrap(),
        };
        within(replica.connected()).await.unwrap();
        replica
    }

    /// A replica that reaches this world in its own way.
    pub(crate) async fn replica_with(&self, settings: &Settings, name: &str) -> Cluster {
        let identity = Identity { id: ReplicaId::random(), application: 42, address: name.to_owned() };
        let replica = Cluster::start(settings, identity, self.tasks()).unwrap();
        within(replica.connected()).await.unwrap();
        replica
    }

    /// The settings of its replicas.
    pub(crate) fn settings(&self) -> Settings {
        let World::Redis { url, prefix, times, .. } = self else { panic!("memory has no settings") };
        let mut settings = settings(&format!("url = \"{url}\""));
        (settings.prefix, settings.times) = (prefix.clone(), *times);
        settings
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        let World::Redis { tasks, .. } = self else { panic!("memory has no tasks") };
        tasks
    }

    /// What a Redis shows of a key, for tests of what is in it.
    pub(crate) fn look<T: redis::FromRedisValue>(&self, command: &str, key: &str, rest: &[&str]) -> T {
        let World::Redis { server, prefix, .. } = self else { panic!("memory has no keys") };
        let mut connection = redis::Client::open(server.as_str()).unwrap().get_connection().unwrap();
        redis::cmd(command).arg(format!("{prefix}:{key}")).arg(rest).query(&mut connection).unwrap()
    }

    /// All keys of this world, without the prefix.
    pub(crate) fn keys(&self) -> Vec<String> {
        let World::Redis { server, prefix, .. } = self else { panic!("memory has no keys") };
        let keys = scan(server, prefix).unwrap();
        keys.into_iter().map(|key| key[prefix.len() + 1..].to_owned()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let World::Redis { server, prefix, .. } = self else { return };
        // A server of the test's own may be gone, and its keys with it.
        let Ok(keys) = scan(server, prefix) else { return };
        if !keys.is_empty() {
            let connection = redis::Client::open(server.as_str()).and_then(|client| client.get_connection());
            let _ = connection.and_then(|mut it| redis::cmd("DEL").arg(keys).query::<u64>(&mut it));
        }
    }
}

fn scan(server: &str, prefix: &str) -> redis::RedisResult<Vec<String>> {
    let mut connection = redis::Client::open(server)?.get_connection_with_timeout(DEADLINE)?;
    let (mut cursor, mut found) = (0_u64, Vec::new());
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}:*")).arg("COUNT").arg(1000);
        let (next, keys) = scan.query::<(u64, Vec<String>)>(&mut connection)?;
        found.extend(keys);
        cursor = next;
        if cursor == 0 {
            return Ok(found);
        }
    }
}

/// Runs each test once over memory and once over Redis.
macro_rules! over_both {
    ($times:ident; $($name:ident),+ $(,)?) => {
        mod over_memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::support::World::memory($crate::support::$times)).await;
            })+
        }
        mod over_redis {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::support::World::redis($crate::support::$times)).await;
            })+
        }
    };
}
pub(crate) use over_both;

/// The section `[cluster]` with these lines.
pub(crate) fn settings(lines: &str) -> Settings {
    let document = Document::parse(&format!("[cluster]\n{lines}"), "test.toml").unwrap();
    document.read(|root| root.section("cluster", Settings::read)).into_result().unwrap()
}

/// How a replica of a fleet of this many shards stands.
pub(crate) fn standing(total: u32) -> Standing {
    Standing { total, weight: 100, max_shards: None, draining: false, started_unix_ms: 0 }
}

/// The lease that was granted.
pub(crate) fn granted(acquired: &Acquired) -> Lease {
    match acquired {
        Acquired::Granted(lease) => *lease,
        other => panic!("not granted: {other:?}"),
    }
}

/// Takes one shard that must be free.
pub(crate) async fn take(replica: &Cluster, shard: ShardId) -> Lease {
    granted(&replica.acquire(&[shard]).await.unwrap()[0])
}

/// Asks for a shard until it is granted.
pub(crate) async fn take_in_time(replica: &Cluster, shard: ShardId) -> Lease {
    eventually("the shard is granted", async || match replica.acquire(&[shard]).await {
        Ok(acquired) => match acquired[0] {
            Acquired::Granted(lease) => Some(lease),
            _ => None,
        },
        Err(_) => None,
    })
    .await
}

/// Something that ends in time.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("it ends in time")
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begin.elapsed() < DEADLINE, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A session's record.
pub(crate) fn session(shard: ShardId, id: &str) -> SessionRecord {
    SessionRecord {
        session_id: id.to_owned(),
        resume_url: "wss://gateway.example".to_owned(),
        stream: StreamId::from_number(9),
        sequence_base: 1,
        sequence: Some(76),
        position: 77,
        state_from: 70,
        checkpoints: true,
        shard: shard.shard,
        total: shard.total,
        ready: RawValue::from_string(r#"{"v":10, "unknown":[1]}"#.to_owned()).unwrap(),
        settings: String::new(),
        wishes: None,
        published: None,
        written_unix_ms: 0,
    }
}
