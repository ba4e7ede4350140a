// SPDX-License-Identifier: AGPL-3.0-only
//! The front over real sockets, before shards that do what a test says.

mod away;
mod reshard;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use holdfast_cluster::{Store, StreamId};
use holdfast_discord::scan;
use holdfast_service::{Secret, Service};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

use super::{Front, serve};
use crate::{
    fleet::{Hubs, Records},
    log::{self, Writer, WriterSettings},
    metrics::Metrics,
    settings::Config,
    shard::{Command, Hub, Recovery, SessionLimits, recover, unix_ms},
};

const TOKEN: &str = "token";
const GUILDS: u64 = 24;
const PATIENCE: Duration = Duration::from_secs(20);
/// Counts that double, halve, and have little to do with each other.
const CHANGES: [(u32, u32); 3] = [(4, 8), (8, 4), (4, 6)];

/// A front, and the shards before it.
struct Stage {
    front: Arc<Front>,
    url: String,
    writer: Writer,
    /// Bytes in memory of each shard's log.
    memory: usize,
    /// Where logs are on disk, for those that are.
    folder: Option<tempfile::TempDir>,
    /// Messages so far, by guild.
    sent: BTreeMap<u64, u64>,
    /// By how many milliseconds the clock is ahead. With each new count of shards it is set back: order isn't a matter of
    /// clocks then.
    ahead: u64,
    /// What the shards were told, by number and count.
    commands: BTreeMap<(u32, u32), mpsc::Receiver<Command>>,
    shutdown: CancellationToken,
    _ends: DropGuard,
}

impl Stage {
    /// With so many shards, which have had their READY and guilds from Discord.
    async fn start(total: u32) -> Self {
        Self::with_logs(total, 8 << 20, None).await
    }

    /// With logs that hold little.
    async fn with_memory(total: u32, memory: usize) -> Self {
        Self::with_logs(total, memory, None).await
    }

    /// With logs that hold little in memory and everything on disk.
    async fn on_disk(total: u32) -> Self {
        Self::with_logs(total, 64 << 10, Some(tempfile::tempdir().unwrap())).await
    }

    async fn with_logs(total: u32, memory: usize, folder: Option<tempfile::TempDir>) -> Self {
        let shutdown = CancellationToken::new();
        let service = Service::new(shutdown.clone());
        let mut config = Config::default();
        config.discord.token = Secret::new(TOKEN);
        let metrics = service.metrics.register(|registry| Metrics::new(registry, 0..total));
        let hubs = Hubs::new(total);
        let tasks = service.tasks.clone();
        let front = Arc::new(Front::new(config, metrics, service.pages.clone(), hubs, None, tasks));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        service.tasks.spawn("accepting", serve(Arc::clone(&front), listener, None));
        let mut stage = Self {
            front,
            url,
            writer: Writer::start(WriterSettings::default()).unwrap(),
            memory,
            folder,
            ahead: 3_600_000,
            sent: guilds().map(|guild| (guild, 0)).collect(),
            commands: BTreeMap::new(),
            _ends: shutdown.clone().drop_guard(),
            shutdown,
        };
        for shard in 0..total {
            let hub = stage.shard(shard, total);
            for guild in of_shard(shard, total) {
                append(&hub, &guild_create(guild), unix_ms());
            }
            stage.front.hubs.insert(hub);
        }
        stage
    }

    /// The shard after READY, with no guild yet.
    fn shard(&mut self, shard: u32, total: u32) -> Arc<Hub> {
        let folder = self.folder.as_ref().map(|folder| folder.path().join(fastrand::u64(..).to_string()));
        let store = Store::open(folder.as_deref()).unwrap().0;
        let recovered = recover(Recovery {
            guilds: true,
            settings: "",
            shard: (shard, total),
            // Nothing of shards that had its number and count before.
            store: &Records::local(store.shard(shard, total)),
            log: log::Settings { memory_bytes: self.memory, ..log::Settings::default() },
            writer: &self.writer,
            state: holdfast_state::Options::default(),
            sessions: SessionLimits { expiry: Duration::from_secs(60), max: 100 },
        });
        let mut core = recovered.unwrap().core;
        let listed: Vec<Value> = of_shard(shard, total)
            .map(|guild| json!({ "id": guild.to_string(), "unavailable": true }))
            .collect();
        let ready = json!({ "v": 10, "user": { "id": "1" }, "guilds": listed, "session_id": "upstream" });
        core.begin_session(ready.to_string().as_bytes(), StreamId::random()).unwrap();
        let leaving = self.shutdown.child_token();
        let (hub, commands) =
            Hub::new((shard, total), 1, core, Handle::current(), leaving, Arc::new(Notify::new()));
        self.commands.insert((shard, total), commands);
        Arc::new(hub)
    }

