// SPDX-License-Identifier: AGPL-3.0-only
//! A client at one of our shards that is here, whoever merges it: it gets a record there, stored like those of other
//! clients, from where catch-up goes after a restart of the bot, RESUME after one of ours.
//!
//! In: what is asked for. Out: a leg at its place, and what the client gets of the shard before events.

use std::sync::Arc;

use holdfast_cluster::SpreadRecord;
use holdfast_state::GuildSnapshot;
use serde::Deserialize;

use super::{
    identity_at,
    leg::Leg,
    retired,
    share::Share,
    wire::{Answer, Ask, Further, What, Who},
};
use crate::{
    front::{
        Front,
        source::{GAP, gap_marker},
    },
    log::{FIRST, Position},
    shard::{ClientSession, Core, Hub, Identified, Ready, Resumed, unix_ms},
};

/// A leg, and how it begins.
pub(super) struct Attached {
    pub(super) leg: Leg,
    pub(super) answer: Answer,
    /// Of a leg that is here, and only where a session begins.
    pub(super) begun: Option<Here>,
}

/// What is here for a client that identifies.
pub(super) struct Here {
    pub(super) ready: Arc<Ready>,
    pub(super) guilds: Vec<GuildSnapshot>,
}

/// Attaches a connection to the shard. None: there is nothing to go on from, or READY isn't there yet.
pub(super) fn attach(front: &Front, hub: &Arc<Hub>, ask: &Ask, connection: u64) -> Option<Attached> {
    match ask.what {
        What::Begin { since_former } => begin(front, hub, &ask.who, since_former, connection),
        What::Take => retired::take(front, hub, &ask.who, connection),
        What::Resume { sequence, position, former } => {
            resume(hub, &ask.who, (sequence, position), former, connection)
        }
        What::Join { sequence } => join(hub, &ask.who, sequence, connection),
    }
}

/// Who a client is to the shard.
pub(super) fn identified(who: &Who, hub: &Hub, connection: u64) -> Identified {
    Identified {
        connection,
        identity: identity_at(&who.credential, who.client, hub.total),
        name: who.name.clone(),
        intents: who.intents,
        shard: who.client,
    }
}

/// The client's session begins at the log's end.
fn begin(front: &Front, hub: &Arc<Hub>, who: &Who, since_former: bool, connection: u64) -> Option<Attached> {
    let share = who.share(hub.total);
    let mut core = hub.core();
    let at = core.at_end()?;
    // The end of time tells a session that was at the log's end from none.
    let dead = front.begin(&mut core, identified(who, hub, connection), Position::MAX);
    let beginning = retired::beginning(&core);
    let since = dead.since.or(since_former.then_some(beginning)).filter(|since| *since < at.position);
    let from = since.unwrap_or(at.position);
    if let Some(record) = core.sessions.held(&dead.id, connection) {
        (record.written, record.confirmed, record.base) = (from, from, from);
        record.snapshot = at.position;
        record.spread = Some(spread(who, u64::MAX, None));
    }
    let mut further = voice_of(front, share, hub, &core);
    if let Some(since) = since {
        // Before its first event a shard of a new count may have had several sessions, to no harm.
        if dead.since.is_some() || core.gap.is_some_and(|gap| gap.from > beginning) {
            further.extend(gap_over(&core, since));
        }
    }
    if dead.owed && !since_former {
        // What shards of the former count had for it went with their replica.
        let marker = gap_marker(core.log.stream(), beginning.saturating_sub(1).max(FIRST - 1), beginning);
        further.extend(Further::new(GAP, marker));
    }
    let own: Vec<&GuildSnapshot> = at.guilds.guilds().iter().filter(|it| share.holds(it.id())).collect();
    let wanted = |guild: &&GuildSnapshot| who.intents & 1 != 0 && !guild.unavailable();
    let guilds: Vec<_> = own.iter().copied().filter(wanted).cloned().collect();
    let answer = Answer {
        snapshot: at.position,
        from,
        until: at.position,
        guilds: own.iter().map(|guild| guild.id()).collect(),
        available: guilds.len() as u64,
        further,
        caught_up: since.is_some(),
        ..Answer::default()
    };
    let leg = Leg::new(Arc::clone(hub), (dead.id, connection), core.epoch, at.position, from);
    Some(Attached { leg, answer, begun: Some(Here { ready: at.ready, guilds }) })
}

/// What a record is a part of whose places a sequence stands for.
pub(super) fn spread(who: &Who, sequence: u64, owed: Option<u64>) -> SpreadRecord {
    SpreadRecord {
        session_id: who.session.clone(),
        shard: who.client,
        written: sequence,
        confirmed: sequence,
        owed,
        given: Vec::new(),
    }
}

