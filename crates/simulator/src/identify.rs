// SPDX-License-Identifier: AGPL-3.0-only
//! IDENTIFY and RESUME: how a connection gets its session.
//!
//! In: their data. Out: a session behind the connection, op 9, or the close that Discord would give.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::commands::{DECODE, Refusal};
use crate::connection::Connection;
use crate::faults::{Cut, FaultKind};
use crate::hub::{Command, lock};
use crate::intents;
use crate::limits::Limits;
use crate::session::{ResumeError, Session};
use crate::view::View;
use crate::world::BOT_USER;

impl Connection {
    pub(crate) fn identify(&mut self, data: &Value) -> Result<(), Refusal> {
        if self.session.is_some() {
            return Err((4005, "Already authenticated."));
        }
        let limits = self.hub.limits();
        let identify = Identify::read(data)?;
        if !self.hub.accepts(&identify.token) {
            return Err((4004, "Authentication failed."));
        }
        let shard = self.checked_shard(&identify, &limits)?;
        if identify.intents & !intents::KNOWN != 0 {
            return Err((4013, "Invalid intent(s)."));
        }
        if identify.intents & limits.disallowed_intents != 0 {
            return Err((4014, "Disallowed intent(s)."));
        }
        self.shard = Some(shard);
        self.enter(shard[0]);
        if self.by_resume_url {
            self.note("resume_url", "IDENTIFY on the resume URL".to_owned());
        }
        if self.cut_at.is_some() || !self.within_budget(shard[0], &limits)? {
            return Ok(());
        }
        if identify.compress {
            self.encoder.compress_payloads();
        }
        self.start_session(&identify, shard, &limits);
        Ok(())
    }

    fn checked_shard(&self, identify: &Identify, limits: &Limits) -> Result<[u32; 2], Refusal> {
        const INVALID: Refusal = (4010, "Invalid shard");
        let shard = match &identify.shard {
            Value::Null => [0, 1],
            given => {
                let pair: [u32; 2] = serde_json::from_value(given.clone()).map_err(|_| INVALID)?;
                if pair[0] >= pair[1] {
                    return Err(INVALID);
                }
                pair
            }
        };
        if limits.large_bot && !shard[1].is_multiple_of(limits.shards.max(1)) {
            return Err(INVALID);
        }
        let guilds = lock(&self.hub.world).len();
        if guilds > limits.guilds_per_shard as usize * shard[1] as usize {
            return Err((4011, "Sharding required."));
        }
        Ok(shard)
    }

    /// The connection belongs to a shard now, so that shard's faults hit it.
    fn enter(&mut self, shard: u32) {
        self.hub.set_shard(self.id, shard);
        self.reload_faults();
        if self.hit(FaultKind::Refuse, Instant::now()) {
            self.cut_at = Some((Instant::now(), Cut::Rst));
        }
    }

    /// Identify concurrency (op 9 when too early) and the daily budget, whose end costs all sessions
    /// (events/gateway, "Session Start Limit").
    fn within_budget(&mut self, shard: u32, limits: &Limits) -> Result<bool, Refusal> {
        if limits.identifies_remaining == 0 {
            self.note("identify_budget", "no IDENTIFY left today".to_owned());
            for session in self.hub.sessions() {
                self.hub.end_session(&session.id);
            }
            self.hub.tell(None, &Command::Close(4004, "Authentication failed."));
            return Err((4004, "Authentication failed."));
        }
        let mut left = limits.clone();
        left.identifies_remaining -= 1;
        self.hub.set_limits(left);
        if !lock(&self.hub.gate).enter(shard, limits, Instant::now()) {
            self.note("identify_too_early", format!("bucket of shard {shard}"));
            self.invalid_session(false);
            return Ok(false);
        }
        Ok(true)
    }