    /// Each guild gets so many messages, by way of the shard that it is on now.
    fn send(&mut self, each: u64) {
        let total = self.front.hubs.total();
        for _ in 0..each {
            for (guild, sent) in &mut self.sent {
                *sent += 1;
                let message =
                    json!({ "id": sent, "channel_id": "7", "guild_id": guild.to_string(), "content": sent });
                let shard = u32::try_from((guild >> 22) % u64::from(total)).unwrap();
                let hub = self.front.hubs.get(shard).unwrap();
                let message = json!({ "t": "MESSAGE_CREATE", "s": 1, "op": 0, "d": message });
                append(&hub, &message, unix_ms() + self.ahead);
            }
        }
        self.front.hubs.all().iter().for_each(|hub| hub.readers.wake());
    }

    /// Each guild gets so many messages, which are on disk then.
    async fn store(&mut self, each: u64) {
        for _ in 0..each {
            self.send(1);
            for hub in self.front.hubs.all() {
                until("what is sent is on disk", || {
                    let mut core = hub.core();
                    core.log.flush();
                    core.log.stored() == core.log.last()
                })
                .await;
            }
        }
    }

    /// Shards of another count take over, which have learnt of their guilds in secret.
    fn reshard(&mut self, total: u32) {
        let hubs = Arc::clone(&self.front.hubs);
        hubs.expect(total);
        for shard in 0..total {
            let hub = self.shard(shard, total);
            for guild in of_shard(shard, total) {
                let payload = guild_create(guild).to_string();
                let header = scan(payload.as_bytes()).unwrap();
                let data = &payload.as_bytes()[header.data.clone().unwrap()];
                hub.core().apply(&header, guild, data, 1);
            }
            hubs.insert(hub);
        }
        self.ahead -= 60_000;
        let former = hubs.all();
        hubs.switch();
        hubs.opened();
        former.iter().for_each(|hub| hub.leave());
    }

    /// Nobody comes any more for what shards of the former count have.
    fn forget_retired(&self) {
        let hubs = &self.front.hubs;
        hubs.forget_retired(hubs.retired().expect("the count has changed").total);
    }

    /// Waits until nobody is connected.
    async fn nobody(&self) {
        let retired = || self.front.hubs.retired().into_iter().flat_map(|it| it.hubs.clone().into_values());
        let all = || self.front.hubs.all().into_iter().chain(retired());
        until("the end of the connections is seen", || all().all(|hub| hub.core().sessions.count().0 == 0))
            .await;
    }

    /// What a shard was told since this was last asked.
    fn told(&mut self, shard: u32, total: u32) -> Vec<Value> {
        let commands = self.commands.get_mut(&(shard, total)).unwrap();
        std::iter::from_fn(|| commands.try_recv().ok())
            .map(|command| serde_json::from_slice(&command.payload).unwrap())
            .collect()
    }

    /// The client's messages so far.
    fn sent_to(&self, [shard, count]: [u32; 2]) -> BTreeMap<u64, u64> {
        let own = of_shard(shard, count);
        own.map(|guild| (guild, self.sent[&guild])).collect()
    }
}

/// A client as a library is.
struct Client {
    socket: Option<WebSocketStream<MaybeTlsStream<TcpStream>>>,
    url: String,
    shard: [u32; 2],
    session: String,
    sequence: u64,
    /// Numbers of messages in the order in which they came, by guild.
    got: BTreeMap<u64, Vec<u64>>,
    readies: usize,
}

impl Client {
    /// Identifies, and reads until all guilds are there.
    async fn identified(stage: &Stage, shard: [u32; 2]) -> Self {
        let mut client = Self {
            socket: None,
            url: stage.url.clone(),
            shard,
            session: String::new(),
            sequence: 0,
            got: BTreeMap::new(),
            readies: 0,
        };
        client.identify().await;
        client
    }

    async fn identify(&mut self) {
        self.sequence = 0;
        let data = json!({ "token": TOKEN, "intents": 513, "shard": self.shard, "properties": {} });
        self.open(2, data).await;
        let ready = self.next().await.expect("READY comes");
        assert_eq!(ready["t"], "READY", "{ready}");
        self.session = ready["d"]["session_id"].as_str().unwrap().to_owned();
        let mut guilds = 0;
        while guilds < of_shard(self.shard[0], self.shard[1]).count() {
            guilds += usize::from(self.next().await.expect("guilds come")["t"] == "GUILD_CREATE");
        }
    }