/// The client goes on where it was.
fn resume(
    hub: &Arc<Hub>,
    who: &Who,
    (sequence, position): (u64, Option<Position>),
    former: bool,
    connection: u64,
) -> Option<Attached> {
    let mut core = hub.core();
    let (reach, epoch) = (core.reach(), core.epoch);
    let end = former.then_some(reach.1);
    let (id, record) = core.sessions.part_of(&who.session)?;
    let (id, snapshot) = (id.clone(), record.snapshot);
    let (name, intents) = (record.name.clone(), record.intents);
    let position = position.or_else(|| place(record, former, sequence))?;
    // Upstream's own replay may have to bring it there first; a log that has ended gets nothing any more.
    if end.is_some_and(|end| position > end) {
        return None;
    }
    let identity = identity_at(&who.credential, who.client, hub.total);
    let outcome = core.sessions.resume(&id, &identity, position, reach, epoch, connection);
    if outcome == Resumed::Impossible {
        return None;
    }
    let held = core.sessions.held(&id, connection)?;
    let owed = held.spread.as_ref().and_then(|spread| spread.owed).filter(|until| sequence < *until);
    // Ahead of the log's end, too: the one stands for the other.
    (held.written, held.confirmed) = (position, position);
    held.spread = Some(spread(who, sequence, owed));
    let requests = held.requests.clone();
    if !former {
        core.save_clients(true);
    }
    drop(core);
    let mut leg = Leg::new(Arc::clone(hub), (id, connection), epoch, snapshot, position);
    (leg.end, leg.requests) = (end, requests);
    let until = reach.1.max(position);
    let owed = owed.is_some();
    let answer = Answer { name, intents, snapshot, from: position, until, end, owed, ..Answer::default() };
    Some(Attached { leg, answer, begun: None })
}

/// The place that a record knows a sequence to stand for, or the nearest before it. None: it is too far back.
fn place(record: &ClientSession, former: bool, sequence: u64) -> Option<Position> {
    match &record.spread {
        // A client of the former count had positions of the shard of its number.
        None => former.then_some(sequence),
        Some(spread) if sequence >= spread.written => Some(record.written),
        Some(spread) if sequence >= spread.confirmed => {
            let given = spread.given.partition_point(|(given, _)| *given <= sequence).checked_sub(1);
            Some(given.map_or(record.confirmed, |given| record.confirmed.max(spread.given[given].1)))
        }
        Some(_) => None,
    }
}

/// Makes the client known at a shard of a new count, of which it has nothing yet.
fn join(hub: &Arc<Hub>, who: &Who, sequence: u64, connection: u64) -> Option<Attached> {
    let mut core = hub.core();
    let (epoch, end) = (core.epoch, core.log.last());
    let begin = retired::beginning(&core);
    let known = core.sessions.part_of(&who.session).map(|(id, record)| (id.clone(), record.written));
    // It has gone on there since, by way of another replica.
    if !is_whole(&core) || known.as_ref().is_some_and(|(_, written)| *written > begin) {
        return None;
    }
    if let Some((id, _)) = known {
        // It came before, and another of its shards couldn't be reached.
        core.sessions.forget(&id);
    }
    let client = Identified {
        // Nobody else's: another client's dead session isn't to be taken over.
        identity: who.session.clone(),
        ..identified(who, hub, connection)
    };
    let id = core.sessions.identify(client, begin, epoch, false, unix_ms()).id;
    let record = core.sessions.held(&id, connection)?;
    record.identity = identity_at(&who.credential, who.client, hub.total);
    record.spread = Some(spread(who, sequence, Some(u64::MAX)));
    core.save_clients(true);
    drop(core);
    let leg = Leg::new(Arc::clone(hub), (id, connection), epoch, begin, begin);
    let answer = Answer { snapshot: begin, from: begin, until: end, ..Answer::default() };
    Some(Attached { leg, answer, begun: None })
}

/// Whether everything is there since the shard took over from one of a former count.
fn is_whole(core: &Core) -> bool {
    let beginning = retired::beginning(core);
    core.log.oldest() <= beginning + 1 && core.gap.is_none_or(|gap| gap.from <= beginning)
}

/// If the client was away when Discord began a new session, catch-up goes over the gap.
pub(super) fn gap_over(core: &Core, since: Position) -> Option<Further> {
    let gap = core.gap.filter(|gap| since <= gap.from)?;
    Further::new(GAP, gap_marker(gap.stream, gap.from, gap.to))
}

/// The credentials of voice connections in the client's guilds.
fn voice_of(front: &Front, share: Share, hub: &Hub, core: &Core) -> Vec<Further> {
    #[derive(Deserialize)]
    struct InGuild<'a> {
        #[serde(borrow)]
        guild_id: &'a str,
    }
    let mut voice = front.voice_again(hub, core);
    voice.retain(|(_, data)| {
        let guild =
            serde_json::from_slice::<InGuild<'_>>(data).ok().and_then(|event| event.guild_id.parse().ok());
        guild.is_some_and(|guild| share.holds(guild))
    });
    voice.into_iter().filter_map(|(name, data)| Further::new(name, data)).collect()
}
