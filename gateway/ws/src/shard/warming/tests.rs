// SPDX-License-Identifier: AGPL-3.0-only
//! Where the gate stands, and what is behind it.

use holdfast_cluster::{CursorRecord, Seen, Store};
use holdfast_discord::scan;
use holdfast_state::{Guilds, Options};

use crate::{
    fleet::Records,
    log::{Log, Position, Settings, StreamId},
    shard::{
        core::Core,
        sessions::{Limits, Sessions},
    },
};

const SECOND: u64 = 1_000;

#[test]
fn the_gate_follows_at_a_distance_until_it_is_sealed() {
    let mut shard = Shard::new(4);
    shard.core.gather(None);
    shard.ready();
    shard.core.tell_time(SECOND);
    let first = gate(&shard.core);
    for second in 2..30 {
        shard.message(5, second);
        shard.core.tell_time(second * SECOND);
    }
    // One event a second; the overlap is four seconds.
    assert_eq!(shard.core.log.last() - gate(&shard.core), 8);
    assert!(gate(&shard.core) > first);
    let sealed = gate(&shard.core);
    shard.core.seal();
    shard.message(5, 30);
    shard.core.tell_time(60 * SECOND);
    assert_eq!(gate(&shard.core), sealed);
}

#[test]
fn a_shard_is_warm_when_its_guilds_have_come_and_an_overlap_has_passed() {
    let mut shard = Shard::new(4);
    shard.core.gather(None);
    shard.core.tell_time(SECOND);
    assert!(!shard.core.is_warm(100 * SECOND), "READY hasn't come");
    shard.ready();
    shard.core.tell_time(10 * SECOND);
    assert!(!shard.core.is_warm(13 * SECOND));
    assert!(shard.core.is_warm(14 * SECOND));
    shard.ready();
    assert!(!shard.core.is_warm(100 * SECOND), "a new session has begun");
}

#[test]
fn what_others_have_given_is_passed_over_in_as_many_copies() {
    let mut shard = Shard::new(4);
    shard.core.gather(None);
    shard.ready();
    shard.core.tell_time(SECOND);
    let numbers = [1, 2, 2, 2, 3];
    let positions: Vec<Position> = numbers.iter().map(|number| shard.message(5, *number)).collect();
    let mut old = Shard::new(4);
    for number in [1, 2, 2] {
        old.message(5, number);
    }
    old.message(6, 3);
    let seen = old.core.seen_since(0).expect("the log is in memory");
    shard.core.open(&seen, true).expect("the log is in memory");
    let opened = shard.core.opened.clone().expect("it is open");
    let given: Vec<u64> = (0..numbers.len())
        .filter(|index| !opened.is_repeated(positions[*index]))
        .map(|index| numbers[index])
        .collect();
    assert_eq!(given, [2, 3], "one copy more than the old shard had, and what another guild had");
    assert_eq!((opened.repeated(), opened.unmatched), (3, 2));
    assert!(!opened.is_repeated(opened.until + 1));
    assert!(!shard.core.is_warming());
}

#[test]
fn what_the_broker_has_not_had_is_left_to_the_new_shards() {
    let mut old = Shard::new(4);
    for second in 1..=20 {
        let position = old.message(5, second);
        if second == 12 {
            let stream = old.core.log.stream();
            old.core.published = Some(CursorRecord { stream, position });
        }
        old.core.tell_time(second * SECOND);
    }
    assert_eq!(old.core.seen_since(10 * SECOND).expect("the log is in memory").len(), 2);
    assert!(old.core.is_published(16 * SECOND));
    assert!(!old.core.is_published(17 * SECOND), "a second more than the overlap");
}

#[test]
fn an_event_looks_the_same_in_every_session() {
    let (mut one, mut other) = (Shard::new(4), Shard::new(4));
    other.message(7, 99);
    one.message(5, 1);
    other.message(5, 1);
    let of_guild = |shard: &Shard| -> Vec<Seen> {
        let seen = shard.core.seen_since(0).expect("the log is in memory");
        seen.into_iter().filter(|seen| seen.guild == 5).collect()
    };
    assert_eq!(of_guild(&one), of_guild(&other), "whatever its sequence and its position are");
    assert_eq!(of_guild(&one).len(), 1);
}

#[test]
fn only_what_is_recent_is_told() {
    let mut shard = Shard::new(4);
    for second in 1..=100 {
        shard.message(5, second);
        shard.core.tell_time(second * SECOND);
    }
    assert_eq!(shard.core.seen_since(90 * SECOND).expect("the log is in memory").len(), 10);
}

/// A shard without a task.
struct Shard {
    core: Core,
    sequence: u64,
}

impl Shard {
    fn new(overlap: u64) -> Self {
        let (store, _) = Store::open(None).expect("it keeps nothing");
        let records = Records::local(store.shard(0, 1));
        let limits = Limits { expiry: std::time::Duration::from_secs(60), max: 4 };
        let log = Log::in_memory(Settings::default());
        let guilds = Guilds::new(Options::default());
        let mut core = Core::new((0, 1), log, guilds, Sessions::new(limits), records);
        core.overlap = std::time::Duration::from_secs(overlap);
        Self { core, sequence: 0 }
    }

    fn ready(&mut self) {
        let data = br#"{"v":10,"user":{"id":"1"},"guilds":[],"session_id":"s","resume_gateway_url":"u","application":{"id":"2","flags":0}}"#;
        self.core.begin_session(data, StreamId::random()).expect("READY is one");
    }

    fn message(&mut self, guild: u64, number: u64) -> Position {
        self.sequence += 1;
        let payload = format!(
            r#"{{"t":"MESSAGE_CREATE","s":{},"op":0,"d":{{"id":"{number}","channel_id":"3","guild_id":"{guild}"}}}}"#,
            self.sequence
        );
        let header = scan(payload.as_bytes()).expect("a payload");
        self.core.dispatch(&header, payload.as_bytes(), number)
    }
}

fn gate(core: &Core) -> Position {
    core.published.expect("it is held there").position
}
