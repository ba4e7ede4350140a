// SPDX-License-Identifier: AGPL-3.0-only
//! How a client of another shard count begins its session.
//!
//! In: IDENTIFY; what RESUME has found. Out: legs with the positions to go on from, when all shards have READY.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Holder, Part,
    attach::{Attached, attach},
    batch::Batch,
    bell::{Bell, Pulls},
    far::{Far, Over},
    leg::Leg,
    places::Places,
    pump::{Merge, Stage},
    retired,
    seek::Seeker,
    sessions::{Record, Session, State},
    snapshot::Snapshot,
    wire::{Ask, What, Who},
};
use crate::{
    front::{
        Front,
        client::{Client, view},
        commands,
        identify::Identify,
        link::{About, Link},
        opening::identity,
        outlet::Outlet,
        pump::Stopped,
        query::Refused,
        source::Wants,
    },
    shard::{Command, Hub, Priority, new_session_id, unix_ms},
};

/// What a client opens with, once its shards have been asked.
pub(crate) enum Prepared {
    /// Legs follow when all of them have READY.
    Identify(Box<Identified>),
    /// None: it wanted to resume what can't be.
    Resume(Option<Box<Opened>>),
}

/// A client that has identified.
pub(crate) struct Identified {
    waiting: Waiting,
    shard: Option<[u32; 2]>,
    compress: bool,
    leaving: CancellationToken,
}

/// What waits for the shards' READY.
pub(super) struct Waiting {
    pub(super) who: Who,
    /// What shards of a former count owe it.
    pub(super) taken: Vec<Attached>,
    /// Its current shards at other replicas, in order.
    pub(super) far: Vec<Far>,
}

/// What a client opens with.
pub(crate) struct Opened {
    pub(super) stage: Stage,
    pub(super) intents: u64,
    pub(super) wants: Wants,
    pub(super) large_threshold: u32,
    pub(super) compress: Option<bool>,
    pub(super) shard: Option<[u32; 2]>,
    pub(super) session: Option<Arc<Session>>,
    pub(super) legs: Vec<Leg>,
    pub(super) bell: Arc<Bell>,
    /// A shard at another replica leaves that.
    pub(super) leaving: CancellationToken,
}

/// Asks a client's shards for it. None: it isn't owed anything by shards of a former count, and nothing else needs it.
pub(in crate::front) async fn identify(
    front: &Arc<Front>,
    part: &Part,
    about: &About,
    identify: &Identify,
    needed: bool,
) -> Result<Option<Prepared>, Refused> {
    let former = retired::shards(front, part.share);
    if former.is_empty() && !needed {
        return Ok(None);
    }
    let client = part.share.client();
    let who = Who {
        session: new_session_id(client),
        credential: identity(&identify.token),
        client,
        name: about.query.name.clone(),
        intents: identify.intents,
        large_threshold: identify.large_threshold,
    };
    let seeker = Seeker { front, about, who, leaving: CancellationToken::new() };
    let taken = seeker.take(&former).await?;
    if taken.is_empty() && !needed {
        return Ok(None);
    }
    let what = What::Begin { since_former: !taken.is_empty() };
    let away = part.ids().zip(&*part.holders).filter(|(_, holder)| matches!(holder, Holder::There));
    let far = join_all(away.map(|(id, _)| seeker.dial(id, what))).await;
    let mut far = far.into_iter().collect::<Result<Vec<_>, _>>()?;
    front.note_intents(identify.intents);
    forward_presence(front, part, about, identify, &mut far);
    let Seeker { who, leaving, .. } = seeker;
    let waiting = Waiting { who, taken, far };
    let (shard, compress) = (identify.shard, identify.compress);
    Ok(Some(Prepared::Identify(Box::new(Identified { waiting, shard, compress, leaving }))))
}

fn forward_presence(front: &Front, part: &Part, about: &About, identify: &Identify, far: &mut [Far]) {
    let Some(presence) = identify.presence.clone().filter(|_| front.settings.forward_identify_presence)
    else {
        return;
    };
    let presence = Value::Object(presence);
    // Discord doesn't close a client for a presence in IDENTIFY that it can't use.
    let Ok(payload) = commands::presence_payload(presence.clone()) else { return };
    for (_, hub) in part.here() {
        hub.core().presence = Some(payload.clone());
        hub.command(Command::new(about.number, Priority::Normal, payload.clone()));
    }
    for far in far {
        // It has room: nothing else has been said yet.
        let _ = far.command(3, &presence);
    }
}

