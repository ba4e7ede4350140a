// SPDX-License-Identifier: AGPL-3.0-only
//! Writing behind: bounds, a writer that lags or fails, reading while it writes.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn what_memory_no_longer_holds_is_read_from_disk() {
    let (dir, writer) = (tempfile::tempdir().unwrap(), writer());
    let mut world = World::open(dir.path(), small(), &writer);
    for at in 0..500 {
        world.append(at % 300);
        if at % 20 == 0 {
            world.settle(&writer);
        }
    }
    assert!(world.log.oldest_in_memory() > 300);
    assert!(matches!(world.log.read(1), Read::Disk(_)));
    assert!(world.check(1));
    world.settle(&writer);
    let world = world.reopen(dir.path(), small(), &writer);
    assert!(world.check(1));
}

#[test]
fn what_is_above_a_position_is_counted_in_memory_and_on_disk() {
    let (dir, writer) = (tempfile::tempdir().unwrap(), writer());
    let mut world = World::open(dir.path(), small(), &writer);
    let in_order = |world: &World| {
        let counts: Vec<u64> =
            (1..=world.log.last()).map(|position| world.log.bytes_after(position)).collect();
        assert!(counts.is_sorted_by(|above, below| above >= below), "{counts:?}");
        assert_eq!(counts.last(), Some(&0));
        counts[0]
    };
    world.append_all(20, 100);
    let in_memory = in_order(&world);
    assert!(in_memory > 20 * 100 && in_memory < 20 * 200, "{in_memory}");
    for _ in 0..20 {
        world.append_all(20, 100);
        world.settle(&writer);
    }
    let on_disk = in_order(&world);
    assert!(world.log.oldest_in_memory() > 20, "some is on disk only");
    assert!(on_disk > 420 * 100 && on_disk <= world.log.disk_bytes(), "{on_disk}");
    assert_eq!(world.log.bound(), small().disk_bytes);
}

#[test]
fn batches_are_due_by_number_and_by_age() {
    let (dir, writer) = (tempfile::tempdir().unwrap(), writer());
    let settings = Settings { batch_events: 64, ..Settings::default() };
    let mut world = World::open(dir.path(), settings, &writer);
    let start = Instant::now();
    assert!(!world.log.flush_due(start));
    world.append_all(63, 1);
    assert!(!world.log.flush_due(start));
    world.append(1);
    assert!(world.log.flush_due(start));
    world.append(1);
    assert!(!world.log.flush_due(start));
    assert!(!world.log.flush_due(start + Duration::from_millis(249)));
    assert!(world.log.flush_due(start + Duration::from_millis(250)));
    assert!(!world.log.flush_due(start + Duration::from_secs(9)));
}

#[test]
fn the_disk_bound_removes_the_oldest_and_says_when_a_checkpoint_is_cut() {
    let (dir, writer) = (tempfile::tempdir().unwrap(), writer());
    let settings = Settings { disk_bytes: 64 << 10, ..small() };
    let mut world = World::open(dir.path(), settings.clone(), &writer);
    world.log.keep_from(100);
    for at in 0..1_000 {
        world.append(100);
        if at % 10 == 0 {
            world.settle(&writer);
            assert!(world.log.disk_bytes() <= settings.disk_bytes, "{}", world.log.disk_bytes());
        }
        if world.log.oldest() <= 100 {
            assert!(!world.log.cut_above_checkpoint());
        }
    }
    world.settle(&writer);
    let on_disk: u64 = segments(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(on_disk, world.log.disk_bytes());
    assert!(on_disk > 48 << 10, "most of the bound is used: {on_disk}");
    assert!(world.log.cut_above_checkpoint());
    world.log.keep_from(world.log.last());
    assert!(!world.log.cut_above_checkpoint());
    let oldest = world.log.oldest();
    assert!(matches!(world.log.read(1), Read::Gone { oldest: told } if told == oldest));
    assert!(world.check(oldest - 1));
}

#[test]
fn age_removes_segments_that_no_checkpoint_needs() {
    let settings = Settings { disk_bytes: 64 << 10, ..small() };
    for (keep_from, kept) in [(2, true), (1_000, false)] {
        let (dir, writer) = (tempfile::tempdir().unwrap(), writer());
        let mut world = World::open(dir.path(), settings.clone(), &writer);
        world.log.keep_from(keep_from);
        for _ in 0..150 {
            world.append_at(100, 1_000);
            world.settle(&writer);
        }
        assert_eq!(world.log.oldest() == 2, kept, "{}", world.log.oldest());
    }
}

#[test]
fn a_large_payload_goes_to_disk_and_comes_back() {
    let (dir, writer) = (tempfile::tempdir().unwrap(), writer());
    let mut world = World::open(dir.path(), small(), &writer);
    world.append(5);
    world.append(3 << 20);
    world.append(5);
    world.settle(&writer);
    for _ in 0..100 {
        world.append(200);
        world.settle(&writer);
    }
    let world = world.reopen(dir.path(), small(), &writer);
    assert!(world.check(1));
}

#[test]
fn a_writer_that_lags_costs_no_memory_beyond_the_bound_and_what_is_lost_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::start(WriterSettings { queue: 1, ..WriterSettings::default() }).unwrap();
    // A pipe that nobody empties would be slow; a stopped writer is slower still.
    assert!(writer.flush_and_stop(Instant::now() + Duration::from_secs(20)));
    let mut world = World::open(dir.path(), small(), &writer);
    for _ in 0..2_000 {
        world.append(200);
        assert!(world.log.memory_bytes() <= small().memory_bytes as u64 + 2_048);
    }
    let fill = world.log.fill();
    assert!(fill.dropped_unstored > 1_000, "{fill:?}");
    let (seen, complete) = follow(&world.log, 1);
    assert!(!complete);
    assert_eq!(fill.dropped_unstored + seen.len() as u64, 2_000, "each entry is there or counted");
    assert!(!world.check(1));
    assert!(world.log.unbroken_from() > 1_000);
}

