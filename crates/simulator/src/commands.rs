// SPDX-License-Identifier: AGPL-3.0-only
//! What a client sends: decoding, limits, and the opcodes of the session's life.
//!
//! In: one message of a client. Out: answers in the connection's buffer, or the close that Discord would give
//! (topics/opcodes-and-status-codes). Requests about guilds go on to `requests`.
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::encode::Encoding;
use crate::faults::{Cut, Fault, FaultKind};
use crate::hub::{Command, lock};
use crate::intents;
use crate::limits::Limits;
use crate::records::Record;
use crate::session::{ResumeError, Session};
use crate::view::View;
use crate::world::BOT_USER;

/// Larger payloads are answered with 4002 (events/gateway, "Sending Events").
const MAX_PAYLOAD: usize = 4096;

/// A close code and its reason, as an early return.
pub(crate) type Refusal = (u16, &'static str);

const DECODE: Refusal = (4002, "Error while decoding payload.");

impl Connection {
    /// Takes one message of the client.
    pub(crate) fn receive(&mut self, bytes: &[u8], binary: bool) {
        let result = self.receive_or_refuse(bytes, binary);
        if let Err((code, reason)) = result {
            self.note(&format!("close_{code}"), reason.to_owned());
            self.close(code, reason);
        }
    }

    fn receive_or_refuse(&mut self, bytes: &[u8], binary: bool) -> Result<(), Refusal> {
        let payload = self.decode(bytes, binary);
        let op = payload.as_ref().and_then(|payload| payload["op"].as_u64());
        let data = payload.as_ref().map(|payload| masked(&payload["d"])).unwrap_or_default();
        self.hub.record(Record {
            at_ms: self.hub.at_ms(),
            connection: self.id,
            shard: self.shard,
            op,
            d: data,
            bytes: bytes.len(),
        });
        self.spend()?;
        if bytes.len() > MAX_PAYLOAD {
            return Err((4002, "Payload too large."));
        }
        let payload = payload.ok_or(DECODE)?;
        let op = op.ok_or(DECODE)?;
        let data = &payload["d"];
        match op {
            1 => self.heartbeat(data),
            2 => self.identify(data),
            6 => self.resume(data),
            3 | 4 | 8 | 31 | 43 => match self.session.clone() {
                Some(session) => self.request(op, data, &session),
                None => Err((4003, "Not authenticated.")),
            },
            _ => Err((4001, "Unknown opcode.")),
        }
    }

    fn decode(&self, bytes: &[u8], binary: bool) -> Option<Value> {
        let payload = match self.encoder.encoding() {
            Encoding::Etf if binary => crate::etf::decode(bytes).ok()?,
            Encoding::Etf => return None,
            Encoding::Json => serde_json::from_slice::<Value>(bytes).ok()?,
        };
        payload.is_object().then_some(payload)
    }

    /// 120 payloads in any 60 s (events/gateway, "Rate Limiting").
    fn spend(&mut self) -> Result<(), Refusal> {
        let now = Instant::now();
        while self.sends.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(60)) {
            self.sends.pop_front();
        }
        self.sends.push_back(now);
        if self.sends.len() > self.hub.limits().sends_per_minute {
            return Err((4008, "You are being rate limited."));
        }
        Ok(())
    }

    fn heartbeat(&mut self, data: &Value) -> Result<(), Refusal> {
        let sequence = match data {
            Value::Null => 0,
            other => other.as_u64().ok_or(DECODE)?,
        };
        let now = Instant::now();
        self.last_heartbeat = now;
        if let Some(session) = &self.session {
            session.acknowledge(sequence, &self.hub.limits());
        }
        if self.hit(FaultKind::NoAck, now) {
            return Ok(());
        }
        let late =
            self.lasting.iter().find(|fault| fault.kind == FaultKind::LateAck).map(|fault| fault.delay);
        match late {
            Some(delay) => self.acks.push_back(now + delay),
            None => self.acknowledge_heartbeat(),
        }
        Ok(())
    }

    pub(crate) fn acknowledge_heartbeat(&mut self) {
        self.send(br#"{"t":null,"s":null,"op":11,"d":null}"#);
        self.flush();
    }

    fn identify(&mut self, data: &Value) -> Result<(), Refusal> {
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

    pub(crate) fn invalid_session(&mut self, resumable: bool) {
        self.send(format!(r#"{{"t":null,"s":null,"op":9,"d":{resumable}}}"#).as_bytes());
        self.flush();
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

    fn resume(&mut self, data: &Value) -> Result<(), Refusal> {
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

    /// Carries out what the hub asks for.
    pub(crate) fn command(&mut self, command: Command) -> Option<crate::connection::End> {
        match command {
            Command::Lasting => {
                self.reload_faults();
                self.hit(FaultKind::Refuse, Instant::now())
                    .then_some(crate::connection::End::Cut(Cut::Rst))
                    .filter(|_| self.session.is_none())
            }
            Command::Close(code, reason) => {
                self.close(code, reason);
                None
            }
            Command::Fault(fault) => self.fault(&fault),
        }
    }

    fn fault(&mut self, fault: &Fault) -> Option<crate::connection::End> {
        use crate::connection::End;
        match fault.kind {
            FaultKind::Fin => return Some(End::Cut(Cut::Fin)),
            FaultKind::Rst => return Some(End::Cut(Cut::Rst)),
            FaultKind::FinRst => return Some(End::Cut(Cut::FinRst)),
            FaultKind::Op7 => {
                self.send(br#"{"t":null,"s":null,"op":7,"d":null}"#);
                let after = Duration::from_millis(fault.ms.unwrap_or(5_000));
                self.cut_at = Some((Instant::now() + after, Cut::Fin));
            }
            FaultKind::Op9 => {
                let resumable = fault.resumable.unwrap_or(false);
                if let Some(session) = self.session.take() {
                    if resumable {
                        session.leave(self.id);
                    } else {
                        self.hub.end_session(&session.id);
                    }
                }
                self.invalid_session(resumable);
            }
            FaultKind::Close => {
                if let (Some(false), Some(session)) = (fault.resumable, &self.session) {
                    session.forbid_resume();
                }
                self.close(fault.code.unwrap_or(4000), "Unknown error");
            }
            FaultKind::Garbage => self.garbage(fault.code.unwrap_or(0)),
            FaultKind::Truncate => {
                crate::encode::frame_header(&mut self.out, crate::encode::TEXT, 1_000);
                self.out.extend_from_slice(br#"{"t":"MESSAGE_CREATE","s":1,"op":0,"d":{"#);
                self.cut_at = Some((Instant::now(), Cut::Fin));
            }
            FaultKind::ExpireSession => {
                if let Some(session) = &self.session {
                    session.forbid_resume();
                }
            }
            // These last: they are in the table.
            FaultKind::Silence
            | FaultKind::NoAck
            | FaultKind::LateAck
            | FaultKind::SlowRead
            | FaultKind::Refuse => {}
        }
        self.flush();
        None
    }

    fn garbage(&mut self, variant: u16) {
        use crate::encode::{BINARY, TEXT, frame_header};
        let (opcode, bytes): (Option<u8>, &[u8]) = match variant {
            1 => (None, b"\xff\xff\xff\xffthis is not a frame\x00\x00"),
            2 => (Some(TEXT), b"{\"op\":0,\"t\":\"\xc3\x28\"}"),
            3 => (Some(BINARY), b"\x01\x02\x03\x04nothing that inflates\x00\x00\xff\xff"),
            _ => (Some(TEXT), b"{\"op\":0,\"t\":\"MESSAGE_CREATE\",\"s\":12,\"d\":{\"id\":"),
        };
        if let Some(opcode) = opcode {
            frame_header(&mut self.out, opcode, bytes.len());
        }
        self.out.extend_from_slice(bytes);
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
    guilds: &std::collections::VecDeque<u64>,
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

/// The data with its token made unreadable.
fn masked(data: &Value) -> Value {
    let mut data = data.clone();
    if let Some(token) = data.get_mut("token") {
        *token = Value::from("***");
    }
    data
}
