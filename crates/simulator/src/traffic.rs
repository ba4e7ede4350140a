// SPDX-License-Identifier: AGPL-3.0-only
//! Generators of events.
//!
//! In: what kind, how many a second, on which shards. Out: events in the sessions, each numbered per guild. A task
//! per generator; every millisecond it sends what is due, so that many events cost few wakes.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::hub::{Hub, lock};
use crate::limits::Limits;
use crate::message::MessageTemplate;
use crate::mixed;
use crate::world::World;

/// Events sent under one hold of the world's lock, so that connections get in between.
const HOLD: u64 = 256;

/// What a generator makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrafficKind {
    /// MESSAGE_CREATE only.
    #[default]
    Messages,
    /// Half messages, half everything else that changes a guild or happens in it.
    Mixed,
}

/// A generator's settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// What is made.
    pub kind: TrafficKind,
    /// Events per second and shard.
    pub rate: f64,
    /// How long; without it until stopped.
    pub seconds: Option<f64>,
    /// Events per shard at once, before anything else.
    pub burst: u64,
    /// Size of a message's whole payload, about.
    pub bytes: usize,
    /// Only these shards (of the recommended count); without it all.
    pub shards: Option<Vec<u32>>,
    /// Seed of what "mixed" does.
    pub seed: u64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            kind: TrafficKind::Messages,
            rate: 0.0,
            seconds: None,
            burst: 0,
            bytes: 1_200,
            shards: None,
            seed: 1,
        }
    }
}

impl Traffic {
    /// Messages at a steady rate per second and shard.
    #[must_use]
    pub fn messages(rate: f64) -> Self {
        Self { rate, ..Self::default() }
    }

    /// All kinds of events at a steady rate per second and shard.
    #[must_use]
    pub fn mixed(rate: f64) -> Self {
        Self { rate, kind: TrafficKind::Mixed, ..Self::default() }
    }

    /// So many messages per shard at once, and no more.
    #[must_use]
    pub fn burst(events: u64) -> Self {
        Self { burst: events, ..Self::default() }
    }

    /// For so long only.
    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Self {
        self.seconds = Some(time.as_secs_f64());
        self
    }
}

/// What generators did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Whether any still runs.
    pub running: bool,
    /// The last number per guild id: messages carry 1 to this.
    pub sent: BTreeMap<String, u64>,
}

/// The running generators.
#[derive(Default)]
pub(crate) struct Generators(Mutex<State>);

#[derive(Default)]
struct State {
    last: u64,
    running: BTreeMap<u64, (CancellationToken, JoinHandle<()>)>,
}

impl Generators {
    /// Starts one; it ends with its time, with `stop_all` or with the simulator.
    pub(crate) fn start(&self, hub: &Arc<Hub>, traffic: Traffic, stop: &CancellationToken) -> u64 {
        let stop = stop.child_token();
        let task = tokio::spawn(run(Arc::clone(hub), traffic, stop.clone()));
        let mut state = lock(&self.0);
        state.running.retain(|_, (_, task)| !task.is_finished());
        state.last += 1;
        let id = state.last;
        state.running.insert(id, (stop, task));
        id
    }

    /// Stops all and returns once none sends any more.
    pub(crate) async fn stop_all(&self) {
        let running = std::mem::take(&mut lock(&self.0).running);
        for (stop, task) in running.into_values() {
            stop.cancel();
            // A generator that panicked sends nothing more either.
            let _ = task.await;
        }
    }

    /// Waits until those with a time are over.
    pub(crate) async fn finish_all(&self) {
        let running = std::mem::take(&mut lock(&self.0).running);
        for (_, task) in running.into_values() {
            let _ = task.await;
        }
    }

    pub(crate) fn sent(&self, world: &World) -> Sent {
        let running = lock(&self.0).running.values().any(|(_, task)| !task.is_finished());
        Sent { running, sent: world.sent.iter().map(|(guild, n)| (guild.to_string(), *n)).collect() }
    }
}

/// One shard's part of a generator.
struct Lane {
    guilds: Vec<u64>,
    next: usize,
    sent: u64,
}

impl Lane {
    fn guild(&mut self) -> Option<u64> {
        let guild = self.guilds.get(self.next % self.guilds.len().max(1)).copied();
        self.next += 1;
        guild
    }
}

