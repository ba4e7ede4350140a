// SPDX-License-Identifier: AGPL-3.0-only
//! The client sessions of one shard: who may resume from where, and who takes over from whom.
//!
//! In: IDENTIFY, RESUME, confirmations, the end of connections. Out: positions to go on from. Pure; owned
//! by the shard's core. Detached sessions lapse with time, and the oldest first beyond a count.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    time::Duration,
};

use holdfast_cluster::{ClientRecord, SpreadRecord, StreamId};

use crate::log::Position;

/// A client session, attached to a connection or waiting for its client to come back.
#[derive(Clone)]
pub(crate) struct ClientSession {
    /// Its credential, hashed.
    pub(crate) identity: String,
    /// Name from the connection's query.
    pub(crate) name: Option<String>,
    /// Intents that it identified with.
    pub(crate) intents: u64,
    /// Everything up to here has been written to its connection.
    pub(crate) written: Position,
    /// Everything up to here is confirmed by its heartbeats.
    pub(crate) confirmed: Position,
    /// Sequence of its snapshot's last payload. A client that has it has the whole snapshot, and may resume.
    pub(crate) base: Position,
    /// The position P of its snapshot: what lies between `base` and P is catch-up.
    pub(crate) snapshot: Position,
    /// The upstream session (counted by this process) that its positions belong to.
    pub(crate) epoch: u64,
    /// Member requests under way: our number → the nonce that the client gave.
    pub(crate) requests: BTreeMap<u64, Option<String>>,
    /// For a client with another shard count: what this is a part of.
    pub(crate) spread: Option<SpreadRecord>,
    attached: Option<u64>,
    detached_ms: u64,
}

/// Where a resumed client goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Replay what follows its sequence.
    From,
    /// Its sequence is ahead of the log; upstream's own replay may still bring it.
    Ahead,
    /// Not possible; the client has to identify.
    Impossible,
}

/// Bounds on sessions that nobody is attached to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A detached session lapses after this time.
    pub(crate) expiry: Duration,
    /// At most so many sessions of one shard are kept, attached ones included.
    pub(crate) max: usize,
}

/// All client sessions of a shard by session id.
pub(crate) struct Sessions {
    limits: Limits,
    by_id: HashMap<String, ClientSession>,
    changed: bool,
    /// Places of clients have changed, and nothing else.
    moved: bool,
    resumes: u64,
}

/// What an IDENTIFY begins with.
pub(crate) struct Begun {
    /// The new session's id.
    pub(crate) id: String,
    /// What the client last had, if it takes over from a dead session: catch-up goes from here.
    pub(crate) since: Option<Position>,
    /// Shards of a former count had something for that dead session.
    pub(crate) owed: bool,
}

/// What a new session knows of its client.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) connection: u64,
    pub(crate) identity: String,
    pub(crate) name: Option<String>,
    pub(crate) intents: u64,
    /// Its own shard and shard count.
    pub(crate) shard: [u32; 2],
}

impl ClientSession {
    /// Whether a connection has it.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached.is_some()
    }
}

