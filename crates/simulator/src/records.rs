// SPDX-License-Identifier: AGPL-3.0-only
//! What clients did, to be read back by tests.
//!
//! In: every payload and request received, every offence. Out: copies of them. Bounded: the oldest go, counted.
use std::collections::VecDeque;

use serde::Serialize;
use serde_json::Value;

/// Payloads kept; at some 300 bytes each, 30 MB.
const PAYLOADS: usize = 100_000;
/// Requests and violations kept.
const OTHERS: usize = 10_000;

/// A payload that a client sent.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Milliseconds since the simulator's start.
    pub at_ms: u64,
    /// Number of the connection, from 1.
    pub connection: u64,
    /// The shard, once it identified or resumed.
    pub shard: Option<[u32; 2]>,
    /// Opcode; `None` when the payload had none.
    pub op: Option<u64>,
    /// Its data, the token masked.
    pub d: Value,
    /// Size of the payload as sent.
    pub bytes: usize,
}

/// A REST request.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// Milliseconds since the simulator's start.
    pub at_ms: u64,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The route that it belongs to, such as `GET /users/{user_id}`; `None` if Discord has no such route.
    pub route: Option<String>,
    /// Status that was answered.
    pub status: u16,
    /// Its header `traceparent`; empty without one.
    pub trace: String,
}

/// Something a client did that Discord punishes or asks not to do.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Milliseconds since the simulator's start.
    pub at_ms: u64,
    /// Number of the connection.
    pub connection: u64,
    /// The shard, when known.
    pub shard: Option<[u32; 2]>,
    /// A short name: `close_4008`, `identify_too_early`, `resume_url`, ….
    pub kind: String,
    /// What exactly.
    pub detail: String,
}

/// A list that forgets its oldest.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    list: VecDeque<T>,
    cap: usize,
    /// How many were forgotten.
    pub(crate) forgotten: u64,
}

impl<T: Clone> Kept<T> {
    fn new(cap: usize) -> Self {
        Self { list: VecDeque::new(), cap, forgotten: 0 }
    }

    pub(crate) fn push(&mut self, item: T) {
        if self.list.len() == self.cap {
            self.list.pop_front();
            self.forgotten += 1;
        }
        self.list.push_back(item);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.list.iter()
    }

    pub(crate) fn to_vec(&self) -> Vec<T> {
        self.list.iter().cloned().collect()
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.forgotten = 0;
    }
}

/// All that was recorded.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) payloads: Kept<Record>,
    pub(crate) requests: Kept<Request>,
    pub(crate) violations: Kept<Violation>,
}

impl Default for Records {
    fn default() -> Self {
        Self { payloads: Kept::new(PAYLOADS), requests: Kept::new(OTHERS), violations: Kept::new(OTHERS) }
    }
}

impl Records {
    pub(crate) fn clear(&mut self) {
        self.payloads.clear();
        self.requests.clear();
        self.violations.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_counted() {
        let mut kept = Kept::new(2);
        (1..=5).for_each(|n| kept.push(n));
        assert_eq!((kept.to_vec(), kept.forgotten), (vec![4, 5], 3));
    }
}
