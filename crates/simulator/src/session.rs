// SPDX-License-Identifier: AGPL-3.0-only
//! A gateway session: sequence, resume buffer, and who reads it.
//!
//! In: events that concern the session, its owner's heartbeats. Out: batches for the connection that owns it.
//! Outlives connections; the hub ends it.
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::hub::lock;
use crate::limits::{Limits, Trim};
use crate::view::View;

/// One event of a session.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    pub(crate) name: Bytes,
    pub(crate) data: Bytes,
    at: Instant,
}

/// What a connection gets when it asks for more.
#[derive(Debug)]
pub(crate) enum Taken {
    Events(Vec<Entry>),
    /// All is sent; this guild comes next.
    Guild(u64),
    Nothing,
    /// The reader is so slow that events left the buffer before they were sent.
    Lost,
    /// Another connection owns the session now, or nobody does.
    NotYours,
}

/// Why a RESUME isn't possible.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ResumeError {
    /// The sequence was never given out: 4007.
    Sequence,
    /// Events are missing or the session is over: op 9 false.
    Gone,
}

/// A session, shared by the dispatching side and at most one connection.
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) shard: [u32; 2],
    pub(crate) intents: u64,
    pub(crate) view: View,
    pub(crate) identified_at_ms: u64,
    /// Wakes the owning connection.
    pub(crate) wake: Notify,
    state: Mutex<State>,
}

struct State {
    sequence: u64,
    ring: VecDeque<Entry>,
    bytes: usize,
    sent: u64,
    acknowledged: u64,
    owner: Option<u64>,
    left: Option<Instant>,
    /// Guilds whose GUILD_CREATE is still to come, in rising order.
    pending: VecDeque<u64>,
    resumes: u64,
    resumable: bool,
}

impl Session {
    pub(crate) fn new(
        id: String,
        shard: [u32; 2],
        intents: u64,
        view: View,
        owner: u64,
        pending: VecDeque<u64>,
    ) -> Self {
        let state = State {
            sequence: 0,
            ring: VecDeque::new(),
            bytes: 0,
            sent: 0,
            acknowledged: 0,
            owner: Some(owner),
            left: None,
            pending,
            resumes: 0,
            resumable: true,
        };
        let identified_at_ms = crate::clock::unix_ms();
        Self { id, shard, intents, view, identified_at_ms, wake: Notify::new(), state: Mutex::new(state) }
    }

    /// Whether events of `guild` belong to this session's shard; without a guild, shard 0's
    /// (events/gateway, "Sharding").
    pub(crate) fn holds(&self, guild: Option<u64>) -> bool {
        let [id, count] = self.shard;
        match guild {
            Some(guild) => (guild >> 22) % u64::from(count.max(1)) == u64::from(id),
            None => id == 0,
        }
    }

    /// Appends an event unless its guild is still to be announced.
    pub(crate) fn push(&self, guild: Option<u64>, name: &Bytes, data: &Bytes, limits: &Limits) {
        let mut state = lock(&self.state);
        if guild.is_some_and(|guild| state.pending.binary_search(&guild).is_ok()) {
            return;
        }
        state.append(name.clone(), data.clone());
        state.trim(limits);
        drop(state);
        self.wake.notify_one();
    }

    /// Whether READY has been sent.
    pub(crate) fn has_begun(&self) -> bool {
        lock(&self.state).sent > 0
    }

    /// The next guild was rendered: its GUILD_CREATE takes its place.
    pub(crate) fn announce(&self, guild: u64, data: Option<Bytes>, limits: &Limits) {
        let mut state = lock(&self.state);
        state.pending.retain(|pending| *pending != guild);
        if let Some(data) = data {
            state.append(Bytes::from_static(b"GUILD_CREATE"), data);
            state.trim(limits);
        }
    }

    /// Up to about `bytes` of events for the connection `owner`.
    pub(crate) fn take(&self, owner: u64, bytes: usize) -> Taken {
        let mut state = lock(&self.state);
        if state.owner != Some(owner) {
            return Taken::NotYours;
        }
        if state.sent == state.sequence {
            return state.pending.front().map_or(Taken::Nothing, |guild| Taken::Guild(*guild));
        }
        let first = state.ring.front().map_or(u64::MAX, |entry| entry.sequence);
        let Some(skip) = (state.sent + 1).checked_sub(first) else { return Taken::Lost };
        let mut size = 0;
        let mut batch = Vec::new();
        for entry in state.ring.range(usize::try_from(skip).unwrap_or(usize::MAX).min(state.ring.len())..) {
            batch.push(entry.clone());
            size += entry.data.len();
            if size >= bytes {
                break;
            }
        }
        state.sent = batch.last().map_or(state.sent, |entry| entry.sequence);
        Taken::Events(batch)
    }

    /// A heartbeat carried this sequence.
    pub(crate) fn acknowledge(&self, sequence: u64, limits: &Limits) {
        let mut state = lock(&self.state);
        state.acknowledged = state.acknowledged.max(sequence.min(state.sent));
        state.trim(limits);
    }