impl Sessions {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, by_id: HashMap::new(), changed: false, moved: false, resumes: 0 }
    }

    /// Begins a session at position `at`. Takes over the dead session of the same identity that was
    /// detached last. `confirmed`: whether catch-up goes from the last confirmation, not the last write.
    pub(crate) fn identify(
        &mut self,
        client: Client,
        at: Position,
        epoch: u64,
        confirmed: bool,
        now_ms: u64,
    ) -> Begun {
        self.lapse(now_ms);
        let dead = self
            .by_id
            .iter()
            .filter(|(_, session)| session.attached.is_none())
            .filter(|(_, session)| session.identity == client.identity && session.name == client.name)
            .max_by_key(|(_, session)| session.detached_ms)
            .map(|(id, _)| id.clone());
        let dead = dead.and_then(|id| self.by_id.remove(&id));
        let spread = dead.as_ref().and_then(|dead| dead.spread.as_ref());
        let owed = spread.is_some_and(|spread| spread.owed.is_some_and(|until| spread.written < until));
        let since = dead.map(|dead| if confirmed { dead.confirmed } else { dead.written });
        let id = new_session_id(client.shard);
        let reached = since.map_or(at, |since| since.min(at));
        let session = ClientSession {
            identity: client.identity,
            name: client.name,
            intents: client.intents,
            written: reached,
            confirmed: reached,
            snapshot: at,
            base: at,
            epoch,
            requests: BTreeMap::new(),
            spread: None,
            attached: Some(client.connection),
            detached_ms: 0,
        };
        self.by_id.insert(id.clone(), session);
        self.changed = true;
        Begun { id, since: since.filter(|since| *since < at), owed }
    }

    /// Whether `id` can go on behind `sequence`. On `From` and `Ahead` it is attached to `connection`;
    /// a connection that still holds the session loses it.
    pub(crate) fn resume(
        &mut self,
        id: &str,
        identity: &str,
        sequence: Position,
        (oldest, last): (Position, Position),
        epoch: u64,
        connection: u64,
    ) -> Resume {
        let Some(session) = self.by_id.get_mut(id) else { return Resume::Impossible };
        let cut = sequence < session.base;
        if session.identity != identity
            || session.epoch != epoch
            || cut
            || sequence.saturating_add(1) < oldest
        {
            return Resume::Impossible;
        }
        session.attached = Some(connection);
        session.confirmed = session.confirmed.max(sequence.min(last));
        if sequence <= last {
            session.written = sequence;
        }
        self.changed = true;
        self.resumes += 1;
        if sequence > last { Resume::Ahead } else { Resume::From }
    }

    /// A new upstream session begins behind `last`: nobody can have anything beyond it.
    pub(crate) fn new_epoch(&mut self, last: Position) {
        self.changed = true;
        for session in self.by_id.values_mut() {
            session.written = session.written.min(last);
            session.confirmed = session.confirmed.min(last);
        }
    }

    /// The least place that a client's session is at; none without a session.
    pub(crate) fn behind(&self) -> Option<Position> {
        self.by_id.values().map(|session| session.written).min()
    }

    /// Whether a client has this session here alone.
    pub(crate) fn has_whole(&self, session_id: &str) -> bool {
        self.by_id.get(session_id).is_some_and(|session| session.spread.is_none())
    }

    /// What is here of a session, with the id of that: a part of one that is spread over several shards, or the whole.
    pub(crate) fn part_of(&self, session_id: &str) -> Option<(&String, &ClientSession)> {
        if self.has_whole(session_id) {
            return self.by_id.get_key_value(session_id);
        }
        let is_part = |session: &ClientSession| {
            session.spread.as_ref().is_some_and(|spread| spread.session_id == session_id)
        };
        self.by_id.iter().find(|(_, session)| is_part(session))
    }

    /// Whether `connection` still holds the session: another one may have resumed it.
    pub(crate) fn holds(&self, id: &str, connection: u64) -> bool {
        self.by_id.get(id).is_some_and(|session| session.attached == Some(connection))
    }

    /// The session, if `connection` holds it.
    pub(crate) fn held(&mut self, id: &str, connection: u64) -> Option<&mut ClientSession> {
        self.moved = true;
        self.by_id.get_mut(id).filter(|session| session.attached == Some(connection))
    }

    /// The client's connection is gone.
    pub(crate) fn detach(&mut self, id: &str, connection: u64, now_ms: u64) {
        if let Some(session) = self.held(id, connection) {
            session.attached = None;
            session.detached_ms = now_ms;
            self.changed = true;
        }
        self.lapse(now_ms);
    }

    /// The client closed with 1000 or 1001, which ends a session ("Initiating a Disconnect"): it can't be
    /// resumed, but the client's next IDENTIFY still gets what came meanwhile.
    pub(crate) fn end(&mut self, id: &str, connection: u64, now_ms: u64) {
        if let Some(session) = self.held(id, connection) {
            session.base = Position::MAX;
        }
        self.detach(id, connection, now_ms);
    }

    /// Drops a session, as if it had never been.
    pub(crate) fn forget(&mut self, id: &str) {
        self.changed |= self.by_id.remove(id).is_some();
    }

    /// How many resumes there have been: a change tells a connection to look whether it still holds its
    /// session.
    pub(crate) fn resumes(&self) -> u64 {
        self.resumes
    }

    /// Drops what has lapsed. Returns how many sessions did.
    pub(crate) fn lapse(&mut self, now_ms: u64) -> usize {
        let before = self.by_id.len();
        let expiry = u64::try_from(self.limits.expiry.as_millis()).unwrap_or(u64::MAX);
        self.by_id.retain(|_, session| {
            session.attached.is_some() || now_ms.saturating_sub(session.detached_ms) < expiry
        });
        while self.by_id.len() > self.limits.max {
            let oldest = self
                .by_id
                .iter()
                .filter(|(_, session)| session.attached.is_none())
                .min_by_key(|(_, session)| session.detached_ms)
                .map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { break };
            self.by_id.remove(&oldest);
        }
        let lapsed = before - self.by_id.len();
        self.changed |= lapsed > 0;
        lapsed
    }

    /// All sessions by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &ClientSession)> {
        self.by_id.iter()
    }

    /// Number of sessions: attached, detached.
    pub(crate) fn count(&self) -> (usize, usize) {
        let attached = self.by_id.values().filter(|session| session.attached.is_some()).count();
        (attached, self.by_id.len() - attached)
    }

    /// Records to be stored, if a session has begun or ended since the last call; with `places`, also if
    /// clients have only moved on.
    pub(crate) fn records(
        &mut self,
        epoch: u64,
        stream: StreamId,
        places: bool,
    ) -> Option<Vec<ClientRecord>> {
        if !(self.changed || places && self.moved) {
            return None;
        }
        self.changed = false;
        self.moved = false;
        let stream = |session: &ClientSession| (session.epoch == epoch).then_some(stream);
        Some(self.by_id.iter().map(|(id, session)| record(id, session, stream(session))).collect())
    }

    /// Takes stored records in, all detached. Those of `stream` belong to `epoch`, others can only be taken over.
    pub(crate) fn restore(
        &mut self,
        records: Vec<ClientRecord>,
        stream: Option<StreamId>,
        epoch: u64,
        now_ms: u64,
    ) {
        for record in records {
            let current = stream.is_some() && record.stream == stream;
            let session = ClientSession {
                identity: record.identity,
                name: record.name,
                intents: record.intents,
                written: record.written,
                confirmed: record.confirmed,
                snapshot: record.snapshot,
                base: record.base,
                epoch: if current { epoch } else { LOST_EPOCH },
                requests: record.requests.into_iter().collect(),
                spread: record.spread,
                attached: None,
                detached_ms: record.disconnected_unix_ms.unwrap_or(now_ms),
            };
            self.by_id.insert(record.session_id, session);
        }
        self.lapse(now_ms);
    }
}

