// SPDX-License-Identifier: AGPL-3.0-only
//! Faults that a test asks for.
//!
//! In: a wish (kind, shard, duration). Out: commands for connections, and the lasting ones as a table that each
//! connection consults. The connection carries them out.
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize};

/// How a connection is cut without a WebSocket close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// TCP FIN.
    Fin,
    /// TCP RST.
    Rst,
    /// FIN, and RST right after it.
    FinRst,
}

/// All kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// TCP FIN.
    Fin,
    /// TCP RST.
    Rst,
    /// FIN, and RST right after it.
    FinRst,
    /// Op 7, and FIN after `ms` (default 5,000).
    Op7,
    /// Op 1: the client has to send a heartbeat at once.
    HeartbeatRequest,
    /// Op 9 with `resumable` (default false).
    Op9,
    /// A close frame with `code` (default 4000); `resumable: false` ends the session whatever the code.
    Close,
    /// Nothing is sent any more while TCP lives on.
    Silence,
    /// Heartbeats aren't answered.
    NoAck,
    /// Heartbeats are answered `ms` late.
    LateAck,
    /// Rubbish instead of a payload: `code` 0 a text that isn't JSON (default), 1 bytes that aren't a frame,
    /// 2 a text that isn't UTF-8, 3 a binary frame that doesn't inflate.
    Garbage,
    /// Half a frame, then FIN.
    Truncate,
    /// Nothing is read from the client.
    SlowRead,
    /// New connections are reset; with a shard, when it identifies or resumes.
    Refuse,
    /// IDENTIFY is taken, but READY and what follows it wait.
    HoldReady,
    /// The next RESUME gets op 9 false.
    ExpireSession,
}

impl FaultKind {
    /// Whether it stays until its time is over or it is cleared.
    pub(crate) fn lasts(self) -> bool {
        matches!(
            self,
            Self::Silence | Self::NoAck | Self::LateAck | Self::SlowRead | Self::Refuse | Self::HoldReady
        )
    }
}

/// A fault for one shard or all.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which shard's connections; `None` (in JSON `"all"`) is every connection.
    #[serde(default, deserialize_with = "shard_or_all")]
    pub shard: Option<u32>,
    /// What happens.
    pub kind: FaultKind,
    /// For op 9 and close.
    #[serde(default)]
    pub resumable: Option<bool>,
    /// Close code, or the variant of garbage.
    #[serde(default)]
    pub code: Option<u16>,
    /// Duration of a lasting fault, or the delay that its kind names.
    #[serde(default)]
    pub ms: Option<u64>,
}

fn shard_or_all<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Which {
        One(u32),
        Named(String),
        None,
    }
    match Which::deserialize(input)? {
        Which::One(shard) => Ok(Some(shard)),
        Which::None => Ok(None),
        Which::Named(name) if name == "all" => Ok(None),
        Which::Named(name) => name.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

impl Fault {
    /// A fault of `kind` for `shard`, without further settings.
    #[must_use]
    pub fn new(shard: u32, kind: FaultKind) -> Self {
        Self { shard: Some(shard), kind, resumable: None, code: None, ms: None }
    }

    /// A fault for all connections.
    #[must_use]
    pub fn everywhere(kind: FaultKind) -> Self {
        Self { shard: None, kind, resumable: None, code: None, ms: None }
    }

    /// With a duration or delay.
    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Self {
        self.ms = Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// With a close code or variant.
    #[must_use]
    pub fn code(mut self, code: u16) -> Self {
        self.code = Some(code);
        self
    }

    /// With what becomes of the session.
    #[must_use]
    pub fn resumable(mut self, resumable: bool) -> Self {
        self.resumable = Some(resumable);
        self
    }
}

/// A fault that lasts.
#[derive(Clone, Debug)]
pub(crate) struct Lasting {
    pub(crate) shard: Option<u32>,
    pub(crate) kind: FaultKind,
    pub(crate) until: Option<Instant>,
    pub(crate) delay: Duration,
}

/// The lasting faults in force.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Lasting>);

impl Table {
    pub(crate) fn add(&mut self, fault: &Fault, now: Instant) {
        let time = fault.ms.map(Duration::from_millis);
        // A late ACK's `ms` is its delay, it lasts until cleared; the others' is how long they last.
        let until = if fault.kind == FaultKind::LateAck { None } else { time.map(|time| now + time) };
        self.0.retain(|old| old.until.is_none_or(|until| until > now));
        self.0.push(Lasting { shard: fault.shard, kind: fault.kind, until, delay: time.unwrap_or_default() });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The faults that hit a connection of `shard` (none: not identified yet).
    pub(crate) fn on(&self, shard: Option<u32>, now: Instant) -> Vec<Lasting> {
        let hits = |fault: &&Lasting| {
            (fault.shard.is_none() || fault.shard == shard) && fault.until.is_none_or(|until| until > now)
        };
        self.0.iter().filter(hits).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_routes_forms_of_a_shard_are_read() {
        let shard = |text: &str| serde_json::from_str::<Fault>(text).map(|fault| fault.shard).ok();
        assert_eq!(shard(r#"{"shard":3,"kind":"rst"}"#), Some(Some(3)));
        assert_eq!(shard(r#"{"shard":"all","kind":"fin_rst"}"#), Some(None));
        assert_eq!(shard(r#"{"kind":"op7"}"#), Some(None));
        assert_eq!(shard(r#"{"shard":"none","kind":"op7"}"#), None);
    }

    #[test]
    fn lasting_faults_end_with_their_time() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.add(&Fault::new(1, FaultKind::Silence).lasting(Duration::from_secs(1)), now);
        assert_eq!(table.on(Some(1), now).len(), 1);
        assert!(table.on(Some(2), now).is_empty());
        assert!(table.on(Some(1), now + Duration::from_secs(1)).is_empty());
    }
}