    /// Resumes, and doesn't read yet.
    async fn begin_resume(&mut self) {
        let data = json!({ "token": TOKEN, "session_id": self.session, "seq": self.sequence });
        self.open(6, data).await;
    }

    /// Resumes, and reads on until that is done. False: it can't.
    async fn resume(&mut self) -> bool {
        self.begin_resume().await;
        loop {
            let payload = self.next().await.expect("RESUMED or INVALID_SESSION comes");
            if payload["t"] == "RESUMED" || payload["op"] == 9 {
                return payload["op"] == 0;
            }
        }
    }

    async fn open(&mut self, op: u64, data: Value) {
        let uri = format!("{}/?v=10&encoding=json", self.url).parse().unwrap();
        let (socket, _) = ClientBuilder::from_uri(uri).connect().await.unwrap();
        self.socket = Some(socket);
        assert_eq!(self.next().await.expect("HELLO comes")["op"], 10);
        self.send(json!({ "op": op, "d": data })).await;
    }

    async fn send(&mut self, payload: Value) {
        self.socket.as_mut().unwrap().send(Message::text(payload.to_string())).await.unwrap();
    }

    /// Confirms everything.
    async fn heartbeat(&mut self) {
        self.send(json!({ "op": 1, "d": self.sequence })).await;
        while self.next().await.expect("the acknowledgement comes")["op"] != 11 {}
    }

    /// The next payload; none once the connection is over.
    async fn next(&mut self) -> Option<Value> {
        let next = timeout(PATIENCE, self.socket.as_mut().unwrap().next()).await.expect("something comes");
        let message = next.and_then(Result::ok).filter(Message::is_text)?;
        let payload: Value = serde_json::from_slice(message.as_payload()).unwrap();
        if let Some(sequence) = payload["s"].as_u64() {
            assert!(sequence >= self.sequence, "{sequence} after {}", self.sequence);
            self.sequence = sequence;
        }
        self.readies += usize::from(payload["t"] == "READY");
        if payload["t"] == "MESSAGE_CREATE" {
            let guild = payload["d"]["guild_id"].as_str().unwrap().parse().unwrap();
            self.got.entry(guild).or_default().push(payload["d"]["content"].as_u64().unwrap());
        }
        Some(payload)
    }

    /// Reads so many messages.
    async fn read(&mut self, count: usize) {
        let until = self.count() + count;
        while self.count() < until {
            self.next().await.expect("messages come");
        }
    }

    fn count(&self) -> usize {
        self.got.values().map(Vec::len).sum()
    }

    /// Reads until everything is there that was sent: what was sent after `had` came once and in order.
    async fn finish(&mut self, stage: &Stage, had: &BTreeMap<u64, u64>) {
        let sent = stage.sent_to(self.shard);
        self.until_last(stage).await;
        for (guild, last) in &sent {
            let expected: Vec<u64> = (had.get(guild).copied().unwrap_or(0) + 1..=*last).collect();
            let got = self.got.get(guild).cloned().unwrap_or_default();
            assert_eq!(got, expected, "{:?}, guild {}", self.shard, guild >> 22);
        }
        assert!(self.got.keys().all(|guild| sent.contains_key(guild)), "no other's guilds");
    }

    /// Reads until the last message of each of its guilds is there.
    async fn until_last(&mut self, stage: &Stage) {
        let sent = stage.sent_to(self.shard);
        while !sent.iter().all(|(guild, last)| self.got.get(guild).is_some_and(|got| got.contains(last))) {
            self.next().await.expect("the rest of the messages comes");
        }
    }

    /// Drops the connection without a word.
    fn cut(&mut self) {
        self.socket = None;
    }
}

fn append(hub: &Hub, payload: &Value, received_ms: u64) {
    let payload = payload.to_string();
    hub.core().dispatch(&scan(payload.as_bytes()).unwrap(), payload.as_bytes(), received_ms);
}

fn guilds() -> impl Iterator<Item = u64> {
    (0..GUILDS).map(|place| place << 22 | 1)
}

fn of_shard(shard: u32, count: u32) -> impl Iterator<Item = u64> {
    guilds().filter(move |guild| (guild >> 22) % u64::from(count) == u64::from(shard))
}

fn guild_create(guild: u64) -> Value {
    json!({ "t": "GUILD_CREATE", "s": 1, "op": 0, "d": { "id": guild.to_string(), "name": "guild" } })
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect(what);
}