#[test]
fn a_disk_that_fails_and_comes_back_gets_what_is_still_in_memory() {
    let (dir, writer) = (tempfile::tempdir().unwrap(), writer());
    let mut world = World::open(dir.path(), Settings::default(), &writer);
    std::fs::remove_dir(dir.path().join("log")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut now = Instant::now();
    for _ in 0..10 {
        world.append_all(64, 50);
        world.log.flush_due(now);
        now += Duration::from_millis(500);
        assert!(writer.barrier(deadline));
        assert!(world.check(1), "it goes on in memory");
    }
    assert_eq!((world.log.stored(), world.log.stored_sequence()), (1, None));
    let errors = writer.counts().errors;
    assert!((2..10).contains(&errors), "it tries again, but not each time: {errors}");
    std::fs::create_dir(dir.path().join("log")).unwrap();
    for _ in 0..4 {
        now += Duration::from_secs(1);
        world.log.flush_due(now);
        assert!(writer.barrier(deadline));
    }
    assert_eq!(world.log.stored(), world.log.last());
    let world = world.reopen(dir.path(), Settings::default(), &writer);
    assert!(world.check(1));
    assert_eq!(world.log.fill().dropped_unstored, 0);
}

#[test]
fn a_removed_segment_is_gone_and_not_an_error_without_end() {
    let (dir, writer) = (tempfile::tempdir().unwrap(), writer());
    let mut world = World::open(dir.path(), small(), &writer);
    for _ in 0..300 {
        world.append(200);
        world.settle(&writer);
    }
    std::fs::remove_file(&segments(dir.path())[0]).unwrap();
    assert!(!world.check(1));
}

#[test]
fn readers_follow_from_disk_while_the_writer_writes_and_removes() {
    let (dir, writer) = (tempfile::tempdir().unwrap(), writer());
    let settings = Settings { disk_bytes: 256 << 10, ..small() };
    let world = World::open(dir.path(), settings, &writer);
    let shared = std::sync::Mutex::new(world);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| read_until(&shared, &done));
        }
        for _ in 0..3_000 {
            let mut world = shared.lock().unwrap();
            world.append(150);
            world.log.flush();
        }
        done.store(true, Ordering::Release);
    });
    let mut world = shared.into_inner().unwrap();
    world.settle(&writer);
    world.check(1);
}

/// Reads on and on with the lock held only for the question, as a client's task does.
fn read_until(shared: &std::sync::Mutex<World>, done: &AtomicBool) {
    let mut cursor = 1;
    loop {
        let was_done = done.load(Ordering::Acquire);
        let read = {
            let world = shared.lock().unwrap();
            match world.log.read(cursor) {
                Read::End if was_done => return,
                Read::End => continue,
                Read::Gone { oldest } => {
                    assert!(oldest > cursor + 1);
                    cursor = oldest - 1;
                    continue;
                }
                Read::Memory(run) => {
                    // Slowly, so that memory gets ahead of this reader.
                    assert_eq!(run.metas[0].position, cursor + 1);
                    cursor += 1;
                    continue;
                }
                Read::Disk(read) => read,
            }
        };
        let run = read.read(1_000).unwrap();
        for (index, meta) in run.metas.iter().enumerate() {
            assert_eq!(meta.position, cursor + 1);
            assert_eq!(run.as_run().payload(index), payload(Some(meta.position), 150).0);
            cursor = meta.position;
        }
    }
}

fn small() -> Settings {
    Settings { memory_bytes: 16 << 10, disk_bytes: 4 << 20, ..Settings::default() }
}
