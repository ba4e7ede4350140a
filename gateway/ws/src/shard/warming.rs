// SPDX-License-Identifier: AGPL-3.0-only
//! A shard of the bot's next count, which gathers what comes while the shards of the current count still serve.
//!
//! Its log is one like others, but readers stand at a gate: all that they will ever see is behind it. The gate follows
//! the log's end at a distance, so that between the two lies what the old shards may not have had when they are cut.
//! When they are, what they had is told to [`Core::open`], and readers go on from the gate, passing over what is
//! repeated. Nobody waits in here; [`crate::fleet`] says when.

use std::{
    collections::{HashMap, VecDeque},
    io,
    time::Duration,
};

use holdfast_cluster::{CursorRecord, Seen};
use sha2::{Digest, Sha256};

use super::core::Core;
use crate::log::{Meta, Position};

/// Guilds that haven't come for so long are unavailable: the others aren't kept waiting for them.
const QUIET: Duration = Duration::from_secs(5);
/// How long the log's end is remembered by time.
const CLOCK: Duration = Duration::from_secs(180);
/// Most events that an old shard tells of: enough for half a minute at 2,000 a second; a mebibyte in the store.
const MOST_SEEN: u64 = 65_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Warming {
    /// Since when, in milliseconds of Unix time, nothing is missing behind the gate; none while guilds come.
    since_ms: Option<u64>,
    /// The gate doesn't move any more.
    sealed: bool,
    /// How many guilds were missing at the last look, and since when it has been so many.
    missing: (usize, u64),
    /// Why Discord won't have the shard.
    refused: Option<String>,
}

impl Warming {
    /// Whether what is behind the gate is to be given.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed
    }
}

/// Where readers of a shard that took over from others begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// They read what follows this position,
    pub(crate) from: Position,
    /// up to this one without what others have given already,
    pub(crate) until: Position,
    /// which is this, rising.
    repeated: Vec<Position>,
    /// Events up to `until` that are given, since no other shard is known to have given them.
    pub(crate) unmatched: usize,
}

impl Opened {
    /// Whether the event was given by a shard of the former count.
    pub(crate) fn is_repeated(&self, position: Position) -> bool {
        position <= self.until && self.repeated.binary_search(&position).is_ok()
    }

    /// How many events are passed over.
    pub(crate) fn repeated(&self) -> usize {
        self.repeated.len()
    }
}

/// The log's end by time: once a second, for some minutes.
#[derive(Debug, Default)]
pub(crate) struct Clock(VecDeque<(u64, Position)>);

impl Clock {
    fn note(&mut self, now_ms: u64, end: Position) {
        self.0.push_back((now_ms, end));
        let forgotten = now_ms.saturating_sub(ms(CLOCK));
        while self.0.front().is_some_and(|(at, _)| *at < forgotten) {
            self.0.pop_front();
        }
    }

    /// The log's end at this time, or before it. None: that is longer ago than the clock reaches.
    fn end_at(&self, at_ms: u64) -> Option<Position> {
        let later = self.0.partition_point(|(at, _)| *at <= at_ms);
        self.0.get(later.checked_sub(1)?).map(|(_, end)| *end)
    }
}

impl Core {
    /// The shard gathers, from here on. Where an earlier owner had a gate, it stays there.
    pub(crate) fn gather(&mut self, gate: Option<Position>) {
        self.warming = Some(Warming::default());
        self.hold(gate.unwrap_or(self.log.last()));
    }

    /// Looks at the time, once a second: the gate follows.
    pub(super) fn tell_time(&mut self, now_ms: u64) {
        self.clock.note(now_ms, self.log.last());
        if self.warming.is_none() {
            return;
        }
        let missing = self.guilds.memory().unavailable;
        let (has_ready, end) = (self.ready.is_some(), self.log.last());
        let Some(warming) = &mut self.warming else { return };
        if warming.since_ms.is_some() {
            if let Some(gate) = self.clock.end_at(now_ms.saturating_sub(ms(2 * self.overlap)))
                && !warming.sealed
                && self.published.is_none_or(|held| held.position < gate)
            {
                self.hold(gate);
            }
            return;
        }
        if missing != warming.missing.0 || !has_ready {
            warming.missing = (missing, now_ms);
        }
        if has_ready && (missing == 0 || now_ms.saturating_sub(warming.missing.1) >= ms(QUIET)) {
            warming.since_ms = Some(now_ms);
            // Guilds as they came are no events: the old shards had them long ago.
            if !warming.sealed {
                self.hold(end);
            }
        }
    }

    /// Whether the shard is of a count that is yet to come.
    pub(crate) fn is_warming(&self) -> bool {
        self.warming.is_some()
    }

