// SPDX-License-Identifier: AGPL-3.0-only
//! What `ws` counts, by the names that docs/contract.md gives. Pairs are counted where they happen; what is
//! a state rather than an event is read when somebody asks.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use holdfast_discord::EventKind;
use holdfast_service::FeedMetrics;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// All counters of one `ws` service.
pub(crate) struct Metrics {
    events: Family<EventLabels, Counter>,
    /// Counters that the hot path has looked up before, by shard and kind.
    cached: Vec<Box<[std::sync::OnceLock<Counter>]>>,
    first_shard: u32,
    closes: Family<CodeLabels, Counter>,
    heartbeat_latency: Family<ShardLabels, Histogram, fn() -> Histogram>,
    shard_status: Family<ShardLabels, Gauge>,
    shard_latency: Family<ShardLabels, Gauge<f64, AtomicU64>>,
    state_entities: Family<EntityLabels, Gauge>,
    pub(crate) heartbeat_lateness: Histogram,
    pub(crate) identifies: Counter,
    pub(crate) resumes: Counter,
    pub(crate) disconnects: Counter,
    pub(crate) connect_failures: Counter,
    pub(crate) malformed: Counter,
    pub(crate) gaps: Counter,
    pub(crate) commands_sent: Counter,
    pub(crate) commands_dropped: Counter,
    pub(crate) connections: Gauge,
    pub(crate) client_identifies: Counter,
    pub(crate) client_resumes: Counter,
    pub(crate) resumes_refused: Counter,
    pub(crate) invalidated: Counter,
    pub(crate) rejected: Counter,
    pub(crate) fell_behind: Counter,
    pub(crate) catch_ups: Counter,
    pub(crate) caught_up: Counter,
    pub(crate) intents_missing: Counter,
    pub(crate) members_from_state: Counter,
    pub(crate) legs_lent: Gauge,
    pub(crate) splices: Gauge,
    pub(crate) splices_refused: Counter,
    pub(crate) splices_failed: Counter,
    pub(crate) disk_errors: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) checkpoint_cuts: Counter,
    pub(crate) backlogs_left: Counter,
    pub(crate) identifies_remaining: Gauge<i64>,
    pub(crate) log_memory: Gauge<u64, AtomicU64>,
    pub(crate) log_disk: Gauge<u64, AtomicU64>,
    pub(crate) log_unstored_dropped: Gauge<u64, AtomicU64>,
    pub(crate) log_lag: Gauge<u64, AtomicU64>,
    pub(crate) state_bytes: Gauge<u64, AtomicU64>,
    pub(crate) guilds: Gauge<u64, AtomicU64>,
    pub(crate) sessions: Gauge<u64, AtomicU64>,
    pub(crate) shards_live: Gauge<u64, AtomicU64>,
    pub(crate) dashboard: FeedMetrics,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    shard: u32,
    event: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabels {
    shard: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EntityLabels {
    shard: u32,
    entity: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind(EventKind);

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.name().encode(encoder)
    }
}

/// 1 ms to 16 s, doubling.
fn seconds() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 15))
}

/// 1 ms to 10 s, with 200 ms among the bounds: no heartbeat is to be later than that.
fn lateness() -> Histogram {
    Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
}

