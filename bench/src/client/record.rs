// SPDX-License-Identifier: AGPL-3.0-only
//! What all connections of the client have seen, counted.
//! In: one call per event from each connection. Out: [`Counts`] when the driver asks.
//! One for the process, on its only thread.

use std::{collections::HashMap, rc::Rc};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::inflate::{Compression, level_one};

/// Longest latency that is told apart: a minute, in microseconds.
const LONGEST: u64 = 60_000_000;
/// Payloads kept to compare compressed sizes: some 2.4 MB of messages.
const SAMPLE: usize = 2000;
/// Closed connections that are described one by one.
const DESCRIBED: usize = 5;

/// Everything counted since the last reset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Dispatches received by all connections.
    pub(crate) events: u64,
    /// Bytes of frames received by all connections, as they came over the wire.
    pub(crate) wire_bytes: u64,
    /// Events with a time of sending.
    pub(crate) timed: u64,
    /// Microseconds from sending to receipt, by quantile.
    pub(crate) p50: u64,
    /// The same.
    pub(crate) p90: u64,
    /// The same.
    pub(crate) p99: u64,
    /// The same.
    pub(crate) max: u64,
    /// Earliest time of sending, in microseconds since 1970.
    pub(crate) first_sent: u64,
    /// Latest receipt.
    pub(crate) last_received: u64,
    /// Numbers of messages that were skipped (with `--check`).
    pub(crate) skipped: u64,
    /// Messages whose number had been passed already: out of order, or twice (with `--check`).
    pub(crate) repeated: u64,
    /// The longest pause between two new messages of a shard, in microseconds: of all shards, and of the one in the
    /// middle (consumers only).
    pub(crate) longest_pause: u64,
    /// The same.
    pub(crate) median_pause: u64,
    /// Bytes on the wire of the sampled messages, and what zlib of level 1 makes of the same.
    pub(crate) sample: Option<(u64, u64)>,
    /// Connections that ended, since the start.
    pub(crate) closed: u64,
    /// Why the first of them did.
    pub(crate) why: Vec<String>,
}

/// The counters behind [`Counts`].
pub(crate) struct Recorder {
    check: bool,
    sampling: bool,
    counts: Counts,
    latency: Histogram<u64>,
    /// Last number by connection and guild.
    last: HashMap<(usize, u64), u64>,
    /// By shard: when its latest new message came, and its longest pause.
    pauses: HashMap<u32, (u64, u64)>,
    sampled: Vec<Vec<u8>>,
    sampled_wire: u64,
    ready: usize,
    guilds: u64,
    guild_bytes: u64,
    became_ready: Rc<Notify>,
}

impl Recorder {
    pub(crate) fn new(check: bool, compression: Compression) -> Result<Self> {
        Ok(Self {
            check,
            sampling: compression != Compression::None,
            counts: Counts::default(),
            latency: Histogram::new_with_bounds(1, LONGEST, 3)?,
            last: HashMap::new(),
            pauses: HashMap::new(),
            sampled: Vec::new(),
            sampled_wire: 0,
            ready: 0,
            guilds: 0,
            guild_bytes: 0,
            became_ready: Rc::new(Notify::new()),
        })
    }

    /// Counts one dispatch, received at `now` (microseconds since 1970) in a frame of `wire` bytes.
    pub(crate) fn dispatch(&mut self, wire: usize, sent: Option<u64>, now: u64) {
        self.counts.events += 1;
        self.counts.wire_bytes += wire as u64;
        if let Some(sent) = sent {
            self.counts.timed += 1;
            self.latency.saturating_record(now.saturating_sub(sent));
            if self.counts.first_sent == 0 || sent < self.counts.first_sent {
                self.counts.first_sent = sent;
            }
            self.counts.last_received = now;
        }
    }

    /// Whether messages are to be looked into for their numbers.
    pub(super) fn checks(&self) -> bool {
        self.check
    }

    /// Compares a message's number with the last one of its guild on the same connection; whether it is new.
    pub(crate) fn numbered(&mut self, connection: usize, guild: u64, number: u64) -> bool {
        let last = self.last.entry((connection, guild)).or_insert(number.saturating_sub(1));
        if number <= *last {
            self.counts.repeated += 1;
            return false;
        }
        self.counts.skipped += number - *last - 1;
        *last = number;
        true
    }

    /// A new message of a shard came at `now`.
    pub(crate) fn heard(&mut self, shard: u32, now: u64) {
        let (last, longest) = self.pauses.entry(shard).or_insert((now, 0));
        *longest = (*longest).max(now.saturating_sub(*last));
        *last = now;
    }

    /// Keeps a payload of the sampled connection, until there are enough.
    pub(super) fn sample(&mut self, wire: usize, payload: &[u8]) {
        if self.sampling && self.sampled.len() < SAMPLE {
            self.sampled.push(payload.to_vec());
            self.sampled_wire += wire as u64;
        }
    }

