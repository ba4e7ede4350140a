// SPDX-License-Identifier: AGPL-3.0-only
//! How a client of another shard count opens: its shards are found, here or at other replicas, and asked for it.
//!
//! In: IDENTIFY; what RESUME has found. Out: legs with the positions to go on from.

use std::sync::Arc;

use futures_util::future::join_all;
use holdfast_cluster::ShardId;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Holder, Part,
    attach::{Attached, attach},
    batch::Batch,
    bell::{Bell, Pulls},
    far::{Far, Over},
    leg::{Leg, Side},
    places::Places,
    pump::{Merge, Stage},
    retired,
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
        splice,
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

/// A client on its way to its shards.
pub(super) struct Seeker<'a> {
    pub(super) front: &'a Arc<Front>,
    pub(super) about: &'a About,
    pub(super) who: Who,
    pub(super) leaving: CancellationToken,
}

impl Seeker<'_> {
    /// Asks for a shard that may be here.
    async fn seek(&self, id: ShardId, what: What) -> Result<Option<Attached>, Refused> {
        let ask = Ask { who: self.who.clone(), what };
        if let Some(hub) = here(self.front, id, what) {
            return Ok(attach(self.front, &hub, &ask, self.about.number));
        }
        let mut far = self.dial(id, what).await?;
        match far.answered().await {
            Ok(Some(answer)) => {
                let mut leg = Leg::far(Box::new(far), answer.snapshot, answer.from);
                leg.end = answer.end;
                Ok(Some(Attached { leg, answer, begun: None }))
            }
            Ok(None) | Err(Over::Invalid) => Ok(None),
            Err(Over::Closed(refused)) => Err(refused),
        }
    }

    /// Asks for shards. None: one of them doesn't have what is wanted, and the others are let be.
    pub(super) async fn seek_all(&self, asked: &[(ShardId, What)]) -> Result<Option<Vec<Attached>>, Refused> {
        let found = join_all(asked.iter().map(|(id, what)| self.seek(*id, *what))).await;
        let (mut all, mut failed) = (Vec::new(), None);
        for found in found {
            match found {
                Ok(Some(attached)) => all.push(attached),
                Ok(None) => failed = failed.or(Some(Ok(None))),
                Err(refused) => failed = Some(Err(refused)),
            }
        }
        let Some(failed) = failed else { return Ok(Some(all)) };
        self.let_be(all);
        failed
    }

    /// What is owed to the client by these shards of a former count.
    async fn take(&self, former: &[ShardId]) -> Result<Vec<Attached>, Refused> {
        let found = join_all(former.iter().map(|id| self.seek(*id, What::Take))).await;
        let (found, refused): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
        let taken = found.into_iter().flatten().flatten().collect();
        match refused.into_iter().find_map(Result::err) {
            None => Ok(taken),
            Some(refused) => {
                self.let_be(taken);
                Err(refused)
            }
        }
    }

    /// The client doesn't come.
    pub(super) fn let_be(&self, attached: Vec<Attached>) {
        for Attached { mut leg, .. } in attached {
            release(self.front, &mut leg, self.about.number, false);
        }
    }

    /// The client is known under this name and these intents where it has been before.
    pub(super) fn is_known_as(&mut self, found: &[Attached]) {
        if let Some(Attached { answer, .. }) = found.first() {
            (self.who.name, self.who.intents) = (answer.name.clone(), answer.intents);
        }
    }

    /// A connection to another replica for a shard.
    async fn dial(&self, id: ShardId, what: What) -> Result<Far, Refused> {
        let socket = splice::leg(self.front, id, self.about).await?;
        let ask = Ask { who: self.who.clone(), what };
        Ok(Far::new(self.front, id, socket, &ask, self.leaving.clone()))
    }
}

/// A shard that is asked for, if it is here.
pub(super) fn here(front: &Front, id: ShardId, what: What) -> Option<Arc<Hub>> {
    if what.is_former() {
        return front.hubs.former(id);
    }
    front.held(id.shard).filter(|hub| hub.total == id.total)
}

/// The client leaves a shard. `ended`: and ends its session.
pub(super) fn release(front: &Front, leg: &mut Leg, connection: u64, ended: bool) {
    let now_ms = unix_ms();
    match std::mem::replace(&mut leg.side, Side::Over) {
        Side::Here(hub) if ended => hub.core().sessions.end(&leg.record, connection, now_ms),
        Side::Here(hub) => hub.core().sessions.detach(&leg.record, connection, now_ms),
        Side::There(far) => far.close(front, if ended { 1000 } else { 4000 }),
        Side::Over => {}
    }
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
    let mut far = match far.into_iter().collect::<Result<Vec<_>, _>>() {
        Ok(far) => far,
        Err(refused) => {
            seeker.let_be(taken);
            return Err(refused);
        }
    };
    front.note_intents(identify.intents);
    forward_presence(front, part, about, identify, &mut far);
    let Seeker { who, leaving, .. } = seeker;
    let waiting = Waiting { who, taken, far };
    let (shard, compress) = (identify.shard, identify.compress);
    Ok(Some(Prepared::Identify(Box::new(Identified { waiting, shard, compress, leaving }))))
}

fn forward_presence(front: &Front, part: &Part, about: &About, identify: &Identify, far: &mut [Far]) {
    let Some(presence) = identify.presence.clone().filter(|_| front.settings.forward_identify_presence) else {
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
    let pulls = Pulls::new(&opened.bell, part.here());
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
        bell: opened.bell,
        batch: Batch::default(),
        reading: 0,
        gap: None,
        had_former: None,
        pulls: Some(pulls),
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
    let Stage::AwaitReady(waiting) = &mut merge.stage else { return Ok(true) };
    for far in &mut waiting.far {
        far.poll(cx);
        match far.over() {
            Some(Over::Closed(refused)) => return Err(Stopped::Refused(refused.clone())),
            Some(Over::Invalid) => return Err(Stopped::Invalid),
            None => {}
        }
    }
    // A shard that has had READY once always has one.
    let is_ready = |(_, hub): (usize, &Arc<Hub>)| hub.core().ready.is_some();
    if !merge.part.here().all(is_ready) || !waiting.far.iter().all(Far::has_answer) {
        return Ok(false);
    }
    let who = waiting.who.clone();
    let (taken, far) = (std::mem::take(&mut waiting.taken), std::mem::take(&mut waiting.far));
    let front = Arc::clone(&merge.front);
    front.metrics.client_identifies.inc();
    let all = attach_current(merge, &who, taken, far).ok_or(Stopped::Gone)?;
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
    let snapshot = Snapshot::new(guilds, here, far, further).ok_or(Stopped::Gone)?;
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
fn attach_current(
    merge: &Merge,
    who: &Who,
    taken: Vec<Attached>,
    far: Vec<Far>,
) -> Option<Vec<Attached>> {
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
