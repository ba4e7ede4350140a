// SPDX-License-Identifier: AGPL-3.0-only
//! How a client of another shard count begins its session.
//!
//! In: IDENTIFY. Out: legs with the positions to go on from. At each of its shards the client has a record, stored like
//! those of other clients: from there catch-up goes after a restart of the bot, RESUME after one of ours.

use std::sync::Arc;

use holdfast_cluster::SpreadRecord;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Part,
    bell::{Bell, Pulls},
    identity_at,
    leg::{Batch, Leg},
    places::Places,
    pump::{Merge, Stage},
    resuming::resumed,
    retired,
    sessions::{Record, Session, State},
    snapshot::Snapshot,
};
use crate::{
    front::{
        Front,
        client::{Client, view},
        commands,
        identify::Identify,
        link::{About, Link},
        opening::{Opening, identity},
        pump::Stopped,
        source::{GAP, Wants, gap_marker},
    },
    log::Position,
    shard::{At, Command, Core, Hub, Identified, Priority, unix_ms},
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
        retired: opened.legs.iter().filter(|leg| leg.end.is_some()).count(),
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
pub(super) struct Opened {
    pub(super) stage: Stage,
    pub(super) intents: u64,
    pub(super) wants: Wants,
    pub(super) large_threshold: u32,
    pub(super) compress: Option<bool>,
    pub(super) shard: Option<[u32; 2]>,
    pub(super) session: Option<Arc<Session>>,
    pub(super) legs: Vec<Leg>,
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
        // The credential: who that is depends on the shard.
        identity: identity(&identify.token),
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

/// What a session begins with.
#[derive(Default)]
struct Begun {
    legs: Vec<Leg>,
    records: Vec<Record>,
    /// The current shards, each at its position.
    shards: Vec<At>,
    /// Events that follow the guilds: name and `d`.
    further: Vec<(&'static str, Vec<u8>)>,
    caught_up: bool,
}

/// Begins the session as soon as all shards have READY. False: not yet.
pub(super) fn begin(merge: &mut Merge) -> Result<bool, Stopped> {
    // A shard that has had READY once always has one.
    if merge.part.hubs.iter().any(|hub| hub.core().ready.is_none()) {
        return Ok(false);
    }
    let front = Arc::clone(&merge.front);
    let Stage::AwaitReady(client) = &merge.stage else { return Ok(true) };
    front.metrics.client_identifies.inc();
    let Begun { legs, records, shards, further, caught_up } = begun(merge, client).ok_or(Stopped::Gone)?;
    if caught_up {
        front.metrics.catch_ups.inc();
    }
    let share = merge.part.share;
    let snapshot = Snapshot::new(share, client.intents, &shards, further).ok_or(Stopped::Gone)?;
    merge.wants.own_user = snapshot.user();
    merge.view.own_user = snapshot.user();
    let from = legs.iter().map(|leg| leg.cursor).collect();
    let places = Places::new(front.settings.resume_window, snapshot.len(), from);
    let mut state = State::new(&merge.bell, places, records);
    state.connection = Some(merge.connection);
    merge.retired = state.retired();
    // The lowest shard's id stands for all: whoever holds it and the credential may resume.
    let id = state.latest().first().map(|record| record.id.clone()).unwrap_or_default();
    let spread_over = if merge.retired > 0 {
        retired::unsettled(&id, share.client())
    } else {
        SpreadRecord {
            session_id: id.clone(),
            shard: share.client(),
            written: snapshot.len(),
            confirmed: snapshot.len(),
        }
    };
    spread(&legs, client, &spread_over);
    let known_as = (client.name.clone(), client.intents);
    let session = Session::new(id, client.identity.clone(), share.client(), known_as, state);
    front.merged.add(&session, unix_ms());
    merge.session = Some(session);
    merge.legs = legs;
    merge.stage = Stage::Snapshot(Box::new(snapshot));
    Ok(true)
}

/// Makes the client known at all of its shards.
fn begun(merge: &Merge, client: &Identified) -> Option<Begun> {
    let (front, share) = (&merge.front, merge.part.share);
    let mut begun = Begun::default();
    for hub in retired::of(front, share) {
        let Some((leg, record)) = retired::take(front, &hub, share, client) else { continue };
        begun.caught_up = true;
        note_gap(&hub.core(), leg.cursor, &mut begun.further);
        begun.legs.push(leg);
        begun.records.push(record);
    }
    let since_former = !begun.legs.is_empty();
    for hub in &*merge.part.hubs {
        begin_at(merge, hub, client, since_former, &mut begun)?;
    }
    Some(begun)
}

/// Makes the client known at a current shard. `since_former`: it was away when the shards of the former count ended.
fn begin_at(
    merge: &Merge,
    hub: &Arc<Hub>,
    client: &Identified,
    since_former: bool,
    begun: &mut Begun,
) -> Option<()> {
    let mut core = hub.core();
    let at = core.at_end()?;
    let identity = identity_at(&client.identity, merge.part.share.client(), hub.total);
    // The end of time tells a session that was at the log's end from none.
    let dead = merge.front.begin(&mut core, Identified { identity, ..client.clone() }, Position::MAX);
    let beginning = retired::beginning(&core);
    let since = dead.since.or(since_former.then_some(beginning)).filter(|since| *since < at.position);
    let from = since.unwrap_or(at.position);
    if let Some(record) = core.sessions.held(&dead.id, client.connection) {
        (record.written, record.confirmed, record.base) = (from, from, from);
        record.snapshot = at.position;
    }
    begun.further.extend(voice_of(merge, hub, &core));
    if let Some(since) = since {
        begun.caught_up = true;
        // Before its first event a shard of a new count may have had several sessions, to no harm.
        if dead.since.is_some() || core.gap.is_some_and(|gap| gap.from > beginning) {
            note_gap(&core, since, &mut begun.further);
        }
    }
    begun.legs.push(Leg::new(Arc::clone(hub), dead.id.clone(), core.epoch, at.position, from));
    begun.records.push(Record {
        hub: Arc::downgrade(hub),
        id: dead.id,
        epoch: core.epoch,
        snapshot: at.position,
        end: None,
    });
    begun.shards.push(at);
    Some(())
}

/// If the client was away when Discord began a new session, catch-up goes over the gap.
fn note_gap(core: &Core, since: Position, further: &mut Vec<(&'static str, Vec<u8>)>) {
    if let Some(gap) = core.gap.filter(|gap| since <= gap.from) {
        further.push((GAP, gap_marker(gap.stream, gap.from, gap.to)));
    }
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
        let Some(hub) = &leg.hub else { continue };
        let mut core = hub.core();
        if let Some(record) = core.sessions.held(&leg.record, client.connection) {
            record.spread = Some(spread.clone());
        }
        if leg.end.is_none() {
            core.save_clients(true);
        }
    }
}