impl Metrics {
    /// Counters for the shards `first..end`, registered.
    pub(crate) fn new(registry: &mut Registry, shards: std::ops::Range<u32>) -> Arc<Self> {
        let kinds = || (0..=u8::MAX).map(|_| std::sync::OnceLock::new()).collect();
        let metrics = Self {
            events: Family::default(),
            cached: shards.clone().map(|_| kinds()).collect(),
            first_shard: shards.start,
            closes: Family::default(),
            heartbeat_latency: Family::new_with_constructor(seconds),
            shard_status: Family::default(),
            shard_latency: Family::default(),
            state_entities: Family::default(),
            heartbeat_lateness: lateness(),
            identifies: Counter::default(),
            resumes: Counter::default(),
            disconnects: Counter::default(),
            connect_failures: Counter::default(),
            malformed: Counter::default(),
            gaps: Counter::default(),
            commands_sent: Counter::default(),
            commands_dropped: Counter::default(),
            connections: Gauge::default(),
            client_identifies: Counter::default(),
            client_resumes: Counter::default(),
            resumes_refused: Counter::default(),
            invalidated: Counter::default(),
            rejected: Counter::default(),
            fell_behind: Counter::default(),
            catch_ups: Counter::default(),
            caught_up: Counter::default(),
            intents_missing: Counter::default(),
            members_from_state: Counter::default(),
            legs_lent: Gauge::default(),
            splices: Gauge::default(),
            splices_refused: Counter::default(),
            splices_failed: Counter::default(),
            disk_errors: Counter::default(),
            checkpoints: Counter::default(),
            checkpoint_cuts: Counter::default(),
            backlogs_left: Counter::default(),
            identifies_remaining: Gauge::default(),
            log_memory: Gauge::default(),
            log_disk: Gauge::default(),
            log_unstored_dropped: Gauge::default(),
            log_lag: Gauge::default(),
            state_bytes: Gauge::default(),
            guilds: Gauge::default(),
            sessions: Gauge::default(),
            shards_live: Gauge::default(),
            dashboard: FeedMetrics::default(),
        };
        // There from the start, so that a dashboard knows the shard; no latency is known before the first heartbeat.
        for shard in shards {
            let _ = metrics.heartbeat_latency.get_or_create(&ShardLabels { shard });
            metrics.shard_latency.get_or_create(&ShardLabels { shard }).set(f64::NAN);
        }
        metrics.register(registry);
        Arc::new(metrics)
    }

    /// An event was taken in from Discord.
    pub(crate) fn event(&self, shard: u32, kind: EventKind) {
        let index = usize::try_from(shard.saturating_sub(self.first_shard)).unwrap_or(usize::MAX);
        let slot = self.cached.get(index).and_then(|kinds| kinds.get(usize::from(kind as u8)));
        let counter = || self.events.get_or_create(&EventLabels { shard, event: Kind(kind) }).clone();
        match slot {
            Some(slot) => slot.get_or_init(counter).inc(),
            // Of a count that the bot came to have later.
            None => counter().inc(),
        };
    }

    /// A heartbeat of a shard was acknowledged after `latency` seconds.
    pub(crate) fn acknowledged(&self, shard: u32, latency: f64) {
        self.heartbeat_latency.get_or_create(&ShardLabels { shard }).observe(latency);
        self.shard_latency.get_or_create(&ShardLabels { shard }).set(latency);
    }

    /// What a shard is doing: 0 closed for good, 1 disconnected, 2 identifying, 3 resuming, 4 connected.
    pub(crate) fn status(&self, shard: u32, status: i64) {
        self.shard_status.get_or_create(&ShardLabels { shard }).set(status);
    }

    /// How many of a kind of entity a shard keeps.
    pub(crate) fn entities(&self, shard: u32, entity: &'static str, count: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.state_entities.get_or_create(&EntityLabels { shard, entity }).set(count);
    }

    /// A client was closed with a code.
    pub(crate) fn closed(&self, code: u16) {
        self.closes.get_or_create(&CodeLabels { code }).inc();
    }

    fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("holdfast_ws_{name}"), help, counter.clone());
        };
        add("identifies", "Sessions begun with Discord", &self.identifies);
        add("resumes", "Sessions resumed with Discord", &self.resumes);
        add("disconnects", "Connections to Discord that ended", &self.disconnects);
        add("connect_failures", "Connections to Discord that could not be made", &self.connect_failures);
        add("malformed", "Payloads from Discord that could not be used", &self.malformed);
        add("gaps", "New sessions instead of resumes: events may be missing", &self.gaps);
        add(
            "backlogs_left",
            "Times that a shard left Discord, resumably, since its log was nearly full of what the broker hadn't had",
            &self.backlogs_left,
        );
        add("commands_sent", "Payloads of clients sent to Discord", &self.commands_sent);
        add(
            "commands_dropped",
            "Payloads of clients that were not sent: too many waited",
            &self.commands_dropped,
        );
        add("client_identifies", "IDENTIFYs of clients", &self.client_identifies);
        add("client_resumes", "RESUMEs of clients that were granted", &self.client_resumes);
        add("client_resumes_refused", "RESUMEs of clients that were not possible", &self.resumes_refused);
        add(
            "client_sessions_invalidated",
            "Client sessions ended by a new session of Discord's",
            &self.invalidated,
        );
        add("client_rejected", "Clients with a wrong token", &self.rejected);
        add(
            "client_fell_behind",
            "Clients closed because the log no longer reached back to them",
            &self.fell_behind,
        );
        add("catch_ups", "IDENTIFYs that took over from a dead session", &self.catch_ups);
        add("caught_up_events", "Events given to clients in catch-up", &self.caught_up);
        add(
            "client_intents_missing",
            "IDENTIFYs with intents that our shards don't have",
            &self.intents_missing,
        );
        add("members_from_state", "Member requests answered without Discord", &self.members_from_state);
        add(
            "splices_refused",
            "Connections that came as another replica's without a ticket of its",
            &self.splices_refused,
        );
        add(
            "splices_failed",
            "Clients sent away because no replica had their shard in time",
            &self.splices_failed,
        );
        add("log_disk_errors", "Reads from the log on disk that failed", &self.disk_errors);
        add("checkpoints", "Guilds' checkpoints written", &self.checkpoints);
        add(
            "log_cut_above_checkpoint",
            "Times the bound on disk cut what a restart needs",
            &self.checkpoint_cuts,
        );
        self.register_families(registry);
        self.register_states(registry);
    }

    fn register_families(&self, registry: &mut Registry) {
        registry.register("holdfast_ws_events", "Events from Discord", self.events.clone());
        registry.register("holdfast_ws_client_closes", "Clients closed, by close code", self.closes.clone());
        registry.register("holdfast_ws_client_connections", "Clients connected", self.connections.clone());
        registry.register(
            "holdfast_ws_legs_lent",
            "Parts of clients that other replicas merge",
            self.legs_lent.clone(),
        );
        registry.register(
            "holdfast_ws_splices",
            "Clients relayed to the replica that has their shard",
            self.splices.clone(),
        );
        registry.register(
            "holdfast_ws_dashboard_watchers",
            "Browsers that show the dashboard",
            self.dashboard.watchers.clone(),
        );
        registry.register(
            "holdfast_ws_dashboard_refused",
            "Times that too many watched the dashboard already",
            self.dashboard.refused.clone(),
        );
        registry.register(
            "holdfast_ws_identifies_remaining",
            "IDENTIFYs left today",
            self.identifies_remaining.clone(),
        );
        registry.register(
            "holdfast_ws_heartbeat_latency_seconds",
            "Time from a heartbeat to its acknowledgement",
            self.heartbeat_latency.clone(),
        );
        registry.register(
            "holdfast_ws_heartbeat_lateness_seconds",
            "How late heartbeats were sent",
            self.heartbeat_lateness.clone(),
        );
        registry.register("holdfast_ws_shard_status", "What a shard is doing", self.shard_status.clone());
        registry.register(
            "holdfast_ws_shard_latency_seconds",
            "Time to the last heartbeat's acknowledgement",
            self.shard_latency.clone(),
        );
        registry.register(
            "holdfast_ws_state_entities",
            "Entities of the guild state, by kind",
            self.state_entities.clone(),
        );
    }

    fn register_states(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, gauge: &Gauge<u64, AtomicU64>| {
            registry.register(format!("holdfast_ws_{name}"), help, gauge.clone());
        };
        add("log_memory_bytes", "Logs in memory", &self.log_memory);
        add("log_disk_bytes", "Logs on disk", &self.log_disk);
        add(
            "log_dropped_unstored",
            "Events evicted from memory before they reached the disk",
            &self.log_unstored_dropped,
        );
        add("log_unstored_events", "Events not yet on disk", &self.log_lag);
        add("state_bytes", "Guild state in memory", &self.state_bytes);
        add("guilds", "Guilds known", &self.guilds);
        add("client_sessions", "Client sessions, connected or waiting for their client", &self.sessions);
        add("shards_live", "Shards receiving events", &self.shards_live);
    }
}
