// SPDX-License-Identifier: AGPL-3.0-only
//! What tests can wish for and ask; the HTTP routes call the same.
//!
//! In: worlds, traffic, faults, limits. Out: state, records, and waiting without sleeping.
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::faults::{Cut, Fault, FaultKind};
use crate::hub::{Command, Hub, lock};
use crate::limits::Limits;
use crate::records::{Record, Request, Violation};
use crate::rest_faults::RestFault;
use crate::rest_limits::{Limiter, RestLimits};
use crate::traffic::{Emit, Generators, Sent, Traffic};
use crate::view::View;
use crate::webhooks::WebhookMessage;
use crate::world::{BOT_USER, World, WorldSpec};

/// How long the `wait_for_…` methods wait before they say what didn't happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that a test waited for didn't happen in time.
#[derive(Debug, thiserror::Error)]
#[error("within {waited:?} there was no {what}")]
pub struct TimedOut {
    what: String,
    waited: Duration,
}

/// What tests and control routes can do.
#[derive(Clone)]
pub struct Control {
    pub(crate) hub: Arc<Hub>,
    pub(crate) generators: Arc<Generators>,
    pub(crate) stop: CancellationToken,
}

impl Control {
    /// Replaces all guilds. Meant for before anybody connects: sessions aren't told.
    pub fn world(&self, spec: WorldSpec) {
        *lock(&self.hub.world) = World::new(spec);
    }

    /// Sessions, connections and budget, as `GET /control/state` gives them.
    #[must_use]
    pub fn state(&self) -> Value {
        self.hub.state()
    }

    /// The `d` that GUILD_CREATE would have now, in full.
    #[must_use]
    pub fn guild(&self, id: u64) -> Option<Value> {
        lock(&self.hub.world).guild_create(id, View::default()).and_then(|d| serde_json::from_slice(&d).ok())
    }

    /// The same for a session with these intents and threshold.
    #[must_use]
    pub fn guild_as_seen(&self, id: u64, intents: u64, large_threshold: u64) -> Option<Value> {
        let view = View::of(intents, large_threshold);
        lock(&self.hub.world).guild_create(id, view).and_then(|d| serde_json::from_slice(&d).ok())
    }

    /// The guilds of shard `id` of `count`, in rising order.
    #[must_use]
    pub fn guilds(&self, id: u32, count: u32) -> Vec<u64> {
        lock(&self.hub.world).guilds([id, count]).into()
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        self.hub.limits()
    }