    /// Whether so much lies behind the gate that the old shards may be cut.
    pub(crate) fn is_warm(&self, now_ms: u64) -> bool {
        let since = self.warming.as_ref().and_then(|warming| warming.since_ms);
        since.is_some_and(|since| now_ms.saturating_sub(since) >= ms(self.overlap))
    }

    /// Whether the broker has had what is older than the overlap, so that the gates of new shards are before all that it
    /// hasn't had.
    pub(crate) fn is_published(&self, now_ms: u64) -> bool {
        let due = self.clock.end_at(now_ms.saturating_sub(ms(self.overlap)));
        self.published.is_none_or(|published| due.is_none_or(|due| published.position >= due))
    }

    /// The old shards are being cut: from here on the gate stays where it is.
    pub(crate) fn seal(&mut self) {
        if let Some(warming) = &mut self.warming {
            warming.sealed = true;
        }
    }

    /// Discord won't have the shard. False: it isn't of a count that can still be given up.
    pub(crate) fn refuse(&mut self, why: String) -> bool {
        match &mut self.warming {
            Some(warming) if !warming.sealed => {
                warming.refused = Some(why);
                true
            }
            _ => false,
        }
    }

    /// Why Discord won't have the shard, while its count can still be given up.
    pub(crate) fn refused(&self) -> Option<String> {
        self.warming.as_ref()?.refused.clone()
    }

    /// Discord has begun a new session: what lies behind the gate isn't whole.
    pub(super) fn gathers_anew(&mut self) {
        if let Some(warming) = &mut self.warming {
            *warming = Warming { sealed: warming.sealed, ..Warming::default() };
        }
    }

    /// Opens the gate. `seen`: what the old shards have given. Reads the log, from the disk if need be.
    ///
    /// # Errors
    /// The log can't be read; the gate stays closed.
    pub(crate) fn open(&mut self, seen: &[Seen], publishes: bool) -> io::Result<()> {
        if self.warming.is_none() {
            return Ok(());
        }
        let mut left: HashMap<Seen, u32> = HashMap::with_capacity(seen.len());
        for seen in seen {
            *left.entry(*seen).or_default() += 1;
        }
        let from = self.published.map_or(self.log.last(), |held| held.position);
        let mut opened = Opened { from, until: self.log.last(), repeated: Vec::new(), unmatched: 0 };
        self.log.replay(from, |meta, payload| {
            let known = left.get_mut(&seen_of(meta, payload)).filter(|left| **left > 0);
            match known {
                Some(left) => {
                    *left -= 1;
                    opened.repeated.push(meta.position);
                }
                None => opened.unmatched += 1,
            }
        })?;
        self.warming = None;
        self.opened = Some(std::sync::Arc::new(opened));
        if !publishes {
            self.published = None;
        }
        Ok(())
    }

    /// What this shard has given since some time ago, as far as it still knows: what the broker hasn't had isn't given,
    /// and is left to the new shards. Reads the log.
    ///
    /// # Errors
    /// The log can't be read.
    pub(crate) fn seen_since(&self, since_ms: u64) -> io::Result<Vec<Seen>> {
        let known = self.clock.end_at(since_ms).unwrap_or(0);
        let after = known.max(self.log.last().saturating_sub(MOST_SEEN)).max(self.log.oldest() - 1);
        let given = self.published.map_or(Position::MAX, |published| published.position);
        let mut seen = Vec::new();
        self.log.replay(after, |meta, payload| {
            if meta.audience == 0 && meta.position <= given {
                seen.push(seen_of(meta, payload));
            }
        })?;
        Ok(seen)
    }

    /// Readers stand here: the log is kept from here on, and another owner would have what follows replayed.
    fn hold(&mut self, gate: Position) {
        self.published = Some(CursorRecord { stream: self.log.stream(), position: gate });
    }
}

/// An event as shards of different counts agree on it: its guild, and a hash of its name and of `d`.
fn seen_of(meta: &Meta, payload: &[u8]) -> Seen {
    let scanned;
    let (name, data): (&str, &[u8]) = match meta.data(payload) {
        Some(data) if meta.kind != holdfast_discord::EventKind::Unknown => (meta.kind.name(), data),
        _ => {
            scanned = holdfast_discord::scan(payload).ok();
            let data = scanned.as_ref().and_then(|header| payload.get(header.data.clone()?));
            (scanned.as_ref().and_then(|header| header.name).unwrap_or_default(), data.unwrap_or_default())
        }
    };
    let digest = Sha256::new().chain_update(name).chain_update([0]).chain_update(data).finalize();
    let hash = digest.iter().take(8).fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    Seen { guild: meta.guild, hash }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
