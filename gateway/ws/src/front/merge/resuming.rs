// SPDX-License-Identifier: AGPL-3.0-only
//! How a client of another shard count resumes its session, or one of our count a session from before that changed.
//!
//! In: RESUME. Out: legs with the positions to go on from. Where our count has changed since, what the client hasn't got
//! of the former shards comes first, then everything of the current ones: these begin where those have ended.

use std::sync::Arc;

use super::{
    Part,
    bell::Bell,
    identity_at,
    leg::Leg,
    opening::Opened,
    places::{MAX_LEGS, Places},
    pump::Stage,
    retired,
    sessions::{Record, Session, State},
};
use crate::{
    front::{Front, identify::Resume, opening::identity, source::Wants},
    log::Position,
    shard::{Hub, Identified, Resumed, unix_ms},
};

/// None: this can't be resumed.
pub(super) fn resumed(
    front: &Front,
    part: &Part,
    resume: &Resume,
    connection: u64,
    bell: &Arc<Bell>,
) -> Option<Opened> {
    let credential = identity(&resume.token);
    let former = retired::of(front, part.share);
    // One that was begun at a shard that has left since isn't of this part any more.
    let known = front.merged.get(&resume.session_id).filter(|session| {
        let state = session.state();
        session.client == part.share.client() && (state.is_at(&part.hubs) || state.is_at(&former))
    });
    let session = known.or_else(|| stored(front, part, &former, resume, &credential, bell))?;
    if session.credential != credential {
        return None;
    }
    let mut state = session.state();
    let at = state.places.at(resume.sequence)?;
    // Whoever had it loses it, and looks when it is woken.
    state.connection = None;
    state.bell.wake();
    let goes_over = !state.is_at(&part.hubs);
    if goes_over {
        retire(&mut state, &former, part)?;
    }
    let (mut legs, mut until): (Vec<_>, Vec<_>) =
        attach(&session, &state, &at, connection)?.into_iter().unzip();
    for hub in part.hubs.iter().filter(|_| goes_over) {
        let (leg, end, record) = join(hub, &session, connection)?;
        state.places.extend(&[leg.cursor]);
        legs.push(leg);
        until.push(end);
        state.records.push(record);
    }
    state.places.rewind(resume.sequence);
    state.connection = Some(connection);
    state.bell = Arc::clone(bell);
    drop(state);
    front.merged.add(&session, unix_ms());
    front.metrics.client_resumes.inc();
    let own_user = part.hubs.first()?.core().ready.as_ref().map_or(0, |ready| ready.user);
    Some(Opened {
        stage: Stage::Replay(until),
        intents: session.intents,
        wants: Wants { intents: session.intents, own_user },
        large_threshold: 50,
        compress: None,
        shard: None,
        session: Some(session),
        legs,
    })
}

/// The session as the shards' records have it: those of the current shards after a restart, those of the former ones if
/// it hasn't been resumed since the count changed.
fn stored(
    front: &Front,
    part: &Part,
    former: &[Arc<Hub>],
    resume: &Resume,
    credential: &str,
    bell: &Arc<Bell>,
) -> Option<Arc<Session>> {
    let session = |hubs| from_records(front, part.share.client(), hubs, resume, credential, bell);
    session(&part.hubs[..])
        .or_else(|| session(former))
        .or_else(|| direct(front, former, resume, credential, bell))
}

/// The session whose parts these shards have. Each knows for two sequences what they stand for, the last one noted and the
/// last one confirmed; a client that has more gets some events again.
fn from_records(
    front: &Front,
    client: [u32; 2],
    hubs: &[Arc<Hub>],
    resume: &Resume,
    credential: &str,
    bell: &Arc<Bell>,
) -> Option<Arc<Session>> {
    let (mut records, mut at) = (Vec::new(), Vec::new());
    let mut known_as = None;
    for hub in hubs {
        let core = hub.core();
        let (id, record) = core.sessions.part_of(&resume.session_id)?;
        let spread = record.spread.as_ref()?;
        at.push(match resume.sequence {
            sequence if sequence >= spread.written => record.written,
            sequence if sequence >= spread.confirmed => record.confirmed,
            _ => return None,
        });
        if record.identity != identity_at(credential, client, hub.total) {
            return None;
        }
        known_as = Some((record.name.clone(), record.intents));
        records.push(Record {
            hub: Arc::downgrade(hub),
            id: id.clone(),
            epoch: record.epoch,
            snapshot: record.snapshot,
            end: None,
        });
    }
    let places = Places::new(front.settings.resume_window, resume.sequence, at);
    let state = State::new(bell, places, records);
    let id = resume.session_id.clone();
    Some(Session::new(id, credential.to_owned(), client, known_as?, state))
}