    /// Other limits from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.hub.set_limits(limits);
    }

    /// Changes some limits: `discord.change_limits(|limits| limits.shards = 4)`.
    pub fn change_limits(&self, change: impl FnOnce(&mut Limits)) {
        let mut limits = (*self.hub.limits()).clone();
        change(&mut limits);
        self.hub.set_limits(limits);
    }

    /// REST's limits in force.
    #[must_use]
    pub fn rest_limits(&self) -> RestLimits {
        lock(&self.hub.rest).limits.clone()
    }

    /// Other REST limits from now on; all counts start anew.
    pub fn set_rest_limits(&self, limits: RestLimits) {
        *lock(&self.hub.rest) = Limiter::new(limits);
    }

    // ── traffic ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// Starts a generator; the number names it.
    pub fn traffic(&self, traffic: Traffic) -> u64 {
        self.generators.start(&self.hub, traffic, &self.stop)
    }

    /// Stops all generators; when this returns nothing more is sent.
    pub async fn stop_traffic(&self) -> Sent {
        self.generators.stop_all().await;
        self.sent()
    }

    /// Waits for the generators that have an end (a burst, `seconds`).
    pub async fn finish_traffic(&self) -> Sent {
        self.generators.finish_all().await;
        self.sent()
    }

    /// The last number of a message per guild.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.generators.sent(&lock(&self.hub.world))
    }

    /// One event: applied to the world, handed to the sessions that may see it.
    pub fn emit(&self, emit: &Emit) {
        let guild = emit.guild.as_ref().and_then(|guild| guild.parse().ok());
        let limits = self.hub.limits();
        let mut world = lock(&self.hub.world);
        self.hub.emit(&mut world, &limits, &emit.t, &emit.d, guild, emit.shard);
    }

    /// One event in a guild.
    pub fn emit_in(&self, guild: u64, name: &str, data: Value) {
        self.emit(&Emit { t: name.to_owned(), d: data, shard: None, guild: Some(guild.to_string()) });
    }

    /// The guild becomes unavailable.
    pub fn outage(&self, guild: u64) {
        let data = serde_json::json!({"id": guild.to_string(), "unavailable": true});
        self.emit_in(guild, "GUILD_DELETE", data);
    }

    /// The guild is available again: GUILD_CREATE.
    pub fn recover(&self, guild: u64) {
        let tree = lock(&self.hub.world).tree(guild).cloned();
        if let Some(tree) = tree {
            self.emit_in(guild, "GUILD_CREATE", tree);
        }
    }

    // ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Causes a fault; says how many connections it hit. What a shard did before is forgotten by `wait_for_…`.
    pub fn fault(&self, fault: &Fault) -> usize {
        for (shard, marks) in lock(&self.hub.marks).iter_mut() {
            if fault.shard.is_none_or(|hit| hit == *shard) {
                marks.identifies_told = marks.identifies;
                marks.resumes_told = marks.resumes;
            }
        }
        if fault.kind.lasts() {
            lock(&self.hub.faults).add(fault, std::time::Instant::now());
            let hit = self.hub.tell(fault.shard, &Command::Lasting);
            self.hub.tell(None, &Command::Lasting);
            return hit;
        }
        if fault.kind == FaultKind::ExpireSession {
            for session in self.hub.sessions() {
                if fault.shard.is_none_or(|shard| session.shard[0] == shard) {
                    session.forbid_resume();
                }
            }
        }
        self.hub.tell(fault.shard, &Command::Fault(fault.clone()))
    }

    /// Cuts a shard's connection without a close frame.
    pub fn cut(&self, shard: u32, cut: Cut) -> usize {
        let kind = match cut {
            Cut::Fin => FaultKind::Fin,
            Cut::Rst => FaultKind::Rst,
            Cut::FinRst => FaultKind::FinRst,
        };
        self.fault(&Fault::new(shard, kind))
    }

    /// What webhooks have sent, in its order.
    #[must_use]
    pub fn webhook_messages(&self) -> Vec<WebhookMessage> {
        lock(&self.hub.webhooks).sent.clone()
    }

    /// Deletes a webhook: it is gone from now on.
    pub fn delete_webhook(&self, webhook: u64) {
        lock(&self.hub.webhooks).gone.insert(webhook);
    }

    /// Lets the next REST request that has none yet meet with this.
    pub fn rest_fault(&self, fault: RestFault) {
        lock(&self.hub.rest_faults).push_back(fault);
    }

    /// Ends all lasting faults.
    pub fn clear_faults(&self) {
        lock(&self.hub.faults).clear();
        self.hub.tell(None, &Command::Lasting);
    }

    // ── records ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// What clients sent with this opcode.
    #[must_use]
    pub fn records(&self, op: u64) -> Vec<Record> {
        self.records_of(Some(op), None)
    }

    /// What clients sent, filtered.
    #[must_use]
    pub fn records_of(&self, op: Option<u64>, shard: Option<u32>) -> Vec<Record> {
        let records = lock(&self.hub.records);
        let wanted = |record: &&Record| {
            op.is_none_or(|op| record.op == Some(op))
                && shard.is_none_or(|shard| record.shard.is_some_and(|[id, _]| id == shard))
        };
        records.payloads.iter().filter(wanted).cloned().collect()
    }

    /// The REST requests.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.hub.records).requests.to_vec()
    }

    /// What clients did that Discord punishes.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        lock(&self.hub.records).violations.to_vec()
    }

    /// Forgets all records, requests and violations.
    pub fn clear_records(&self) {
        lock(&self.hub.records).clear();
    }

    // ── waiting ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// Waits until `condition` holds for the simulator.
    ///
    /// # Errors
    /// When it doesn't within 30 s.
    pub async fn wait_until(
        &self,
        what: &str,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<(), TimedOut> {
        let mut changes = self.hub.watch();
        let wait = async {
            while !condition(self) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let waited = PATIENCE;
        tokio::time::timeout(waited, wait).await.map_err(|_| TimedOut { what: what.to_owned(), waited })
    }

    /// Waits for a shard's IDENTIFY that started a session and that nobody waited for yet, since the last fault.
    ///
    /// # Errors
    /// When there is none within 30 s.
    pub async fn wait_for_identify(&self, shard: u32) -> Result<(), TimedOut> {
        self.wait_until(&format!("IDENTIFY of shard {shard}"), |control| {
            let mut marks = lock(&control.hub.marks);
            let marks = marks.entry(shard).or_default();
            let new = marks.identifies > marks.identifies_told;
            marks.identifies_told += u64::from(new);
            new
        })
        .await
    }

    /// Waits for a shard's RESUME that succeeded and that nobody waited for yet, since the last fault.
    ///
    /// # Errors
    /// When there is none within 30 s.
    pub async fn wait_for_resume(&self, shard: u32) -> Result<(), TimedOut> {
        self.wait_until(&format!("RESUME of shard {shard}"), |control| {
            let mut marks = lock(&control.hub.marks);
            let marks = marks.entry(shard).or_default();
            let new = marks.resumes > marks.resumes_told;
            marks.resumes_told += u64::from(new);
            new
        })
        .await
    }

    /// Waits until at least `count` payloads with this opcode were received; gives them.
    ///
    /// # Errors
    /// When there are fewer after 30 s.
    pub async fn wait_for_records(&self, op: u64, count: usize) -> Result<Vec<Record>, TimedOut> {
        self.wait_until(&format!("{count} × op {op}"), |control| control.records(op).len() >= count).await?;
        Ok(self.records(op))
    }

    /// The id of the bot's user and application.
    #[must_use]
    pub fn bot_user(&self) -> u64 {
        BOT_USER
    }
}
