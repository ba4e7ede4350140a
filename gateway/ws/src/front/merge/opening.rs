// SPDX-License-Identifier: AGPL-3.0-only
//! How a client of another shard count begins its session, or resumes it.
//!
//! In: IDENTIFY or RESUME. Out: legs with the positions to go on from. At each of its shards the client has a record,
//! stored like those of other clients: from there catch-up goes after a restart of the bot, RESUME after one of ours.

use std::sync::Arc;

use holdfast_cluster::SpreadRecord;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Part,
    bell::{Bell, Pulls},
    leg::{Batch, Leg},
    places::Places,
    pump::{Merge, Stage},
    sessions::{Record, Session, State},
    snapshot::Snapshot,
};
use crate::{
    front::{
        Front,
        client::{Client, view},
        commands,
        identify::{Identify, Resume},
        link::{About, Link},
        opening::{Opening, identity},
        pump::Stopped,
        source::{GAP, Wants, gap_marker},
    },
    log::Position,
    shard::{Command, Core, Hub, Identified, Priority, Resumed, unix_ms},
};

/// Opens a client's session. Err: the client wanted to resume what can't be; the link is given back.
pub(in crate::front) fn open(
    front: &Arc<Front>,
    part: Part,
    link: Box<Link>,
    opening: Opening,
) -> Result<Client<Box<Merge>>, Box<Link>> {
    let bell = Bell::new(part.hubs.len());
    // Before anything is looked at, so that no wake is missed.
    let pulls = Pulls::new(&bell, &part.hubs);
    let opened = match opening {
        Opening::Identify(identify) => Ok(identified(front, &part, &link.about, identify)),
        Opening::Resume(resume) => resumed(front, &part, &resume, link.about.number, &bell).ok_or(()),
    };
    let Ok(opened) = opened else {
        front.metrics.resumes_refused.inc();
        return Err(link);
    };
    let Link { reading, mut writing, about } = *link;
    if let Some(compress) = opened.compress {
        writing.out.compress_payloads(compress);
    }
    let merge = Merge {
        front: Arc::clone(front),
        writing,
        stage: opened.stage,
        wants: opened.wants,
        view: view(opened.intents, opened.large_threshold),
        shard: opened.shard,
        connection: about.number,
        session: opened.session,
        legs: opened.legs,
        bell,
        batch: Batch::default(),
        reading: 0,
        ended: None,
        pulls: Some(pulls),
        part,
    };
    Ok(Client::new(front, reading, about, Box::new(merge)))
}

/// What a client opens with.
struct Opened {
    stage: Stage,
    intents: u64,
    wants: Wants,
    large_threshold: u32,
    compress: Option<bool>,
    shard: Option<[u32; 2]>,
    session: Option<Arc<Session>>,
    legs: Vec<Leg>,
}

fn identified(front: &Front, part: &Part, about: &About, identify: Identify) -> Opened {
    front.note_intents(identify.intents);
    if let Some(presence) = identify.presence.filter(|_| front.settings.forward_identify_presence) {
        // Discord doesn't close a client for a presence in IDENTIFY that it can't use.
        if let Ok(payload) = commands::presence_payload(Value::Object(presence)) {
            for hub in &*part.hubs {
                hub.core().presence = Some(payload.clone());
                hub.command(Command::new(about.number, Priority::Normal, payload.clone()));
            }
        }
    }
    let client = Identified {
        connection: about.number,
        identity: part.identity(&identity(&identify.token)),
        name: about.query.name.clone(),
        intents: identify.intents,
    };
    Opened {
        stage: Stage::AwaitReady(client),
        intents: identify.intents,
        wants: Wants { intents: identify.intents, own_user: 0 },
        large_threshold: identify.large_threshold,
        compress: Some(identify.compress),
        shard: identify.shard,
        session: None,
        legs: Vec::new(),
    }
}

