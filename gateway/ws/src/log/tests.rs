// SPDX-License-Identifier: AGPL-3.0-only
//! Tests of the log as a whole: memory, disk and recovery against a plain list of what was appended.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_discord::EventKind;
use proptest::prelude::*;

use super::*;

mod crash;
mod disk;

#[test]
fn positions_begin_at_two_and_the_frame_carries_them() {
    let mut log = Log::in_memory(Settings::default());
    assert_eq!((log.last(), log.oldest(), log.last_sequence()), (1, 2, None));
    assert!(matches!(log.read(1), Read::End));
    let (payload, range) = payload(Some(9_999), 10);
    let position = log.append(entry(&payload, range, Some(9_999)));
    assert_eq!((position, log.last(), log.last_sequence()), (2, 2, Some(9_999)));
    let Read::Memory(run) = log.read(1) else { panic!("it is in memory") };
    let meta = run.metas[0];
    let text = std::str::from_utf8(run.payload(0)).unwrap();
    assert_eq!(text, r#"{"t":"MESSAGE_CREATE","s":2,"op":0,"d":{"x":"xxxxxxxxxx"}}"#);
    let digits = meta.digits_at as usize..meta.digits_at as usize + usize::from(meta.digits);
    assert_eq!(&text[digits], "2");
    assert_eq!(run.frame(0)[..2], [0x81, text.len() as u8]);
    assert_eq!((meta.kind, meta.guild, meta.needs), (EventKind::MessageCreate, 7, 1 << 9));
    assert!(matches!(log.read(2), Read::End));
    assert!(matches!(log.read(u64::MAX), Read::End));
}

#[test]
fn an_event_without_a_sequence_has_its_null_replaced() {
    let mut log = Log::in_memory(Settings::default());
    let payload = br#"{"op":0,"d":{},"s":null,"t":"INTERACTION_CREATE"}"#;
    let at = 19..23;
    assert_eq!(&payload[at.clone()], b"null");
    log.append(entry(payload, at, None));
    let Read::Memory(run) = log.read(1) else { panic!("it is in memory") };
    assert_eq!(run.payload(0), br#"{"op":0,"d":{},"s":2,"t":"INTERACTION_CREATE"}"#);
    assert_eq!(log.last_sequence(), None);
}

#[test]
fn memory_is_bounded_and_what_was_evicted_is_gone() {
    let settings = Settings { memory_bytes: 64 << 10, ..Settings::default() };
    let mut world = World::new(Log::in_memory(settings));
    for _ in 0..2_000 {
        world.append(700);
        assert!(world.log.memory_bytes() <= 64 << 10, "{}", world.log.memory_bytes());
    }
    assert!(world.log.fill().memory_entries > 50, "{:?}", world.log.fill());
    let Read::Gone { oldest } = world.log.read(1) else { panic!("it was evicted") };
    assert_eq!((oldest, log_oldest(&world.log)), (world.log.oldest(), oldest));
    assert!(!world.check(1));
    assert!(world.check(oldest - 1));
}

#[test]
fn what_is_on_disk_leaves_memory_with_age_and_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer();
    let (mut log, _) = Log::open(dir.path(), Settings::default(), &writer).unwrap();
    for sequence in 1..=3 {
        let (bytes, range) = payload(Some(sequence), 100);
        log.append(entry(&bytes, range, Some(sequence)));
    }
    log.forget_before(2);
    assert_eq!(log.oldest_in_memory(), FIRST, "not on disk yet: it stays");
    log.flush();
    assert!(writer.barrier(Instant::now() + Duration::from_secs(30)));
    log.forget_before(1);
    assert_eq!(log.oldest_in_memory(), FIRST, "young enough: it stays");
    log.forget_before(2);
    assert_eq!(log.oldest_in_memory(), log.last() + 1);
    let (seen, complete) = follow(&log, FIRST - 1);
    assert!(complete);
    assert_eq!(seen.len(), 3);
    let (bytes, range) = payload(Some(4), 100);
    log.append(entry(&bytes, range, Some(4)));
    assert_eq!(follow(&log, FIRST - 1).0.len(), 4);
}

#[test]
fn a_payload_larger_than_all_memory_is_kept_until_the_next() {
    let settings = Settings { memory_bytes: 64 << 10, ..Settings::default() };
    let mut world = World::new(Log::in_memory(settings));
    world.append(100);
    world.append(5 << 20);
    assert!(world.check(2));
    world.append(100);
    assert!(world.log.memory_bytes() <= 64 << 10);
    assert!(world.check(3));
}

#[test]
fn a_stream_ends_runs_and_tells_where_events_may_be_missing() {
    let mut world = World::new(Log::in_memory(Settings::default()));
    world.append(10);
    let before = world.log.stream();
    let gap = world.start_stream();
    assert_eq!(gap, Gap { stream: before, from: 2, to: 3 });
    assert_eq!(world.log.last_sequence(), None);
    world.append(10);
    let Read::Memory(run) = world.log.read(1) else { panic!("it is in memory") };
    assert_eq!((run.metas.len(), run.stream), (1, before));
    assert!(world.check(1));
}

#[test]
fn positions_that_another_record_knows_are_not_given_again() {
    let mut world = World::new(Log::in_memory(Settings::default()));
    world.append(10);
    world.log.skip_to(500);
    assert!(matches!(world.log.read(1), Read::Gone { oldest: 501 }));
    assert_eq!(world.append(10), 501);
    world.log.skip_to(3);
    assert_eq!(world.log.last(), 501);
    assert!(world.check(500));
}

#[test]
fn spans_of_frames_are_one_piece() {
    let mut world = World::new(Log::in_memory(Settings::default()));
    for _ in 0..5 {
        world.append(200);
    }
    let Read::Memory(run) = world.log.read(2) else { panic!("it is in memory") };
    assert_eq!(run.metas.len(), 4);
    assert_eq!(run.frames(0..0), b"");
    let joined: Vec<u8> = (1..3).flat_map(|index| run.frame(index).to_vec()).collect();
    assert_eq!(run.frames(1..3), joined);
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Burst(usize),
    Flush,
    Due,
    Barrier,
    Stream,
    Reopen,
    ReadFrom(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_usize..900).prop_map(Step::Append),
        2 => (1_usize..60).prop_map(Step::Burst),
        1 => (3_000_usize..9_000).prop_map(Step::Append),
        2 => Just(Step::Flush),
        2 => Just(Step::Due),
        2 => Just(Step::Barrier),
        1 => Just(Step::Stream),
        1 => Just(Step::Reopen),
        3 => any::<u64>().prop_map(Step::ReadFrom),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_disk_read_as_the_plain_list_does(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer();
        let settings = Settings { memory_bytes: 8 << 10, disk_bytes: 64 << 10, ..Settings::default() };
        let mut world = World::open(dir.path(), settings.clone(), &writer);
        let mut now = Instant::now();
        let mut dropped = 0;
        for step in steps {
            match step {
                Step::Append(len) => { world.append(len); }
                Step::Burst(count) => (0..count).for_each(|at| { world.append(at * 5); }),
                Step::Flush => { world.log.flush(); }
                Step::Due => {
                    now += Duration::from_millis(100);
                    world.log.flush_due(now);
                }
                Step::Barrier => world.settle(&writer),
                Step::Stream => { world.start_stream(); }
                Step::Reopen => {
                    world.settle(&writer);
                    dropped += world.log.fill().dropped_unstored;
                    world = world.reopen(dir.path(), settings.clone(), &writer);
                }
                Step::ReadFrom(cursor) => { world.check(cursor % (world.log.last() + 2)); }
            }
            // A frame may be larger than all: then it is there alone, and once more on its way to the disk.
            prop_assert!(world.log.memory_bytes() <= (8 << 10) + (20 << 10), "{:?}", world.log.fill());
        }
        world.settle(&writer);
        world.check(1);
        let oldest = world.log.oldest();
        if dropped + world.log.fill().dropped_unstored == 0 {
            prop_assert!(world.check(oldest - 1), "nothing between the oldest and the last is missing");
            prop_assert_eq!(world.log.unbroken_from(), oldest);
        }
        prop_assert!(world.log.disk_bytes() <= (64 << 10) + (10 << 10), "{:?}", world.log.fill());
    }
}

/// A log and the plain list of what was appended to it.
pub(super) struct World {
    pub(super) log: Log,
    pub(super) appended: Vec<(Position, StreamId, Option<u64>, Vec<u8>)>,
    pub(super) sequence: u64,
}

impl World {
    pub(super) fn new(log: Log) -> World {
        World { log, appended: Vec::new(), sequence: 0 }
    }

    pub(super) fn open(dir: &Path, settings: Settings, writer: &Writer) -> World {
        let (log, recovered) = Log::open(dir, settings, writer).unwrap();
        assert_eq!(recovered.warnings, Vec::<String>::new());
        World::new(log)
    }

    pub(super) fn append(&mut self, len: usize) -> Position {
        self.append_at(len, segment::now_ms())
    }

    pub(super) fn append_at(&mut self, len: usize, received_ms: u64) -> Position {
        self.sequence += 1;
        let (sent, range) = payload(Some(self.sequence), len);
        let entry = Entry { received_ms, ..entry(&sent, range, Some(self.sequence)) };
        let position = self.log.append(entry);
        let expected = payload(Some(position), len).0;
        self.appended.push((position, self.log.stream(), Some(self.sequence), expected));
        position
    }

    pub(super) fn append_all(&mut self, count: usize, len: usize) {
        for _ in 0..count {
            self.append(len);
        }
    }

    pub(super) fn start_stream(&mut self) -> Gap {
        self.sequence = 0;
        self.log.start_stream(StreamId::random())
    }

    /// Everything that can be stored is.
    pub(super) fn settle(&mut self, writer: &Writer) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.log.flush() != Flush::Idle {
            assert!(writer.barrier(deadline), "the writer keeps up");
        }
        assert!(writer.barrier(deadline), "the writer keeps up");
        assert_eq!(self.log.stored(), self.log.last());
        assert_eq!(self.log.stored_sequence(), self.log.last_sequence());
    }

    pub(super) fn reopen(self, dir: &Path, settings: Settings, writer: &Writer) -> World {
        let (last, sequence, stream) = (self.log.last(), self.log.last_sequence(), self.log.stream());
        drop(self.log);
        let (log, recovered) = Log::open(dir, settings, writer).unwrap();
        assert_eq!(recovered.warnings, Vec::<String>::new());
        assert_eq!((recovered.last_position, recovered.last_sequence), (last, sequence));
        if last >= FIRST {
            assert_eq!(recovered.stream, stream);
        }
        World { log, ..self }
    }

    /// Follows the log and compares. Returns whether nothing was missing.
    pub(super) fn check(&self, after: Position) -> bool {
        let (seen, complete) = follow(&self.log, after);
        let first = self.appended.first().map_or(0, |(position, ..)| *position);
        for (position, stream, sequence, payload) in &seen {
            let at = self.appended.binary_search_by_key(position, |(position, ..)| *position);
            let expected = &self.appended[at.expect("only what was appended is read")];
            assert_eq!((expected.1, expected.2), (*stream, *sequence), "at {position} of {first}");
            assert!(expected.3 == *payload, "at {position}");
        }
        for pair in seen.windows(2) {
            assert!(pair[0].0 < pair[1].0, "in order, each once");
            assert!(!complete || pair[0].0 + 1 == pair[1].0, "without a hole");
        }
        if let Some((last, ..)) = self.appended.last()
            && after < *last
            && complete
        {
            assert_eq!(seen.last().map(|(position, ..)| *position), Some(*last));
        }
        let mut replayed = Vec::new();
        let done =
            self.log.replay(after, |meta, payload| replayed.push((meta.position, payload.to_vec()))).unwrap();
        assert_eq!((done.entries, done.complete), (seen.len() as u64, complete));
        assert!(replayed.iter().zip(&seen).all(|(a, b)| a.0 == b.0 && a.1 == b.3));
        complete
    }
}