fn record(id: &str, session: &ClientSession, stream: Option<StreamId>) -> ClientRecord {
    ClientRecord {
        session_id: id.to_owned(),
        identity: session.identity.clone(),
        name: session.name.clone(),
        intents: session.intents,
        written: session.written,
        confirmed: session.confirmed,
        snapshot: session.snapshot,
        base: session.base,
        stream,
        disconnected_unix_ms: session.attached.is_none().then_some(session.detached_ms),
        requests: session.requests.iter().map(|(number, nonce)| (*number, nonce.clone())).collect(),
        spread: session.spread.clone(),
    }
}

/// The epoch of sessions whose upstream session is lost: no other is ever this high.
const LOST_EPOCH: u64 = u64::MAX;

/// 128 random bits, and the client's shard and shard count: whoever holds the id and the credential may resume, at
/// whatever connection, at whatever replica, whatever our count of shards is by then.
pub(crate) fn new_session_id([shard, count]: [u32; 2]) -> String {
    let mut bytes = [0_u8; 16];
    if rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).is_err() {
        fastrand::fill(&mut bytes);
    }
    let mut id = String::with_capacity(ID_LEN);
    for byte in bytes {
        let _ = write!(id, "{byte:02x}");
    }
    let _ = write!(id, "{shard:08x}{count:08x}");
    id
}

const ID_LEN: usize = 48;

