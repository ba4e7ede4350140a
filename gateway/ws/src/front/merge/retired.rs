// SPDX-License-Identifier: AGPL-3.0-only
//! What shards of a former count still have for clients: whoever was away when the count changed.
//!
//! In: the clients' records there. Out: whose session it is, and the place from which a client that identifies is caught
//! up. A record is given up once its client has everything of the shard and has confirmed that.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_cluster::{ClientRecord, ShardId};

use super::{
    attach::{Attached, gap_over, identified, spread},
    identity_at,
    leg::{Leg, Side},
    places::Places,
    share::Share,
    wire::{Answer, Who},
};
use crate::{
    front::Front,
    log::{FIRST, Position},
    settings::CatchUpFrom,
    shard::{Core, Hub, unix_ms},
};

/// The place before the first event of a shard that took over from those of a former count.
pub(super) fn beginning(core: &Core) -> Position {
    core.opened.as_ref().map_or(FIRST - 1, |opened| opened.from)
}

/// The shards of the former count that may have had guilds of the client, rising. None, if that isn't another count, or
/// was too long ago.
pub(super) fn shards(front: &Front, share: Share) -> Vec<ShardId> {
    let Some(retired) = front.hubs.retired().filter(|retired| retired.total != share.total) else {
        return Vec::new();
    };
    share.of(retired.total).shards().map(|shard| ShardId::new(shard, retired.total)).collect()
}

/// Takes what a shard has for a client that identifies: a leg that gives it.
pub(super) fn take(front: &Front, hub: &Arc<Hub>, who: &Who, connection: u64) -> Option<Attached> {
    let since = owed_at(front, hub, who)?;
    let mut core = hub.core();
    let (epoch, end) = (core.epoch, core.log.last());
    let since = since.min(end);
    // Everything there belongs into catch-up.
    let id = front.begin(&mut core, identified(who, hub, connection), Position::MAX).id;
    let record = core.sessions.held(&id, connection)?;
    (record.written, record.confirmed, record.base) = (since, since, since);
    // No sequence is known for it yet.
    record.spread = Some(spread(who, u64::MAX, None));
    let further: Vec<_> = gap_over(&core, since).into_iter().collect();
    drop(core);
    let mut leg = Leg::new(Arc::clone(hub), (id, connection), epoch, Position::MAX, since);
    leg.end = Some(end);
    let answer = Answer {
        snapshot: Position::MAX,
        from: since,
        until: end,
        end: Some(end),
        further,
        caught_up: true,
        ..Answer::default()
    };
    Some(Attached { leg, answer, begun: None })
}

/// Gives the records up of legs that have come to their end, as far as the client has confirmed it. Whether one did.
pub(super) fn settle(front: &Front, legs: &mut [Leg], places: &Places, connection: u64) -> bool {
    let (_, confirmed) = places.confirmed();
    let mut settled = false;
    for (leg, confirmed) in legs.iter_mut().zip(confirmed) {
        if leg.end.is_none_or(|end| leg.written.min(*confirmed) < end) {
            continue;
        }
        match std::mem::replace(&mut leg.side, Side::Over) {
            Side::Here(hub) => settle_at(&hub, &leg.record, connection),
            Side::There(far) => far.settle(front),
            Side::Over => continue,
        }
        settled = true;
    }
    settled
}

/// Gives a client's record up.
pub(super) fn settle_at(hub: &Hub, record: &str, connection: u64) {
    let sessions = &mut hub.core().sessions;
    if let Some(held) = sessions.held(record, connection) {
        held.identity = settled_as(&held.identity);
    }
    sessions.detach(record, connection, unix_ms());
}

/// The clients' records of a shard of a former count. They aren't stored any more.
fn records(hub: &Hub) -> Vec<ClientRecord> {
    let mut core = hub.core();
    // Whoever looks at a session may change it, and what may have changed has records.
    core.sessions.held("", 0);
    let (epoch, stream) = (core.epoch, core.log.stream());
    core.sessions.records(epoch, stream, true).unwrap_or_default()
}

fn owed_at(front: &Front, hub: &Hub, who: &Who) -> Option<Position> {
    let confirmed = front.settings.catch_up_from == CatchUpFrom::Confirmed;
    let known_as = (who.credential.as_str(), who.name.as_deref());
    owed(&records(hub), [hub.shard, hub.total], who.share(front.hubs.total()), known_as, confirmed)
}