/// Opens a client's session. Err: the client wanted to resume what can't be; the link is given back.
pub(in crate::front) fn open(
    front: &Arc<Front>,
    part: Part,
    link: Box<Link>,
    prepared: Prepared,
) -> Result<Client<Box<Merge>>, Box<Link>> {
    let opened = match prepared {
        Prepared::Identify(identified) => waiting(&part, *identified),
        Prepared::Resume(Some(opened)) => *opened,
        Prepared::Resume(None) => {
            front.metrics.resumes_refused.inc();
            return Err(link);
        }
    };
    // Before anything is looked at, so that no wake is missed.
    let pulls = Pulls::new(&opened.bell, part.share, part.here());
    let Link { reading, mut writing, about } = *link;
    if let Some(session) = &opened.session {
        session.state().attach(&part, about.number, &opened.bell);
        front.merged.add(session, unix_ms());
        front.metrics.client_resumes.inc();
    }
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
        bell: opened.bell,
        batch: Batch::default(),
        reading: 0,
        gap: None,
        had_former: None,
        pulls: Some(pulls),
        offers: Vec::new(),
        leaving: opened.leaving,
        part,
    };
    Ok(Client::new(front, reading, about, Box::new(merge)))
}

fn waiting(part: &Part, identified: Identified) -> Opened {
    let Identified { waiting, shard, compress, leaving } = identified;
    let intents = waiting.who.intents;
    Opened {
        intents,
        wants: Wants { intents, own_user: 0 },
        large_threshold: waiting.who.large_threshold,
        stage: Stage::AwaitReady(Box::new(waiting)),
        compress: Some(compress),
        shard,
        session: None,
        legs: Vec::new(),
        bell: Bell::new(part.holders.len()),
        leaving,
    }
}

/// Begins the session as soon as all shards have READY. False: not yet.
pub(super) fn begin(merge: &mut Box<Merge>, cx: &mut std::task::Context<'_>) -> Result<bool, Stopped> {
    let Merge { stage: Stage::AwaitReady(waiting), part, batch, writing, .. } = &mut **merge else {
        return Ok(true);
    };
    for far in &mut waiting.far {
        far.poll(cx);
        if far.give_own(0, batch, &mut writing.out) {
            return Ok(true);
        }
        match far.over() {
            Some(Over::Closed(refused)) => return Err(Stopped::Refused(refused.clone())),
            Some(Over::Invalid) => return Err(Stopped::Invalid),
            None => {}
        }
    }
    // A shard that has had READY once always has one.
    let is_ready = |(_, hub): (usize, &Arc<Hub>)| hub.core().ready.is_some();
    if !part.here().all(is_ready) || !waiting.far.iter().all(Far::has_answer) {
        return Ok(false);
    }
    let who = waiting.who.clone();
    let (taken, far) = (std::mem::take(&mut waiting.taken), std::mem::take(&mut waiting.far));
    let front = Arc::clone(&merge.front);
    front.metrics.client_identifies.inc();
    let left =
        || Stopped::Refused(Refused::new(4000, "a shard is on its way to another replica: come again"));
    let all = attach_current(merge, &who, taken, far).ok_or_else(left)?;
    if all.iter().any(|attached| attached.answer.caught_up) {
        front.metrics.catch_ups.inc();
    }
    let (mut here, mut legs, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let (mut guilds, mut far, mut further) = (Vec::new(), 0, Vec::new());
    for Attached { leg, answer, begun } in all {
        guilds.extend(answer.guilds);
        further.extend(answer.further);
        far += if begun.is_none() { answer.available } else { 0 };
        here.extend(begun);
        records.push(Record { shard: leg.shard, end: answer.end });
        legs.push(leg);
    }
    let snapshot = Snapshot::new(guilds, here, far, further).ok_or_else(left)?;
    merge.wants.own_user = snapshot.user();
    merge.view.own_user = snapshot.user();
    let from = legs.iter().map(|leg| leg.cursor).collect();
    let places = Places::new(front.settings.resume_window, snapshot.len(), from);
    let mut state = State::new(&merge.bell, places, records);
    state.attach(&merge.part, merge.connection, &merge.bell);
    merge.retired = state.retired();
    let known_as = (who.name.clone(), who.intents);
    let session = Session::new(who.session, who.credential, who.client, known_as, state);
    front.merged.add(&session, unix_ms());
    merge.session = Some(session);
    merge.legs = legs;
    merge.stage = Stage::Snapshot(Box::new(snapshot));
    merge.note();
    merge.part.here().for_each(|(_, hub)| hub.core().save_clients(true));
    Ok(true)
}

/// The legs of shards of a former count, then one per shard of the part. None: a shard is gone meanwhile.
fn attach_current(merge: &Merge, who: &Who, taken: Vec<Attached>, far: Vec<Far>) -> Option<Vec<Attached>> {
    let what = What::Begin { since_former: !taken.is_empty() };
    let ask = Ask { who: who.clone(), what };
    let (mut all, mut far) = (taken, far.into_iter());
    for holder in &*merge.part.holders {
        all.push(match holder {
            Holder::Here(hub) => attach(&merge.front, hub, &ask, merge.connection)?,
            Holder::There => {
                let mut far = far.next()?;
                let answer = far.take_answer()?;
                let leg = Leg::far(Box::new(far), answer.snapshot, answer.from);
                Attached { leg, answer, begun: None }
            }
        });
    }
    Some(all)
}
