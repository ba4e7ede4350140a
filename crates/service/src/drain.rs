// SPDX-License-Identifier: AGPL-3.0-only
//! The end of a process: the first SIGTERM or SIGINT asks everything to end in order, the second ends at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{Exit, Tasks};

/// The signals that end a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Cancels `shutdown` on the first SIGTERM or SIGINT, and ends the process with [`Exit::DrainDeadline`] on the second.
/// The task belongs to `tasks`, which has to outlive the drain.
///
/// # Errors
/// The system refuses to have the signals handled.
pub fn on_signals(shutdown: CancellationToken, tasks: &Tasks) -> io::Result<()> {
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let ended = tasks.token().clone();
    tasks.spawn("signals", async move {
        let first = tokio::select! {
            biased;
            () = ended.cancelled() => return,
            name = signals.next() => name,
        };
        tracing::info!(signal = first, "draining; a second signal ends at once");
        shutdown.cancel();
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            name = signals.next() => {
                tracing::warn!(signal = name, "ending at once, what was not drained stays undone");
                std::process::exit(Exit::DrainDeadline as i32);
            }
        }
    });
    Ok(())
}