    fn start_session(&mut self, identify: &Identify, shard: [u32; 2], limits: &Limits) {
        let view = View::of(identify.intents, identify.large_threshold);
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let world = lock(&self.hub.world);
        let guilds = world.guilds(shard);
        let ready = ready(&self.hub.resume_url, &id, identify, shard, &guilds);
        let pending = if identify.intents & intents::GUILDS == 0 { Default::default() } else { guilds };
        let session = Arc::new(Session::new(id, shard, identify.intents, view, self.id, pending));
        session.push(None, &Bytes::from_static(b"READY"), &Bytes::from(ready.to_string()), limits);
        self.hub.add_session(Arc::clone(&session));
        drop(world);
        self.session = Some(session);
        self.hub.mark(shard[0], |marks| marks.identifies += 1);
    }

    pub(crate) fn resume(&mut self, data: &Value) -> Result<(), Refusal> {
        if self.session.is_some() {
            return Err((4005, "Already authenticated."));
        }
        let token = data["token"].as_str().ok_or(DECODE)?;
        let id = data["session_id"].as_str().ok_or(DECODE)?;
        let from = data["seq"].as_u64().ok_or(DECODE)?;
        if !self.hub.accepts(token) {
            return Err((4004, "Authentication failed."));
        }
        if !self.by_resume_url {
            self.note("resume_url", "RESUME elsewhere than at resume_gateway_url".to_owned());
        }
        let Some(session) = self.hub.session(id) else {
            self.invalid_session(false);
            return Ok(());
        };
        self.shard = Some(session.shard);
        self.enter(session.shard[0]);
        if self.cut_at.is_some() {
            return Ok(());
        }
        let trace = Bytes::from_static(br#"{"_trace":["[\"gateway-sim\",{\"micros\":0.0}]"]}"#);
        match session.resume(self.id, from, trace, &self.hub.limits()) {
            Ok(before) => {
                if let Some(before) = before.filter(|before| *before != self.id) {
                    self.hub.tell_one(before, Command::Close(4000, "Session resumed elsewhere"));
                }
                self.hub.mark(session.shard[0], |marks| marks.resumes += 1);
                self.session = Some(session);
                Ok(())
            }
            Err(ResumeError::Gone) => {
                self.hub.end_session(&session.id);
                self.invalid_session(false);
                Ok(())
            }
            Err(ResumeError::Sequence) => {
                self.hub.end_session(&session.id);
                Err((4007, "Invalid sequence."))
            }
        }
    }
}

/// An IDENTIFY's fields, as far as Discord cares about them (events/gateway-events, "Identify Structure").
struct Identify {
    token: String,
    shard: Value,
    intents: u64,
    large_threshold: u64,
    compress: bool,
}

impl Identify {
    fn read(data: &Value) -> Result<Self, Refusal> {
        let token = data["token"].as_str().ok_or(DECODE)?.to_owned();
        if !data["properties"].is_object() {
            return Err(DECODE);
        }
        let intents = match &data["intents"] {
            Value::Null => return Err((4013, "Invalid intent(s).")),
            Value::Number(number) => number.as_u64().ok_or((4013, "Invalid intent(s)."))?,
            _ => return Err(DECODE),
        };
        Ok(Self {
            token,
            shard: data["shard"].clone(),
            intents,
            large_threshold: data["large_threshold"].as_u64().unwrap_or(50),
            compress: data["compress"].as_bool().unwrap_or(false),
        })
    }
}

/// READY's `d`: the documented fields, and those that real ones carry besides.
fn ready(
    resume_url: &str,
    session: &str,
    identify: &Identify,
    shard: [u32; 2],
    guilds: &VecDeque<u64>,
) -> Value {
    let guilds: Vec<Value> =
        guilds.iter().map(|id| json!({"id": id.to_string(), "unavailable": true})).collect();
    let mut ready = json!({
        "v": 10, "user_settings": {}, "user": crate::rest::own_user(), "session_type": "normal",
        "session_id": session, "resume_gateway_url": resume_url, "relationships": [], "private_channels": [],
        "presences": [], "guilds": guilds, "guild_join_requests": [], "game_relationships": [], "auth": {},
        "geo_ordered_rtc_regions": ["rotterdam", "frankfurt"],
        "application": {"id": BOT_USER.to_string(), "flags": 565_248}, "notification_settings": null,
        "_trace": ["[\"gateway-sim\",{\"micros\":0.0}]"],
    });
    if !identify.shard.is_null() {
        ready["shard"] = json!(shard);
    }
    ready
}
