// SPDX-License-Identifier: AGPL-3.0-only
//! The thread that writes all shards' batches to disk. In: batches, from a bounded queue. Out: segments, and
//! the position up to which they are stored, in each shard's shared numbers.
//! Owned by the service: [`Writer::flush_and_stop`] ends the thread; it also ends when all handles are gone.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::WriterSettings;
use super::batch::{Batch, Spares};
use super::disk::Disk;
use super::segment::{self, Appender, Syncer};

/// A handle on the writer's thread; clones are handles on the same.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: Queue,
}

/// What the writer has done since start, over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Batches written.
    pub batches: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Writes that failed.
    pub errors: u64,
    /// Times that a log found the queue full.
    pub queue_full: u64,
}

/// A log's way to the writer.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: SyncSender<Job>,
    counters: Arc<Counters>,
    pub(super) spares: Arc<Spares>,
}

#[derive(Debug, Default)]
struct Counters {
    batches: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    queue_full: AtomicU64,
}

#[derive(Debug)]
enum Job {
    Write(Arc<Disk>, Arc<Batch>),
    /// Everything queued before has been written (and `true`: synced and the thread ends).
    Barrier(SyncSender<()>, bool),
}

impl Queue {
    /// Queues a batch; gives it back when the queue is full or the writer has stopped.
    pub(super) fn send(&self, disk: &Arc<Disk>, batch: Arc<Batch>) -> Result<(), Arc<Batch>> {
        self.sender.try_send(Job::Write(Arc::clone(disk), Arc::clone(&batch))).map_err(|_| {
            self.counters.queue_full.fetch_add(1, Ordering::Relaxed);
            batch
        })
    }
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system can't start one.
    pub fn start(settings: WriterSettings) -> io::Result<Writer> {
        let (sender, receiver) = sync_channel(settings.queue.max(1));
        let counters = Arc::new(Counters::default());
        let thread =
            Thread { shards: HashMap::new(), counters: Arc::clone(&counters), syncer: Syncer::start()? };
        std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || thread.run(&receiver, settings.housekeeping))?;
        Ok(Writer { queue: Queue { sender, counters, spares: Arc::default() } })
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counters = &self.queue.counters;
        Counts {
            batches: counters.batches.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            errors: counters.errors.load(Ordering::Relaxed),
            queue_full: counters.queue_full.load(Ordering::Relaxed),
        }
    }

    /// Waits until all that was queued so far is written, at most until `deadline`. Blocks. Returns whether it is.
    pub fn barrier(&self, deadline: Instant) -> bool {
        self.wait(deadline, false)
    }

    /// Waits like [`Writer::barrier`], syncs the files, and ends the thread. Logs should have flushed before.
    pub fn flush_and_stop(&self, deadline: Instant) -> bool {
        self.wait(deadline, true)
    }

    fn wait(&self, deadline: Instant, stop: bool) -> bool {
        let (done, wait) = sync_channel(1);
        let mut job = Job::Barrier(done, stop);
        loop {
            match self.queue.sender.try_send(job) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return stop,
                Err(TrySendError::Full(_)) if Instant::now() >= deadline => return false,
                Err(TrySendError::Full(back)) => job = back,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        wait.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }
}

struct Thread {
    shards: HashMap<PathBuf, Shard>,
    counters: Arc<Counters>,
    syncer: Syncer,
}

struct Shard {
    disk: Arc<Disk>,
    appender: Appender,
    failing: bool,
}

impl Thread {
    fn run(mut self, jobs: &Receiver<Job>, housekeeping: Duration) {
        let mut next = Instant::now() + housekeeping;
        loop {
            match jobs.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Job::Write(disk, batch)) => self.write(disk, &batch),
                Ok(Job::Barrier(done, stop)) => {
                    if stop {
                        self.sync();
                    }
                    // Who waits may have given up.
                    let _ = done.try_send(());
                    if stop {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
            if Instant::now() >= next {
                self.shards.values().for_each(|shard| segment::remove(&shard.disk, 0));
                next = Instant::now() + housekeeping;
            }
        }
    }

    fn write(&mut self, disk: Arc<Disk>, batch: &Batch) {
        let shard = match self.shards.get_mut(&disk.dir) {
            // A log that was opened again begins with its own view of the files.
            Some(shard) if Arc::ptr_eq(&shard.disk, &disk) => shard,
            _ => self.shards.entry(disk.dir.clone()).insert_entry(Shard::new(disk)).into_mut(),
        };
        if batch.attempt <= shard.disk.failed_attempt() {
            return;
        }
        match shard.appender.append(&shard.disk, batch, &self.syncer) {
            Ok(bytes) => {
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
                if std::mem::take(&mut shard.failing) {
                    tracing::info!(dir = %shard.disk.dir.display(), "the log reaches the disk again");
                }
            }
            Err(error) => {
                shard.disk.fail(batch.attempt);
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut shard.failing, true) {
                    tracing::warn!(
                        dir = %shard.disk.dir.display(), %error,
                        "the log can't be written: it goes on in memory, and tries again"
                    );
                }
            }
        }
    }

    fn sync(&mut self) {
        for shard in self.shards.values_mut() {
            if let Err(error) = shard.appender.sync() {
                tracing::warn!(dir = %shard.disk.dir.display(), %error, "the log's last segment was not synced");
            }
        }
    }
}

impl Shard {
    fn new(disk: Arc<Disk>) -> Shard {
        Shard { disk, appender: Appender::default(), failing: false }
    }
}
