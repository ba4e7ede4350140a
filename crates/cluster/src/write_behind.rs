// SPDX-License-Identifier: AGPL-3.0-only
//! The thread that writes records, so that no task waits for the disk. In: changes by path; a later one takes the
//! place of one that still waits, so the queue holds at most one per record. Out: files.
//! Owned by the store: dropping it lets the thread finish what is queued, and waits for that.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::file;

/// Some of what was saved since the last flush isn't on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} records could not be written")]
pub struct WriteFailed(pub u64);

/// What becomes of a file.
#[derive(Debug)]
pub(crate) enum Change {
    Write(Vec<u8>),
    Remove,
}

/// Counts failed writes of one shard's records.
pub(crate) type Failures = Arc<AtomicU64>;

#[derive(Debug)]
pub(crate) struct WriteBehind {
    shared: Arc<Shared>,
    done: watch::Receiver<u64>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: HashMap<PathBuf, (Change, Failures)>,
    order: VecDeque<PathBuf>,
    bytes: usize,
    /// Number of changes ever queued; the thread counts how many it has done.
    queued: u64,
    stopping: bool,
}

impl Shared {
    /// The queue's parts are changed together under one lock, without anything between that could panic.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriteBehind {
    pub(crate) fn start() -> io::Result<WriteBehind> {
        let shared = Arc::new(Shared::default());
        let (progress, done) = watch::channel(0);
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(&own, &progress))?;
        Ok(WriteBehind { shared, done, thread: Some(thread) })
    }

    /// Queues a change. `bound`: refused when so many bytes wait already, unless it replaces one that waits.
    pub(crate) fn put(&self, path: PathBuf, change: Change, failures: &Failures, bound: usize) -> bool {
        let mut queue = self.shared.lock();
        let replaces = queue.waiting.contains_key(&path);
        if !replaces && queue.bytes >= bound {
            return false;
        }
        queue.bytes += change.len();
        if let Some((before, _)) = queue.waiting.insert(path.clone(), (change, Arc::clone(failures))) {
            queue.bytes -= before.len();
        }
        if !replaces {
            queue.order.push_back(path);
            queue.queued += 1;
            self.shared.wake.notify_one();
        }
        true
    }

    /// Waits until everything queued so far has been done.
    pub(crate) async fn flush(&self) {
        let target = self.shared.lock().queued;
        // The thread ends only after the last change, and with it the channel.
        let _ = self.done.clone().wait_for(|done| *done >= target).await;
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its own hook.
            let _ = thread.join();
        }
    }
}

impl Change {
    fn len(&self) -> usize {
        match self {
            Change::Write(body) => body.len(),
            Change::Remove => 0,
        }
    }

    fn apply(&self, path: &std::path::Path) -> io::Result<()> {
        match self {
            Change::Write(body) => file::write(path, body),
            Change::Remove => match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }
}

fn run(shared: &Shared, progress: &watch::Sender<u64>) {
    let mut failing = false;
    while let Some((path, change, failures)) = next(shared) {
        match change.apply(&path) {
            Ok(()) if failing => {
                failing = false;
                tracing::info!("records reach the disk again");
            }
            Ok(()) => {}
            Err(error) => {
                failures.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(path = %path.display(), %error, "records can't be written");
                }
            }
        }
        progress.send_modify(|done| *done += 1);
    }
}

/// The change that has waited longest; `None` when the store has gone and all is done.
fn next(shared: &Shared) -> Option<(PathBuf, Change, Failures)> {
    let mut queue = shared.lock();
    loop {
        if let Some(path) = queue.order.pop_front() {
            let (change, failures) = queue.waiting.remove(&path)?;
            queue.bytes -= change.len();
            return Some((path, change, failures));
        }
        if queue.stopping {
            return None;
        }
        queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}