/// Shard and shard count of the client that a session id was given to.
pub(crate) fn client_of_session(id: &str) -> Option<[u32; 2]> {
    let number = |range| u32::from_str_radix(id.get(range)?, 16).ok();
    let (shard, count) = (number(32..40)?, number(40..ID_LEN)?);
    (id.len() == ID_LEN && shard < count).then_some([shard, count])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_resumes_where_it_was() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        sessions.detach(&id, 1, 1_000);
        assert_eq!(resume(&mut sessions, &id, 12, 2), Resume::From);
        assert!(sessions.holds(&id, 2));
        assert_eq!(client_of_session(&id), Some([7, 8]));
        assert_eq!(client_of_session(&new_session_id([8, 8])), None);
        assert_eq!(client_of_session("ä"), None);
    }

    #[test]
    fn a_cut_snapshot_is_not_resumed_but_a_cut_catch_up_is() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        sessions.held(&id, 1).unwrap().base = 6;
        sessions.detach(&id, 1, 1_000);
        assert_eq!(resume(&mut sessions, &id, 5, 2), Resume::Impossible);
        assert_eq!(resume(&mut sessions, &id, 6, 2), Resume::From);
        assert_eq!(resume(&mut sessions, &id, 8, 2), Resume::From);
    }

    #[test]
    fn a_resume_from_before_the_snapshot_or_beyond_the_log_is_impossible() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        assert_eq!(resume(&mut sessions, &id, 9, 2), Resume::Impossible);
        assert_eq!(
            sessions.resume(&id, "token", 12, (14, 20), 0, 2),
            Resume::Impossible,
            "13 has fallen off the log"
        );
        assert_eq!(sessions.resume(&id, "token", 13, (14, 20), 0, 2), Resume::From);
        assert_eq!(sessions.resume(&id, "token", 21, (14, 20), 0, 2), Resume::Ahead);
    }

    #[test]
    fn a_session_that_its_client_closed_is_taken_over_but_not_resumed() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        sessions.end(&id, 1, 1_000);
        assert_eq!(resume(&mut sessions, &id, 12, 2), Resume::Impossible);
        assert_eq!(begin(&mut sessions, 2, 40).since, Some(10));
    }

    #[test]
    fn only_the_same_identity_and_upstream_session_may_resume() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        assert_eq!(sessions.resume(&id, "other", 12, (2, 20), 0, 2), Resume::Impossible);
        assert_eq!(sessions.resume(&id, "token", 12, (2, 20), 1, 2), Resume::Impossible);
        assert_eq!(sessions.resume("unknown", "token", 12, (2, 20), 0, 2), Resume::Impossible);
    }

    #[test]
    fn an_identify_takes_over_from_the_dead_session_of_its_identity() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        let session = sessions.held(&id, 1).unwrap();
        (session.written, session.confirmed) = (30, 20);
        sessions.detach(&id, 1, 1_000);
        assert_eq!(begin(&mut sessions, 2, 40).since, Some(30));
        assert_eq!(begin(&mut sessions, 3, 40).since, None, "the dead one is taken, the other lives");
    }

    #[test]
    fn a_name_tells_clients_of_one_credential_apart() {
        let mut sessions = sessions();
        let named = |connection, name: &str| Client { name: Some(name.into()), ..client(connection) };
        let id = sessions.identify(named(1, "a"), 10, 0, false, 0).id;
        sessions.detach(&id, 1, 1_000);
        assert_eq!(sessions.identify(named(2, "b"), 40, 0, false, 2_000).since, None);
        assert_eq!(sessions.identify(named(3, "a"), 40, 0, false, 2_000).since, Some(10));
    }

    #[test]
    fn catch_up_can_go_from_the_last_confirmation() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        let session = sessions.held(&id, 1).unwrap();
        (session.written, session.confirmed) = (30, 20);
        sessions.detach(&id, 1, 1_000);
        assert_eq!(sessions.identify(client(2), 40, 0, true, 2_000).since, Some(20));
    }

    #[test]
    fn a_take_over_that_is_cut_hands_its_claim_on() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        sessions.detach(&id, 1, 1_000);
        let cut = begin(&mut sessions, 2, 40);
        sessions.detach(&cut.id, 2, 2_000);
        assert_eq!(begin(&mut sessions, 3, 50).since, Some(10));
    }

    #[test]
    fn detached_sessions_lapse_by_time_and_count() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        sessions.detach(&id, 1, 0);
        assert_eq!(sessions.lapse(59_999), 0);
        assert_eq!(sessions.lapse(60_000), 1);
        for connection in 0..5 {
            let client = Client { identity: format!("bot {connection}"), ..client(connection) };
            let id = sessions.identify(client, 1, 0, false, 0).id;
            sessions.detach(&id, connection, connection);
        }
        assert_eq!(sessions.count(), (0, 3));
    }

    #[test]
    fn records_bring_sessions_back() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        let records = sessions.records(0, STREAM, true).unwrap();
        assert!(sessions.records(0, STREAM, true).is_none(), "nothing has changed");
        let mut restored = self::sessions();
        restored.restore(records.clone(), Some(STREAM), 7, 6_000);
        assert_eq!(restored.resume(&id, "token", 12, (2, 20), 7, 2), Resume::From);
        // Of a stream that has ended: to be taken over, not to be resumed.
        let mut lost = self::sessions();
        lost.restore(records, Some(StreamId::from_number(8)), 7, 6_000);
        assert_eq!(lost.resume(&id, "token", 12, (2, 20), 7, 2), Resume::Impossible);
        assert_eq!(begin(&mut lost, 3, 40).since, Some(10));
    }

    #[test]
    fn nobody_has_what_a_lost_session_never_brought() {
        let mut sessions = sessions();
        let id = begin(&mut sessions, 1, 10).id;
        assert_eq!(resume(&mut sessions, &id, 90, 2), Resume::Ahead);
        sessions.held(&id, 2).unwrap().written = 90;
        sessions.new_epoch(20);
        sessions.detach(&id, 2, 1_000);
        assert_eq!(begin(&mut sessions, 3, 40).since, Some(20));
    }

    const STREAM: StreamId = StreamId::from_number(9);

    fn sessions() -> Sessions {
        Sessions::new(Limits { expiry: Duration::from_secs(60), max: 3 })
    }

    fn client(connection: u64) -> Client {
        Client { connection, identity: "token".into(), name: None, intents: 0, shard: [7, 8] }
    }

    fn begin(sessions: &mut Sessions, connection: u64, at: Position) -> Begun {
        sessions.identify(client(connection), at, 0, false, 1_500)
    }

    fn resume(sessions: &mut Sessions, id: &str, sequence: Position, connection: u64) -> Resume {
        sessions.resume(id, "token", sequence, (2, 20), 0, connection)
    }
}
