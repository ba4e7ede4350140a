// SPDX-License-Identifier: AGPL-3.0-only
//! What a crash, a damaged disk or somebody's file in the wrong place may leave behind.

use super::*;

#[test]
fn a_crash_at_any_byte_of_the_last_batch_loses_that_batch_only() {
    let (dir, whole, file) = three_batches();
    let bytes = std::fs::read(&file).unwrap();
    let second_end = batch_starts(&bytes)[2];
    for cut in second_end..bytes.len() {
        std::fs::write(&file, &bytes[..cut]).unwrap();
        let writer = writer();
        let mut world = World::open(dir.path(), Settings::default(), &writer);
        assert_eq!((world.log.last(), world.log.last_sequence()), (7, Some(6)), "cut at {cut}");
        world.appended = whole.appended[..6].to_vec();
        world.sequence = 6;
        assert!(world.check(1), "cut at {cut}");
        // The upstream replays, and its events get their positions again.
        assert_eq!(world.append(30), 8);
        world.settle(&writer);
        let world = world.reopen(dir.path(), Settings::default(), &writer);
        assert!(world.check(1), "cut at {cut}");
    }
}

#[test]
fn garbage_after_the_last_batch_is_cut_off() {
    let (dir, whole, file) = three_batches();
    let bytes = std::fs::read(&file).unwrap();
    for garbage in [&[0; 500][..], b"HFb1", &bytes[batch_starts(&bytes)[0]..][..70]] {
        std::fs::write(&file, [&bytes, garbage].concat()).unwrap();
        let (log, recovered) = Log::open(dir.path(), Settings::default(), &writer()).unwrap();
        assert_eq!((recovered.last_position, recovered.last_sequence), (10, Some(9)));
        assert!(World { log, ..World::new(whole.log_of_nothing()) }.same_as(&whole));
        assert_eq!(std::fs::metadata(&file).unwrap().len(), bytes.len() as u64);
    }
}

#[test]
fn a_kill_between_batches_loses_what_was_not_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer();
    let mut world = World::open(dir.path(), Settings::default(), &writer);
    for _ in 0..10 {
        world.append(100);
    }
    world.settle(&writer);
    world.append(100);
    assert_eq!((world.log.stored(), world.log.stored_sequence()), (11, Some(10)));
    drop(world);
    let (log, recovered) = Log::open(dir.path(), Settings::default(), &writer).unwrap();
    assert_eq!((log.last(), recovered.last_sequence), (11, Some(10)));
}

#[test]
fn a_damaged_byte_in_the_middle_costs_its_batch_and_no_position_is_given_twice() {
    let (dir, whole, file) = three_batches();
    let bytes = std::fs::read(&file).unwrap();
    let starts = batch_starts(&bytes);
    for at in (starts[1]..starts[2]).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&file, &damaged).unwrap();
        let (log, recovered) = Log::open(dir.path(), Settings::default(), &writer()).unwrap();
        assert_eq!(recovered.warnings.len(), 1, "byte {at}");
        assert_eq!((log.last(), recovered.last_sequence), (10, Some(9)), "byte {at}");
        let (seen, complete) = follow(&log, 1);
        let positions: Vec<_> = seen.iter().map(|(position, ..)| *position).collect();
        assert_eq!((positions, complete), (vec![2, 3, 4, 8, 9, 10], false), "byte {at}");
        assert_eq!((log.unbroken_from(), log.oldest()), (8, 2));
        assert!(seen.iter().all(|seen| whole.appended.contains(seen)));
    }
}

#[test]
fn damage_that_only_a_read_finds_becomes_a_hole() {
    let (dir, _, file) = three_batches();
    let writer = writer();
    let settings = Settings { memory_bytes: 1 << 10, ..Settings::default() };
    let (mut log, _) = Log::open(dir.path(), settings, &writer).unwrap();
    for _ in 0..30 {
        let (payload, range) = payload(Some(1), 300);
        log.append(entry(&payload, range, Some(1)));
    }
    // The writer is done with what it has: it must not append between our read and our write.
    assert!(writer.barrier(Instant::now() + Duration::from_secs(30)));
    let mut bytes = std::fs::read(&file).unwrap();
    let at = batch_starts(&bytes)[1] + format::BATCH_HEADER + 3;
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let (seen, complete) = follow(&log, 1);
    assert!(!complete);
    let positions: Vec<_> = seen.iter().map(|(position, ..)| *position).take(4).collect();
    assert_eq!(positions, [2, 3, 4, 8]);
    assert_eq!(log.fill().damaged, 1);
}