pub(super) type Seen = (Position, StreamId, Option<u64>, Vec<u8>);

/// What a reader sees that goes on after whatever is gone.
pub(super) fn follow(log: &Log, after: Position) -> (Vec<Seen>, bool) {
    let mut seen = Vec::new();
    let mut complete = true;
    let mut cursor = after;
    loop {
        let owned;
        let run = match log.read(cursor) {
            Read::End => return (seen, complete),
            Read::Gone { oldest } => {
                assert!(oldest > cursor + 1, "a reader gets on");
                complete = false;
                cursor = oldest - 1;
                continue;
            }
            Read::Memory(run) => run,
            Read::Disk(read) => {
                owned = read.read(3_000).unwrap();
                owned.as_run()
            }
        };
        for (index, meta) in run.metas.iter().enumerate() {
            assert_eq!(meta.position, cursor + 1, "a run begins where it was asked for and has no holes");
            cursor = meta.position;
            seen.push((cursor, run.stream, meta.sequence, run.payload(index).to_vec()));
        }
    }
}

pub(super) fn payload(sequence: Option<u64>, len: usize) -> (Vec<u8>, Range<usize>) {
    let sequence = sequence.map_or("null".to_owned(), |sequence| sequence.to_string());
    let before = r#"{"t":"MESSAGE_CREATE","s":"#;
    let text = format!(r#"{before}{sequence},"op":0,"d":{{"x":"{}"}}}}"#, "x".repeat(len));
    (text.into_bytes(), before.len()..before.len() + sequence.len())
}

pub(super) fn entry(payload: &[u8], sequence_range: Range<usize>, sequence: Option<u64>) -> Entry<'_> {
    let kind = EventKind::MessageCreate;
    Entry { sequence, kind, guild: 7, audience: 0, received_ms: 1, payload, sequence_range, data: 0..0 }
}

pub(super) fn writer() -> Writer {
    Writer::start(WriterSettings::default()).unwrap()
}

pub(super) fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir.join("log")).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn log_oldest(log: &Log) -> Position {
    log.oldest_in_memory()
}