/// The place from which a client is caught up that identifies. None: nobody of its name was there, or is there still,
/// or it has gone on from there before.
fn owed(
    records: &[ClientRecord],
    ours: [u32; 2],
    share: Share,
    (credential, name): (&str, Option<&str>),
    confirmed: bool,
) -> Option<Position> {
    let place = |record: &ClientRecord| if confirmed { record.confirmed } else { record.written };
    let named = || records.iter().filter(|record| record.name.as_deref() == name);
    let own = identity_at(credential, share.client(), ours[1]);
    if named().any(|record| record.identity == own || record.identity == settled_as(&own)) {
        let own = named().filter(|record| record.identity == own && record.disconnected_unix_ms.is_some());
        return own.max_by_key(|record| record.disconnected_unix_ms).map(place);
    }
    // The bot may have come back with another shard count, such as the new one of ours. Several of its clients may have
    // to do with what one had before: it stays for them.
    let mut latest: BTreeMap<[u32; 2], &ClientRecord> = BTreeMap::new();
    for record in named().filter(|record| record.disconnected_unix_ms.is_some()) {
        let client = record.spread.as_ref().map_or(ours, |spread| spread.shard);
        if share.overlaps(client) && record.identity == identity_at(credential, client, ours[1]) {
            let known = latest.entry(client).or_insert(record);
            if known.disconnected_unix_ms < record.disconnected_unix_ms {
                *known = record;
            }
        }
    }
    let [_, count] = *latest.iter().max_by_key(|(_, record)| record.disconnected_unix_ms)?.0;
    latest.iter().filter(|(client, _)| client[1] == count).map(|(_, record)| place(record)).min()
}

/// The identity of a record whose client has everything of the shard: nobody takes it over, and it says that its client
/// isn't owed anything.
fn settled_as(identity: &str) -> String {
    format!("{identity} settled")
}

#[cfg(test)]
mod tests {
    use holdfast_cluster::SpreadRecord;

    use super::*;

    const BOT: &str = "00bot";

    #[test]
    fn a_client_is_owed_what_came_since_its_own_dead_session() {
        let records =
            [record([1, 4], 10, Some(100)), record([1, 4], 30, Some(200)), record([0, 1], 5, Some(300))];
        assert_eq!(owed([1, 4], &records), Some(30), "that which was detached last");
        assert_eq!(owed([0, 1], &records), Some(5));
    }

    #[test]
    fn one_whose_session_lives_or_has_gone_on_elsewhere_is_owed_nothing() {
        let dead = record([1, 8], 10, Some(100));
        assert_eq!(owed([1, 4], &[record([1, 4], 10, None), dead.clone()]), None);
        let mut settled = record([1, 4], 10, Some(200));
        settled.identity = settled_as(&settled.identity);
        assert_eq!(owed([1, 4], &[settled.clone(), dead.clone()]), None);
        assert_eq!(owed([1, 4], &[settled, dead.clone(), record([1, 4], 20, Some(50))]), Some(20));
        assert_eq!(owed([1, 4], &[dead]), Some(10));
    }

    #[test]
    fn a_bot_that_comes_back_with_another_count_is_owed_what_its_clients_had_before() {
        // Shard 1 of 4; the bot has 8 now.
        let direct = [record([1, 4], 10, Some(100))];
        assert_eq!((owed([1, 8], &direct), owed([5, 8], &direct)), (Some(10), Some(10)));
        let spread =
            [record([1, 8], 10, Some(300)), record([5, 8], 7, Some(200)), record([0, 1], 2, Some(100))];
        assert_eq!(owed([1, 4], &spread), Some(7), "the least of the count that was there last");
        assert_eq!(owed([1, 16], &spread), Some(10), "no guild of it was of [5, 8]");
    }

    #[test]
    fn others_leave_nothing_to_a_client() {
        let named = ClientRecord { name: Some("a".into()), ..record([1, 4], 10, Some(100)) };
        assert_eq!(owed([1, 4], &[named]), None);
        let foreign = ClientRecord { identity: "01bot".into(), ..record([1, 4], 10, Some(100)) };
        assert_eq!(owed([1, 4], &[foreign]), None);
        assert_eq!(owed([5, 8], &[record([1, 8], 10, Some(100))]), None, "it had other guilds");
    }

    #[test]
    fn what_is_owed_goes_from_the_last_confirmation_if_that_is_wished() {
        let record = ClientRecord { confirmed: 6, ..record([1, 4], 10, Some(100)) };
        let share = Share { shard: 1, count: 4, total: 8 };
        assert_eq!(super::owed(&[record], [1, 4], share, (BOT, None), true), Some(6));
    }

    fn owed([shard, count]: [u32; 2], records: &[ClientRecord]) -> Option<Position> {
        super::owed(records, [1, 4], Share { shard, count, total: 8 }, (BOT, None), false)
    }

    /// At shard 1 of 4.
    fn record(client: [u32; 2], written: Position, disconnected: Option<u64>) -> ClientRecord {
        ClientRecord {
            session_id: String::new(),
            identity: identity_at(BOT, client, 4),
            name: None,
            intents: 0,
            written,
            confirmed: written,
            snapshot: 0,
            base: 0,
            stream: None,
            disconnected_unix_ms: disconnected,
            requests: Vec::new(),
            spread: (client[1] != 4).then(|| SpreadRecord {
                session_id: String::new(),
                shard: client,
                written: 0,
                confirmed: 0,
                owed: None,
                given: Vec::new(),
            }),
        }
    }
}