/// The session that a client of the former count had at the shard of its number: its sequences are positions there.
fn direct(
    front: &Front,
    former: &[Arc<Hub>],
    resume: &Resume,
    credential: &str,
    bell: &Arc<Bell>,
) -> Option<Arc<Session>> {
    let [hub] = former else { return None };
    let client = [hub.shard, hub.total];
    let records = retired::records(hub);
    let record = records.iter().find(|record| record.session_id == resume.session_id)?;
    if record.spread.is_some() || record.identity != identity_at(credential, client, hub.total) {
        return None;
    }
    let epoch = hub.core().epoch;
    let own = Record {
        hub: Arc::downgrade(hub),
        id: record.session_id.clone(),
        epoch,
        snapshot: record.snapshot,
        end: None,
    };
    let places = Places::new(front.settings.resume_window, resume.sequence, vec![resume.sequence]);
    let state = State::new(bell, places, vec![own]);
    let known_as = (record.name.clone(), record.intents);
    Some(Session::new(record.session_id.clone(), credential.to_owned(), client, known_as, state))
}

/// The session's shards are of a former count from now on. None: it can't go on at those of the part.
fn retire(state: &mut State, former: &[Arc<Hub>], part: &Part) -> Option<()> {
    let fits = state.records.len() + part.hubs.len() <= MAX_LEGS;
    if !fits || !part.hubs.iter().all(|hub| is_whole(hub)) {
        return None;
    }
    let first = state.retired();
    for (record, hub) in state.records[first..].iter_mut().zip(former) {
        record.end = Some(hub.core().log.last());
    }
    Some(())
}

/// Whether everything is there since the shard took over from one of a former count.
fn is_whole(hub: &Hub) -> bool {
    let core = hub.core();
    let beginning = retired::beginning(&core);
    core.log.oldest() <= beginning + 1 && core.gap.is_none_or(|gap| gap.from <= beginning)
}

/// Takes the client's record at each of its shards, to go on behind these positions. None: one of them can't be gone on
/// from, and the client has to identify.
fn attach(
    session: &Session,
    state: &State,
    at: &[Position],
    connection: u64,
) -> Option<Vec<(Leg, Position)>> {
    let each = state.records.iter().zip(at);
    let legs: Option<Vec<_>> =
        each.map(|(record, position)| leg(session, record, *position, connection)).collect();
    if legs.is_none() {
        // Those before it wait for the client's IDENTIFY again.
        for record in &state.records {
            if let Some(hub) = record.hub.upgrade() {
                hub.core().sessions.detach(&record.id, connection, unix_ms());
            }
        }
    }
    legs
}

/// A leg that goes on behind a position, and where the log ends.
fn leg(session: &Session, record: &Record, position: Position, connection: u64) -> Option<(Leg, Position)> {
    let Some(hub) = record.hub.upgrade() else {
        // The shard is of no use any more to who has everything of it.
        let end = record.end.filter(|end| position >= *end)?;
        return Some((Leg::over(end), end));
    };
    let mut core = hub.core();
    let (reach, epoch) = (core.reach(), core.epoch);
    // Upstream's own replay may have to bring it there first; a log that has ended gets nothing any more.
    if epoch != record.epoch || record.end.is_some_and(|end| position > end) {
        return None;
    }
    let identity = identity_at(&session.credential, session.client, hub.total);
    let outcome = core.sessions.resume(&record.id, &identity, position, reach, epoch, connection);
    if outcome == Resumed::Impossible {
        return None;
    }
    let held = core.sessions.held(&record.id, connection)?;
    let requests = held.requests.clone();
    if record.end.is_some() {
        held.spread = Some(retired::unsettled(&session.id, session.client));
    }
    drop(core);
    let mut leg = Leg::new(hub, record.id.clone(), epoch, record.snapshot, position);
    (leg.end, leg.requests) = (record.end, requests);
    Some((leg, reach.1.max(position)))
}

/// Makes the client known at a shard of a new count, of which it has nothing yet.
fn join(hub: &Arc<Hub>, session: &Session, connection: u64) -> Option<(Leg, Position, Record)> {
    let mut core = hub.core();
    let (epoch, end) = (core.epoch, core.log.last());
    let client = Identified {
        connection,
        // Nobody else's: another client's dead session isn't to be taken over.
        identity: session.id.clone(),
        name: session.name.clone(),
        intents: session.intents,
    };
    let begin = retired::beginning(&core);
    let id = core.sessions.identify(client, begin, epoch, false, unix_ms()).id;
    let record = core.sessions.held(&id, connection)?;
    record.identity = identity_at(&session.credential, session.client, hub.total);
    record.spread = Some(retired::unsettled(&session.id, session.client));
    core.save_clients(true);
    drop(core);
    let leg = Leg::new(Arc::clone(hub), id.clone(), epoch, begin, begin);
    Some((leg, end, Record { hub: Arc::downgrade(hub), id, epoch, snapshot: begin, end: None }))
}