    /// The connection takes the session over from sequence `from`; RESUMED goes in behind what is replayed.
    pub(crate) fn resume(
        &self,
        owner: u64,
        from: u64,
        resumed: Bytes,
        limits: &Limits,
    ) -> Result<Option<u64>, ResumeError> {
        let mut state = lock(&self.state);
        if !state.resumable || state.left.is_some_and(|left| left.elapsed() > limits.resume_for()) {
            return Err(ResumeError::Gone);
        }
        if from > state.sequence {
            return Err(ResumeError::Sequence);
        }
        let first = state.ring.front().map_or(state.sequence + 1, |entry| entry.sequence);
        if from + 1 < first {
            return Err(ResumeError::Gone);
        }
        let before = state.owner.replace(owner);
        state.left = None;
        state.sent = from;
        state.resumes += 1;
        state.append(Bytes::from_static(b"RESUMED"), resumed);
        drop(state);
        self.wake.notify_one();
        Ok(before)
    }

    /// The connection `owner` is gone; the session waits for a RESUME.
    pub(crate) fn leave(&self, owner: u64) {
        let mut state = lock(&self.state);
        if state.owner == Some(owner) {
            state.owner = None;
            state.left = Some(Instant::now());
        }
    }

    /// From now on a RESUME gets op 9 false.
    pub(crate) fn forbid_resume(&self) {
        lock(&self.state).resumable = false;
    }

    /// Whether nobody came back in time. Also drops what became too old.
    pub(crate) fn expired(&self, limits: &Limits) -> bool {
        let mut state = lock(&self.state);
        state.trim(limits);
        state.left.is_some_and(|left| left.elapsed() > limits.resume_for())
    }

    /// Connected, latest sequence, resumes so far, events in the buffer.
    pub(crate) fn facts(&self) -> (bool, u64, u64, usize) {
        let state = lock(&self.state);
        (state.owner.is_some(), state.sequence, state.resumes, state.ring.len())
    }
}

impl State {
    fn append(&mut self, name: Bytes, data: Bytes) {
        self.sequence += 1;
        self.bytes += data.len();
        self.ring.push_back(Entry { sequence: self.sequence, name, data, at: Instant::now() });
    }

    /// Events that the connected owner hasn't been sent only fall to the hard bound.
    fn trim(&mut self, limits: &Limits) {
        let age = limits.resume_for();
        while let Some(front) = self.ring.front() {
            let unsent = self.owner.is_some() && front.sequence > self.sent;
            let acknowledged = front.sequence <= self.acknowledged;
            let bounded = match limits.resume_trim {
                Trim::None => false,
                Trim::Count | Trim::Heartbeat if unsent => false,
                Trim::Heartbeat if acknowledged => true,
                Trim::Count | Trim::Heartbeat => {
                    self.ring.len() > limits.resume_count || front.at.elapsed() > age
                }
            };
            if !bounded && self.bytes <= limits.resume_bytes {
                break;
            }
            self.bytes -= front.data.len();
            self.ring.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new("s".into(), [0, 1], u64::MAX, View::default(), 1, VecDeque::new())
    }

    fn push(session: &Session, n: usize, limits: &Limits) {
        for _ in 0..n {
            session.push(None, &Bytes::from_static(b"X"), &Bytes::from_static(b"{}"), limits);
        }
    }

    #[test]
    fn unsent_events_of_a_connected_client_outlive_the_count() {
        let (session, limits) = (session(), Limits { resume_count: 10, ..Limits::default() });
        push(&session, 100, &limits);
        let Taken::Events(events) = session.take(1, usize::MAX) else { panic!("events") };
        assert_eq!(events.len(), 100);
        push(&session, 1, &limits);
        assert_eq!(session.facts().3, 10);
    }

    #[test]
    fn a_disconnected_session_keeps_the_latest_and_refuses_an_older_resume() {
        let (session, limits) = (session(), Limits { resume_count: 10, ..Limits::default() });
        push(&session, 20, &limits);
        session.leave(1);
        push(&session, 5, &limits);
        let resumed = || Bytes::from_static(b"{}");
        assert_eq!(session.resume(2, 14, resumed(), &limits), Err(ResumeError::Gone));
        assert_eq!(session.resume(2, 26, resumed(), &limits), Err(ResumeError::Sequence));
        assert_eq!(session.resume(2, 15, resumed(), &limits), Ok(None));
        let Taken::Events(events) = session.take(2, usize::MAX) else { panic!("events") };
        assert_eq!(events.iter().map(|e| e.sequence).collect::<Vec<_>>(), (16..=26).collect::<Vec<_>>());
        assert_eq!(events[10].name, "RESUMED");
    }

    #[test]
    fn heartbeats_free_the_buffer_only_in_that_mode() {
        for (trim, left) in [(Trim::Heartbeat, 4), (Trim::Count, 10), (Trim::None, 10)] {
            let (session, limits) = (session(), Limits { resume_trim: trim, ..Limits::default() });
            push(&session, 10, &limits);
            session.take(1, usize::MAX);
            session.acknowledge(6, &limits);
            assert_eq!(session.facts().3, left, "{trim:?}");
        }
    }

    #[test]
    fn events_of_a_guild_still_to_be_announced_are_not_sent() {
        let pending = VecDeque::from([5 << 22]);
        let session = Session::new("s".into(), [0, 1], u64::MAX, View::default(), 1, pending);
        let limits = Limits::default();
        session.push(Some(5 << 22), &Bytes::from_static(b"X"), &Bytes::new(), &limits);
        assert!(matches!(session.take(1, 1), Taken::Guild(guild) if guild == 5 << 22));
        session.announce(5 << 22, Some(Bytes::from_static(b"{}")), &limits);
        session.push(Some(5 << 22), &Bytes::from_static(b"X"), &Bytes::new(), &limits);
        assert_eq!(session.facts().1, 2);
    }
}
