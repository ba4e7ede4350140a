// SPDX-License-Identifier: AGPL-3.0-only
//! How a client of another shard count resumes its session, or one of our count a session from before that changed.
//!
//! In: RESUME. Out: legs with the positions to go on from. Where our count has changed since, what the client hasn't got
//! of the former shards comes first, then everything of the current ones: these begin where those have ended.

use std::sync::Arc;

use holdfast_cluster::ShardId;
use tokio_util::sync::CancellationToken;

use super::{
    Part,
    attach::Attached,
    bell::Bell,
    leg::Leg,
    opening::Opened,
    places::{MAX_LEGS, Places},
    pump::Stage,
    retired,
    seek::Seeker,
    sessions::{Record, Session, State},
    wire::{What, Who},
};
use crate::{
    front::{Front, identify::Resume, link::About, opening::identity, query::Refused, source::Wants},
    log::Position,
};

/// Asks the shards of a session for it. None: it can't be resumed.
pub(in crate::front) async fn resume(
    front: &Arc<Front>,
    part: &Part,
    about: &About,
    resume: &Resume,
) -> Result<Option<Box<Opened>>, Refused> {
    let who = Who {
        session: resume.session_id.clone(),
        credential: identity(&resume.token),
        client: part.share.client(),
        name: None,
        intents: 0,
        large_threshold: 50,
    };
    let mut seeker = Seeker { front, about, who, leaving: CancellationToken::new() };
    let former = retired::shards(front, part.share);
    let found = match known(front, part, &former, &seeker.who) {
        Some(session) => go_on(&mut seeker, part, session, resume.sequence).await?,
        None => stored(&mut seeker, part, &former, resume.sequence).await?,
    };
    let Some((session, attached)) = found else { return Ok(None) };
    let bell = Bell::new(part.holders.len());
    let own_user = part.home().and_then(|hub| hub.core().ready.as_ref().map(|ready| ready.user));
    let (legs, until): (Vec<_>, Vec<_>) = attached.into_iter().unzip();
    Ok(Some(Box::new(Opened {
        stage: Stage::Replay(until),
        intents: session.intents,
        wants: Wants { intents: session.intents, own_user: own_user.unwrap_or(0) },
        large_threshold: 50,
        compress: None,
        shard: None,
        session: Some(session),
        legs,
        bell,
        leaving: seeker.leaving,
    })))
}

/// A session, and its legs with the ends of their replay.
type Found = Option<(Arc<Session>, Vec<(Leg, Position)>)>;

/// The session, if this process knows exactly what its sequences stand for.
fn known(front: &Front, part: &Part, former: &[ShardId], who: &Who) -> Option<Arc<Session>> {
    let session = front.merged.get(&who.session)?;
    let is_same = session.client == who.client && session.credential == who.credential;
    let state = session.state();
    let is_here = state.is_at(part.ids()) && state.is_at_home(part);
    // Whether it has gone on elsewhere since, the new shards know.
    let is_current = is_here || !former.is_empty() && state.is_at(former.iter().copied());
    drop(state);
    (is_same && is_current).then_some(session)
}

/// Goes on with a session that this process knows.
async fn go_on(
    seeker: &mut Seeker<'_>,
    part: &Part,
    session: Arc<Session>,
    sequence: u64,
) -> Result<Found, Refused> {
    (seeker.who.name, seeker.who.intents) = (session.name.clone(), session.intents);
    let (plan, goes_over) = {
        let mut state = session.state();
        let Some(at) = state.places.at(sequence) else { return Ok(None) };
        // Whoever had it gives no more, so that the numbers stay as they are.
        state.detach();
        let goes_over = !state.is_at(part.ids());
        if goes_over && state.records.len() + part.holders.len() > MAX_LEGS {
            return Ok(None);
        }
        let first = if goes_over { 0 } else { state.retired() };
        let legs = state.records.iter().zip(at).enumerate();
        let plan: Vec<_> = legs
            .map(|(index, (record, at))| {
                let former = record.end.is_some() || goes_over && index >= first;
                let over = record.end.filter(|end| at >= *end);
                (record.shard, over, What::Resume { sequence, position: Some(at), former })
            })
            .collect();
        (plan, goes_over)
    };
    let mut asked: Vec<_> =
        plan.iter().filter(|(_, over, _)| over.is_none()).map(|(id, _, what)| (*id, *what)).collect();
    if goes_over {
        asked.extend(part.ids().map(|id| (id, What::Join { sequence })));
    }
    let Some(found) = seeker.seek_all(&asked).await? else { return Ok(None) };
    let mut found = found.into_iter();
    let mut legs: Vec<(Leg, Position)> = Vec::new();
    let mut state = session.state();
    for (index, (id, over, _)) in plan.iter().enumerate() {
        match over {
            // The shard is of no use any more to who has everything of it.
            Some(end) => legs.push((Leg::over(*id, *end), *end)),
            None => {
                let Some(Attached { leg, answer, .. }) = found.next() else { break };
                state.records[index].end = answer.end;
                legs.push((leg, answer.until));
            }
        }
    }
    for Attached { leg, answer, .. } in found {
        state.places.extend(&[leg.cursor]);
        state.records.push(Record { shard: leg.shard, end: answer.end });
        legs.push((leg, answer.until));
    }
    state.places.rewind(sequence);
    drop(state);
    Ok(Some((session, legs)))
}

/// The session as the shards' records have it: those of the current shards after a restart or a move, those of the former
/// ones if it hasn't been resumed since the count changed. Each knows for some sequences what they stand for; a client that
/// has more gets some events again.
async fn stored(
    seeker: &mut Seeker<'_>,
    part: &Part,
    former: &[ShardId],
    sequence: u64,
) -> Result<Found, Refused> {
    let resume = |former| What::Resume { sequence, position: None, former };
    let current: Vec<_> = part.ids().map(|id| (id, resume(false))).collect();
    let found = seeker.seek_all(&current).await?;
    let found = match found {
        Some(found) if !found.iter().any(|attached| attached.answer.owed) => found,
        found => {
            let before: Vec<_> = former.iter().map(|id| (*id, resume(true))).collect();
            let fits = !before.is_empty() && before.len() + part.holders.len() <= MAX_LEGS;
            let before = if fits { seeker.seek_all(&before).await } else { Ok(None) };
            // What came before those, nobody has any more.
            let is_last = |before: &Vec<Attached>| !before.iter().any(|attached| attached.answer.owed);
            let Some(mut before) = before?.filter(is_last) else { return Ok(None) };
            let current = match found {
                Some(found) => found,
                None => {
                    seeker.is_known_as(&before);
                    let asked: Vec<_> = part.ids().map(|id| (id, What::Join { sequence })).collect();
                    let Some(joined) = seeker.seek_all(&asked).await? else { return Ok(None) };
                    joined
                }
            };
            before.extend(current);
            before
        }
    };
    seeker.is_known_as(&found);
    let at = found.iter().map(|attached| attached.leg.cursor).collect();
    let places = Places::new(seeker.front.settings.resume_window, sequence, at);
    let record = |it: &Attached| Record { shard: it.leg.shard, end: it.answer.end };
    let records = found.iter().map(record).collect();
    let state = State::new(&Bell::new(0), places, records);
    let known_as = (seeker.who.name.clone(), seeker.who.intents);
    let Who { session, credential, client, .. } = seeker.who.clone();
    let session = Session::new(session, credential, client, known_as, state);
    let legs = found.into_iter().map(|it| (it.leg, it.answer.until)).collect();
    Ok(Some((session, legs)))
}