struct Generator {
    hub: Arc<Hub>,
    kind: TrafficKind,
    template: MessageTemplate,
    random: fastrand::Rng,
    lanes: Vec<Lane>,
}

async fn run(hub: Arc<Hub>, traffic: Traffic, stop: CancellationToken) {
    let count = hub.limits().shards.max(1);
    let shards = traffic.shards.clone().unwrap_or_else(|| (0..count).collect());
    let (lanes, members) = {
        let world = lock(&hub.world);
        let guilds = |shard| world.guilds([shard, count]).into();
        let lane = |shard| Lane { guilds: guilds(shard), next: 0, sent: 0 };
        // The bot is one of the members.
        (shards.into_iter().map(lane).collect(), world.members.saturating_sub(1))
    };
    let template = MessageTemplate::new(traffic.bytes, members);
    let random = fastrand::Rng::with_seed(traffic.seed);
    let mut generator = Generator { hub, kind: traffic.kind, template, random, lanes };
    generator.catch_up(|_| traffic.burst, &stop).await;
    if traffic.rate > 0.0 {
        generator.steady(&traffic, &stop).await;
    }
    generator.hub.changed();
}

impl Generator {
    async fn steady(&mut self, traffic: &Traffic, stop: &CancellationToken) {
        let start = Instant::now();
        let lanes = self.lanes.len().max(1);
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let elapsed = start.elapsed().as_secs_f64();
            let until = traffic.seconds.map_or(elapsed, |seconds| elapsed.min(seconds));
            // Lanes take turns within the gap between two events, so that shards don't send at the same instant.
            self.catch_up(|lane| traffic.burst + due(until, traffic.rate, lane, lanes), stop).await;
            if traffic.seconds.is_some_and(|seconds| elapsed >= seconds) {
                self.catch_up(
                    |_| traffic.burst + whole(traffic.seconds.unwrap_or_default() * traffic.rate),
                    stop,
                )
                .await;
                return;
            }
        }
    }

    /// Sends until each lane has sent what `due` says.
    async fn catch_up(&mut self, due: impl Fn(usize) -> u64, stop: &CancellationToken) {
        while !self.batch(&due) && !stop.is_cancelled() {
            tokio::task::yield_now().await;
        }
    }

    /// Sends up to `HOLD` events; true when nothing more is due.
    fn batch(&mut self, due: impl Fn(usize) -> u64) -> bool {
        let hub = Arc::clone(&self.hub);
        let limits = hub.limits();
        let mut left = HOLD;
        let mut world = lock(&hub.world);
        for lane in 0..self.lanes.len() {
            while left > 0 && self.lanes[lane].sent < due(lane) {
                self.lanes[lane].sent += 1;
                left -= 1;
                self.one(lane, &mut world, &limits);
            }
        }
        left > 0
    }

    fn one(&mut self, lane: usize, world: &mut World, limits: &Limits) {
        let Some(guild) = self.lanes[lane].guild() else { return };
        if !world.available(guild) {
            return;
        }
        if self.kind == TrafficKind::Mixed && self.random.bool() {
            if let Some((name, data)) = mixed::event(world, guild, &mut self.random, &self.hub.snowflakes) {
                self.hub.emit(world, limits, name, &data, Some(guild), None);
            }
            return;
        }
        let number = world.number(guild);
        let event = self.template.message(guild, number, self.hub.snowflakes.next());
        world.message(guild, event.1, event.2);
        self.hub.dispatch(world, limits, &event.0);
    }
}

/// Events that lane `lane` of `lanes` has to have sent after `elapsed` seconds.
fn due(elapsed: f64, rate: f64, lane: usize, lanes: usize) -> u64 {
    let offset = f64::from(u32::try_from(lane).unwrap_or(0)) / f64::from(u32::try_from(lanes).unwrap_or(1));
    whole((elapsed * rate - offset).max(0.0))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are small and not negative"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

/// A single event that a test asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emit {
    /// Event name.
    pub t: String,
    /// Its data.
    pub d: Value,
    /// Only to this shard's sessions, whatever the guild.
    #[serde(default)]
    pub shard: Option<u32>,
    /// The guild it happens in; without it `d.guild_id`, or `d.id` for GUILD_CREATE, UPDATE and DELETE.
    #[serde(default)]
    pub guild: Option<String>,
}