/// Begins the session as soon as all shards have READY. False: not yet.
pub(super) fn begin(merge: &mut Merge) -> Result<bool, Stopped> {
    let hubs = Arc::clone(&merge.part.hubs);
    // A shard that has had READY once always has one.
    if hubs.iter().any(|hub| hub.core().ready.is_none()) {
        return Ok(false);
    }
    let front = Arc::clone(&merge.front);
    let Stage::AwaitReady(client) = &merge.stage else { return Ok(true) };
    front.metrics.client_identifies.inc();
    let (mut shards, mut further, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let (mut legs, mut caught_up) = (Vec::new(), false);
    for hub in &*hubs {
        let mut core = hub.core();
        let Some(at) = core.at_end() else { return Err(Stopped::Gone) };
        let begun = front.begin(&mut core, client.clone(), at.position);
        let from = begun.since.unwrap_or(at.position);
        if let Some(record) = core.sessions.held(&begun.id, client.connection) {
            record.base = from;
        }
        further.extend(voice_of(merge, hub, &core));
        if let (Some(since), Some(gap)) = (begun.since, core.gap)
            && since <= gap.from
        {
            // It was away when Discord began a new session: catch-up goes over the gap.
            further.push((GAP, gap_marker(gap.stream, gap.from, gap.to)));
        }
        caught_up |= begun.since.is_some();
        legs.push(Leg::new(Arc::clone(hub), begun.id.clone(), core.epoch, at.position, from));
        records.push(Record { id: begun.id, epoch: core.epoch, snapshot: at.position });
        shards.push(at);
    }
    if caught_up {
        front.metrics.catch_ups.inc();
    }
    let snapshot = Snapshot::new(merge.part.share, client.intents, &shards, further).ok_or(Stopped::Gone)?;
    merge.wants.own_user = snapshot.user();
    merge.view.own_user = snapshot.user();
    let from = legs.iter().map(|leg| leg.cursor).collect();
    let state = State {
        connection: Some(merge.connection),
        bell: Arc::clone(&merge.bell),
        detached_ms: 0,
        places: Places::new(front.settings.resume_window, snapshot.len(), from),
    };
    // The lowest shard's id stands for all: whoever holds it and the credential may resume.
    let id = records.first().map(|record| record.id.clone()).unwrap_or_default();
    spread(
        &legs,
        client,
        &SpreadRecord {
            session_id: id.clone(),
            shard: [merge.part.share.shard, merge.part.share.count],
            written: snapshot.len(),
            confirmed: snapshot.len(),
        },
    );
    let (identity, part) = (client.identity.clone(), merge.part.clone());
    let session = Arc::new(Session::new(id, identity, client.intents, part, records, state));
    front.merged.add(&session, unix_ms());
    merge.session = Some(session);
    merge.legs = legs;
    merge.stage = Stage::Snapshot(Box::new(snapshot));
    Ok(true)
}

/// The credentials of voice connections in the client's guilds.
fn voice_of(merge: &Merge, hub: &Hub, core: &Core) -> Vec<(&'static str, Vec<u8>)> {
    #[derive(Deserialize)]
    struct InGuild<'a> {
        #[serde(borrow)]
        guild_id: &'a str,
    }
    let mut voice = merge.front.voice_again(hub, core);
    voice.retain(|(_, data)| {
        let guild =
            serde_json::from_slice::<InGuild<'_>>(data).ok().and_then(|event| event.guild_id.parse().ok());
        guild.is_some_and(|guild| merge.part.share.holds(guild))
    });
    voice
}

/// Tells each shard's record what it is a part of, and has it stored.
fn spread(legs: &[Leg], client: &Identified, spread: &SpreadRecord) {
    for leg in legs {
        let mut core = leg.hub.core();
        if let Some(record) = core.sessions.held(&leg.record, client.connection) {
            record.spread = Some(spread.clone());
        }
        core.save_clients(true);
    }
}

/// None: this can't be resumed.
fn resumed(front: &Front, part: &Part, resume: &Resume, connection: u64, bell: &Arc<Bell>) -> Option<Opened> {
    // One that was begun at a shard that has left since isn't of this part any more.
    let known = front.merged.get(&resume.session_id).filter(|session| session.part.is(part));
    let session = known.or_else(|| stored(front, part, resume, bell))?;
    if session.identity != session.part.identity(&identity(&resume.token)) {
        return None;
    }
    let mut state = session.state();
    let at = state.places.at(resume.sequence)?;
    // Whoever had it loses it, and looks when it is woken.
    state.connection = None;
    state.bell.wake();
    let (legs, until) = attach(&session, &at, connection)?;
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

/// The session as the shards' records have it: after a restart. Each knows for two sequences what they stand for, the
/// last one noted and the last one confirmed; a client that has more gets some events again.
fn stored(front: &Front, part: &Part, resume: &Resume, bell: &Arc<Bell>) -> Option<Arc<Session>> {
    let (mut records, mut at) = (Vec::new(), Vec::new());
    let mut of = None;
    for hub in &*part.hubs {
        let core = hub.core();
        let (id, record) = core.sessions.part_of(&resume.session_id)?;
        let spread = record.spread.as_ref()?;
        at.push(match resume.sequence {
            sequence if sequence >= spread.written => record.written,
            sequence if sequence >= spread.confirmed => record.confirmed,
            _ => return None,
        });
        records.push(Record { id: id.clone(), epoch: record.epoch, snapshot: record.snapshot });
        of = Some((record.identity.clone(), record.intents));
    }
    let (identity, intents) = of?;
    let state = State {
        connection: None,
        bell: Arc::clone(bell),
        detached_ms: 0,
        places: Places::new(front.settings.resume_window, resume.sequence, at),
    };
    let id = resume.session_id.clone();
    Some(Arc::new(Session::new(id, identity, intents, part.clone(), records, state)))
}

/// Takes the client's record at each of its shards, to go on behind these positions; with where each log ends. None:
/// one of them can't be gone on from, and the client has to identify.
fn attach(session: &Session, at: &[Position], connection: u64) -> Option<(Vec<Leg>, Vec<Position>)> {
    let (mut legs, mut until) = (Vec::new(), Vec::new());
    for ((hub, record), position) in session.part.hubs.iter().zip(&session.records).zip(at) {
        let mut core = hub.core();
        let (reach, epoch) = (core.reach(), core.epoch);
        let identity = &session.identity;
        let outcome = match epoch == record.epoch {
            true => core.sessions.resume(&record.id, identity, *position, reach, epoch, connection),
            false => Resumed::Impossible,
        };
        let held = core.sessions.held(&record.id, connection).filter(|_| outcome != Resumed::Impossible);
        let Some(held) = held else {
            drop(core);
            // Those before it wait for the client's IDENTIFY again.
            for leg in legs {
                let leg: Leg = leg;
                leg.hub.core().sessions.detach(&leg.record, connection, unix_ms());
            }
            return None;
        };
        let mut leg = Leg::new(Arc::clone(hub), record.id.clone(), epoch, record.snapshot, *position);
        leg.requests.clone_from(&held.requests);
        legs.push(leg);
        // Upstream's own replay may have to bring it there first.
        until.push(reach.1.max(*position));
    }
    Some((legs, until))
}
