// SPDX-License-Identifier: AGPL-3.0-only
//! What a client sends: decoding, limits, and the opcodes of the session's life.
//!
//! In: one message of a client. Out: answers in the connection's buffer, or the close that Discord would give
//! (topics/opcodes-and-status-codes). Requests about guilds go on to `requests`.
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::connection::Connection;
use crate::encode::Encoding;
use crate::faults::FaultKind;
use crate::records::Record;

/// Larger payloads are answered with 4002 (events/gateway, "Sending Events").
const MAX_PAYLOAD: usize = 4096;

/// A close code and its reason, as an early return.
pub(crate) type Refusal = (u16, &'static str);

pub(crate) const DECODE: Refusal = (4002, "Error while decoding payload.");

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

    pub(crate) fn invalid_session(&mut self, resumable: bool) {
        self.send(format!(r#"{{"t":null,"s":null,"op":9,"d":{resumable}}}"#).as_bytes());
        self.flush();
    }
}

/// The data with its token made unreadable.
fn masked(data: &Value) -> Value {
    let mut data = data.clone();
    if let Some(token) = data.get_mut("token") {
        *token = Value::from("***");
    }
    data
}