    /// Counts a GUILD_CREATE that READY promised.
    pub(super) fn guild(&mut self, bytes: usize) {
        self.guilds += 1;
        self.guild_bytes += bytes as u64;
    }

    /// Counts a connection that has all that READY promised.
    pub(super) fn ready(&mut self) {
        self.ready += 1;
        self.became_ready.notify_one();
    }

    /// Counts a connection that ended.
    pub(crate) fn closed(&mut self, why: String) {
        self.counts.closed += 1;
        if self.counts.why.len() < DESCRIBED {
            self.counts.why.push(why);
        }
        self.became_ready.notify_one();
    }

    /// Told at each step towards readiness.
    pub(super) fn became_ready(&self) -> Rc<Notify> {
        Rc::clone(&self.became_ready)
    }

    /// Connections that are ready, and why the first that ended did.
    pub(crate) fn progress(&self) -> (usize, Option<String>) {
        (self.ready, self.counts.why.first().cloned())
    }

    /// Guilds received on the way to readiness, and the bytes of their payloads.
    pub(super) fn guilds(&self) -> (u64, u64) {
        (self.guilds, self.guild_bytes)
    }

    /// What is not there yet, for the error of a wait that was too long.
    pub(super) fn missing(&self, expected: usize) -> String {
        format!("{} of {expected} connections became ready, with {} guilds", self.ready, self.guilds)
    }

    /// Forgets what was counted; closed connections and last numbers stay known.
    pub(crate) fn reset(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        self.counts = Counts { closed: counts.closed, why: counts.why, ..Counts::default() };
        self.latency.reset();
        self.pauses.values_mut().for_each(|(_, longest)| *longest = 0);
        self.sampled.clear();
        self.sampled_wire = 0;
    }

    /// What was counted since the last reset.
    pub(crate) fn counts(&mut self) -> Counts {
        let quantile = |q| self.latency.value_at_quantile(q);
        let mut counts = self.counts.clone();
        (counts.p50, counts.p90, counts.p99) = (quantile(0.5), quantile(0.9), quantile(0.99));
        counts.max = self.latency.max();
        let mut pauses: Vec<u64> = self.pauses.values().map(|(_, longest)| *longest).collect();
        pauses.sort_unstable();
        counts.longest_pause = pauses.last().copied().unwrap_or_default();
        counts.median_pause = pauses.get(pauses.len() / 2).copied().unwrap_or_default();
        if !self.sampled.is_empty() {
            counts.sample = Some((self.sampled_wire, level_one(&self.sampled)));
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> Recorder {
        Recorder::new(true, Compression::ZlibStream).unwrap()
    }

    #[test]
    fn a_gap_counts_as_skipped_and_a_second_time_as_repeated() {
        let mut recorder = recorder();
        for number in [5, 6, 9, 9, 8, 10] {
            recorder.numbered(0, 1, number);
        }
        recorder.numbered(1, 1, 7);
        let counts = recorder.counts();
        assert_eq!((counts.skipped, counts.repeated), (2, 2));
    }

    #[test]
    fn the_longest_pause_of_each_shard_is_known_and_goes_on_over_a_reset() {
        let mut recorder = recorder();
        for (shard, now) in [(0, 100), (1, 100), (2, 100), (0, 150), (1, 300), (2, 120)] {
            recorder.heard(shard, now);
        }
        let counts = recorder.counts();
        assert_eq!((counts.longest_pause, counts.median_pause), (200, 50));
        recorder.reset();
        assert_eq!(recorder.counts().longest_pause, 0);
        recorder.heard(2, 1000);
        assert_eq!(recorder.counts().longest_pause, 880);
    }

    #[test]
    fn latency_runs_from_sending_to_receipt() {
        let mut recorder = recorder();
        for delay in 1..=100 {
            recorder.dispatch(10, Some(1_000_000 + delay), 1_000_000 + 2 * delay);
        }
        let counts = recorder.counts();
        assert_eq!((counts.events, counts.p50, counts.p99, counts.max), (100, 50, 99, 100));
        assert_eq!((counts.first_sent, counts.last_received), (1_000_001, 1_000_200));
        assert_eq!(counts.wire_bytes, 1000);
    }

    #[test]
    fn a_reset_forgets_counts_but_not_closed_connections() {
        let mut recorder = recorder();
        recorder.dispatch(10, Some(1), 2);
        recorder.sample(10, b"payload");
        recorder.closed("4000".into());
        recorder.reset();
        let counts = recorder.counts();
        assert_eq!((counts.events, counts.closed, counts.sample), (0, 1, None));
    }

    #[test]
    fn the_sample_is_bounded() {
        let mut recorder = recorder();
        for _ in 0..SAMPLE + 10 {
            recorder.sample(3, b"payload");
        }
        assert_eq!(recorder.sampled.len(), SAMPLE);
        assert_eq!(recorder.counts().sample.unwrap().0, 3 * SAMPLE as u64);
    }
}