#[test]
fn a_file_that_is_no_segment_is_set_aside_and_the_rest_is_used() {
    let other_version = {
        let mut header = format::write_segment_header(40);
        header[8] = 99;
        header
    };
    let unlike_its_name = format::write_segment_header(41);
    let cases: [(&str, &[u8]); 5] = [
        ("00000000000000000001.seg", b"somebody's text, longer than any header of ours"),
        ("00000000000000000040.seg", &other_version),
        ("00000000000000000042.seg", &unlike_its_name),
        ("notes.seg", &unlike_its_name),
        ("00000000000000000005.seg", &format::write_segment_header(5)),
    ];
    for (name, content) in cases {
        let (dir, whole, _) = three_batches();
        let path = dir.path().join("log").join(name);
        std::fs::write(&path, content).unwrap();
        let (log, recovered) = Log::open(dir.path(), Settings::default(), &writer()).unwrap();
        assert_eq!(recovered.warnings.len(), 1, "{name}: {:?}", recovered.warnings);
        assert!(!path.exists());
        let kept = segments(dir.path())
            .into_iter()
            .find(|path| path.to_string_lossy().contains(&format!("{name}.set-aside-")));
        assert_eq!(std::fs::read(kept.unwrap()).unwrap(), content, "{name}");
        assert_eq!(log.last(), 10, "{name}");
        assert!(World { log, ..World::new(whole.log_of_nothing()) }.same_as(&whole));
    }
}

#[test]
fn a_segment_that_was_only_begun_disappears() {
    for len in [0, 5, 31] {
        let (dir, _, _) = three_batches();
        let path = dir.path().join("log/00000000000000000011.seg");
        std::fs::write(&path, &format::write_segment_header(11)[..len]).unwrap();
        let (log, recovered) = Log::open(dir.path(), Settings::default(), &writer()).unwrap();
        assert_eq!((recovered.warnings.len(), log.last()), (0, 10));
        assert!(!path.exists());
    }
}

#[test]
fn a_stream_without_events_is_remembered() {
    let (dir, whole, _) = three_batches();
    let writer = writer();
    let (mut log, _) = Log::open(dir.path(), Settings::default(), &writer).unwrap();
    let stream = StreamId::random();
    let gap = log.start_stream(stream);
    assert_eq!((gap.stream, gap.from, gap.to), (whole.appended[0].1, 10, 11));
    assert_eq!(log.flush(), Flush::Handed);
    assert!(writer.barrier(Instant::now() + Duration::from_secs(20)));
    assert_eq!(log.stored_sequence(), None);
    drop(log);
    let (log, recovered) = Log::open(dir.path(), Settings::default(), &writer).unwrap();
    assert_eq!((recovered.stream, recovered.last_sequence, recovered.last_position), (stream, None, 10));
    assert_eq!(log.stream(), stream);
}

#[test]
fn segments_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, _, file) = three_batches();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&dir.path().join("log")), 0o700);
}

impl World {
    fn log_of_nothing(&self) -> Log {
        Log::in_memory(Settings::default())
    }

    fn same_as(&self, whole: &World) -> bool {
        follow(&self.log, 1) == (whole.appended.clone(), true)
    }
}

/// A log of positions 2 to 10 in three batches of three, closed; what was appended; its only segment.
fn three_batches() -> (tempfile::TempDir, World, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer();
    let mut world = World::open(dir.path(), Settings::default(), &writer);
    for _ in 0..3 {
        for _ in 0..3 {
            world.append(20);
        }
        world.settle(&writer);
    }
    let files = segments(dir.path());
    assert_eq!(files.len(), 1);
    let world = World { log: Log::in_memory(Settings::default()), ..world };
    (dir, world, files[0].clone())
}

fn batch_starts(segment: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = format::SEGMENT_HEADER;
    while let Some(header) = format::batch_header(&segment[at..]) {
        starts.push(at);
        at += header.len() as usize;
    }
    assert_eq!(at, segment.len());
    starts
}
