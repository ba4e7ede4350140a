// SPDX-License-Identifier: AGPL-3.0-only
//! The sessions of clients whose shard count isn't ours, by session id: what RESUME goes by.
//!
//! In: sessions that begin, end, are asked for. Out: their places. Kept in memory: after a restart the client's records
//! at our shards, which are stored, say where it was. Sessions without a client lapse with time, and the oldest first
//! beyond a count.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Part, bell::Bell, places::Places};
use crate::{log::Position, shard::SessionLimits};

/// All of them.
pub(crate) struct Sessions {
    limits: SessionLimits,
    by_id: Mutex<HashMap<String, Arc<Session>>>,
}

/// One client's session.
pub(super) struct Session {
    pub(super) id: String,
    /// As at our shards: credential and shard.
    pub(super) identity: String,
    pub(super) intents: u64,
    pub(super) part: Part,
    /// By leg: the client's record at the shard.
    pub(super) records: Vec<Record>,
    state: Mutex<State>,
}

/// A client's record at one of our shards.
pub(super) struct Record {
    pub(super) id: String,
    pub(super) epoch: u64,
    /// Position of the client's snapshot.
    pub(super) snapshot: Position,
}

/// What of a session changes. Its lock is taken before a shard's, never after it.
pub(super) struct State {
    /// The connection that has it.
    pub(super) connection: Option<u64>,
    /// Wakes that connection.
    pub(super) bell: Arc<Bell>,
    pub(super) detached_ms: u64,
    pub(super) places: Places,
}

impl Session {
    pub(super) fn new(
        id: String,
        identity: String,
        intents: u64,
        part: Part,
        records: Vec<Record>,
        state: State,
    ) -> Self {
        Self { id, identity, intents, part, records, state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if `connection` has the session.
    pub(super) fn held(&self, connection: u64) -> Option<MutexGuard<'_, State>> {
        Some(self.state()).filter(|state| state.connection == Some(connection))
    }
}

impl Sessions {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self { limits, by_id: Mutex::new(HashMap::new()) }
    }

    /// What serves the session's client.
    pub(crate) fn part(&self, id: &str) -> Option<Part> {
        self.get(id).map(|session| session.part.clone())
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Session>> {
        self.all().get(id).cloned()
    }

    pub(super) fn add(&self, session: &Arc<Session>, now_ms: u64) {
        let mut all = self.all();
        lapse(&mut all, &self.limits, now_ms);
        all.insert(session.id.clone(), Arc::clone(session));
    }

    pub(super) fn remove(&self, id: &str) {
        self.all().remove(id);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops sessions that nobody has had for too long, and makes room for one more.
fn lapse(all: &mut HashMap<String, Arc<Session>>, limits: &SessionLimits, now_ms: u64) {
    let expiry = u64::try_from(limits.expiry.as_millis()).unwrap_or(u64::MAX);
    all.retain(|_, session| {
        let state = session.state();
        state.connection.is_some() || now_ms.saturating_sub(state.detached_ms) < expiry
    });
    if all.len() < limits.max {
        return;
    }
    let detached = all.iter().filter_map(|(id, session)| {
        let state = session.state();
        state.connection.is_none().then(|| (state.detached_ms, id.clone()))
    });
    if let Some((_, oldest)) = detached.min() {
        all.remove(&oldest);
    }
}
