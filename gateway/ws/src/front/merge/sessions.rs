// SPDX-License-Identifier: AGPL-3.0-only
//! The sessions of clients whose shard count isn't ours, by session id: what RESUME goes by.
//!
//! In: sessions that begin, end, are asked for. Out: their places. Kept in memory: after a restart the client's records
//! at our shards, which are stored, say where it was. Sessions without a client lapse with time, and the oldest first
//! beyond a count.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use holdfast_cluster::ShardId;

use super::{Part, bell::Bell, places::Places};
use crate::{
    log::Position,
    shard::{Hub, SessionLimits, unix_ms},
};

/// All of them.
pub(crate) struct Sessions {
    limits: SessionLimits,
    by_id: Mutex<HashMap<String, Arc<Session>>>,
}

/// One client's session.
pub(super) struct Session {
    pub(super) id: String,
    pub(super) credential: String,
    /// The client's shard and shard count.
    pub(super) client: [u32; 2],
    /// Name from the connection's query.
    pub(super) name: Option<String>,
    pub(super) intents: u64,
    state: Mutex<State>,
}

/// A client's record at one of our shards, here or at another replica.
pub(super) struct Record {
    pub(super) shard: ShardId,
    /// Where the log ends of a shard of a former count.
    pub(super) end: Option<Position>,
}

/// What of a session changes. Its lock is taken before a shard's, never after it.
pub(super) struct State {
    /// The connection that has it.
    pub(super) connection: Option<u64>,
    /// The lowest of its shards, at whose owner it is merged. When that is another's for a while, the session may go on
    /// there, and what is known of it here is old.
    home: Weak<Hub>,
    /// Wakes that connection.
    pub(super) bell: Arc<Bell>,
    pub(super) detached_ms: u64,
    pub(super) places: Places,
    /// By leg, those at shards of a former count first.
    pub(super) records: Vec<Record>,
}

impl State {
    /// Of a session that no connection has yet, whose client goes on behind these places.
    pub(super) fn new(bell: &Arc<Bell>, places: Places, records: Vec<Record>) -> Self {
        let (connection, bell, detached_ms) = (None, Arc::clone(bell), unix_ms());
        Self { connection, home: Weak::new(), bell, detached_ms, places, records }
    }

    /// A connection has it from now on.
    pub(super) fn attach(&mut self, part: &Part, connection: u64, bell: &Arc<Bell>) {
        self.connection = Some(connection);
        self.home = part.home().map_or_else(Weak::new, Arc::downgrade);
        self.bell = Arc::clone(bell);
    }

    /// The connection that has it loses it, and looks when it is woken.
    pub(super) fn detach(&mut self) {
        self.connection = None;
        self.detached_ms = unix_ms();
        self.bell.wake();
    }

    /// How many of its shards are of a former count.
    pub(super) fn retired(&self) -> usize {
        self.records.partition_point(|record| record.end.is_some())
    }

    /// Its records at shards of the count that was current when it was last begun or resumed.
    pub(super) fn latest(&self) -> &[Record] {
        &self.records[self.retired()..]
    }

    /// Whether these are the shards that served it last.
    pub(super) fn is_at(&self, shards: impl Iterator<Item = ShardId>) -> bool {
        let latest = self.latest();
        !latest.is_empty() && latest.iter().map(|record| record.shard).eq(shards)
    }

    /// Whether it can't have gone on anywhere else: its lowest shard was here all the time.
    pub(super) fn is_at_home(&self, part: &Part) -> bool {
        part.home().is_some_and(|hub| Arc::as_ptr(hub) == self.home.as_ptr())
    }
}

impl Session {
    pub(super) fn new(
        id: String,
        credential: String,
        client: [u32; 2],
        (name, intents): (Option<String>, u64),
        state: State,
    ) -> Arc<Self> {
        Arc::new(Self { id, credential, client, name, intents, state: Mutex::new(state) })
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

    pub(super) fn get(&self, id: &str) -> Option<Arc<Session>> {
        self.all().get(id).cloned()
    }

    pub(super) fn add(&self, session: &Arc<Session>, now_ms: u64) {
        let mut all = self.all();
        lapse(&mut all, &self.limits, now_ms);
        all.insert(session.id.clone(), Arc::clone(session));
    }

    pub(in crate::front) fn remove(&self, id: &str) {
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
