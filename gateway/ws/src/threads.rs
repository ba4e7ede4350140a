// SPDX-License-Identifier: AGPL-3.0-only
//! One thread per core, each with a runtime of its own: a shard and its clients on one thread share their
//! data without other cores' caches. In: how many. Out: handles to spawn on. Ends when dropped.

use std::{io, thread::JoinHandle};

use tokio::{runtime::Handle, sync::oneshot};

/// Polls of tasks between two looks at timers and sockets.
const EVENT_INTERVAL: u32 = 8;

/// The threads; dropping them ends their runtimes.
pub(crate) struct Threads {
    handles: Vec<Handle>,
    stops: Vec<oneshot::Sender<()>>,
    joins: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The system refuses a thread or its poll.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let mut threads = Self { handles: Vec::new(), stops: Vec::new(), joins: Vec::new() };
        for number in 0..count.max(1) {
            // Timers, sockets and wakes from outside are looked at after so many polls. A poll may build a guild,
            // which takes about a millisecond: with tokio's own 61 a heartbeat would wait for too many of them.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .event_interval(EVENT_INTERVAL)
                .global_queue_interval(EVENT_INTERVAL)
                .enable_all()
                .build()?;
            let (stop, stopped) = oneshot::channel::<()>();
            threads.handles.push(runtime.handle().clone());
            threads.stops.push(stop);
            let join = std::thread::Builder::new().name(format!("ws-{number}")).spawn(move || {
                // Ends when the sender is dropped, too.
                let _ = runtime.block_on(stopped);
            })?;
            threads.joins.push(join);
        }
        Ok(threads)
    }

    /// Their runtimes.
    pub(crate) fn all(&self) -> Vec<Handle> {
        self.handles.clone()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stops.clear();
        for join in self.joins.drain(..) {
            let _ = join.join();
        }
    }
}
