// SPDX-License-Identifier: AGPL-3.0-only
//! The task of one client with a session, or about to get one.
//!
//! In: payloads from the client, wakes from its shards, time. Out: what its outlet writes, commands for the
//! shards. Owns the connection; ends with it, with the service, or with a session that can't go on.

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use holdfast_state::View;
use tokio::{select, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{
    Front,
    link::{About, Ended, Link, Payload, Reading},
    outlet::{Outlet, Place},
    pump::Stopped,
    query::Refused,
};
use crate::{
    log::{DiskRead, OwnedRun},
    shard::Alarm,
};

/// A read from disk brings at most this much.
pub(super) const DISK_BYTES: usize = 256 * 1024;
/// How often a client's place is noted for the stored records.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// The last words to a client, and its answer, may take this long.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);

/// How a client's turn ended.
enum Over {
    /// The session is invalid; the connection stays for an IDENTIFY.
    Invalid,
    /// The connection ends.
    Ended(Ended),
    /// The service stops.
    Stopping,
}

/// A client's connection at its place.
pub(super) struct Client<P> {
    reading: Reading,
    about: About,
    place: P,
    /// When a heartbeat is overdue.
    deadline: Instant,
}

/// A client that has left its place.
struct Left<O> {
    reading: Reading,
    about: About,
    outlet: O,
}

/// Runs the client until it has nothing more to do here. Gives the link back if the client may open anew. Err: it
/// wanted to resume what can't be.
pub(super) async fn run<P: Place>(front: Arc<Front>, client: Result<Client<P>, Box<Link>>) -> Option<Link> {
    let mut client = match client {
        Ok(client) => client,
        Err(link) => return invalid(*link).await,
    };
    let over = client.serve(&front).await;
    // Boxed: what follows is short, and would be held room for as long as the client lives.
    Box::pin(depart(front, client.leave()?, over)).await
}

async fn depart<O: Outlet>(front: Arc<Front>, mut left: Left<O>, over: Over) -> Option<Link> {
    left.outlet.note();
    match over {
        Over::Invalid => {
            left.outlet.detach(false);
            front.metrics.invalidated.inc();
            left.outlet.tell_gap();
            invalid(left.into_link()).await
        }
        Over::Ended(Ended::Gone(code)) => {
            debug!(code, "client gone");
            // Its close is answered, if the socket takes that now.
            let _ = left.outlet.writing().flush().now_or_never();
            left.outlet.detach(matches!(code, Some(1000 | 1001)));
            None
        }
        Over::Ended(Ended::Refused(refused)) => {
            left.outlet.detach(false);
            front.metrics.closed(refused.code);
            info!(code = refused.code, reason = refused.reason, peer = %left.about.peer, "client closed");
            left.into_link().close(&refused).await;
            None
        }
        Over::Stopping => {
            left.farewell(front.settings.confirm_timeout).await;
            left.outlet.detach(false);
            left.into_link().close(&Refused::new(4000, "restarting: resume")).await;
            None
        }
    }
}

/// INVALID_SESSION: the client may identify on this connection or on a new one.
async fn invalid(mut link: Link) -> Option<Link> {
    link.about.invalidated = true;
    let sent = link.writing.send(br#"{"t":null,"s":null,"op":9,"d":false}"#);
    matches!(timeout(FAREWELL_WITHIN, sent).await, Ok(Ok(()))).then_some(link)
}

impl<P: Place> Client<P> {
    pub(super) fn new(front: &Front, reading: Reading, about: About, place: P) -> Self {
        Self { reading, about, place, deadline: Instant::now() + overdue(front) }
    }

    fn leave(self) -> Option<Left<P::Outlet>> {
        let Self { reading, about, place, .. } = self;
        Some(Left { reading, about, outlet: place.leave()? })
    }

    async fn serve(&mut self, front: &Front) -> Over {
        let mut heartbeat = Alarm::new();
        let mut notes = tokio::time::interval(NOTE_EVERY);
        notes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let leaving = self.place.leaving();
        loop {
            heartbeat.set(Some(self.deadline));
            let place = &mut self.place;
            let stopped = select! { biased;
                () = any(&leaving) => return Over::Stopping,
                payload = self.reading.next() => {
                    match payload.and_then(|payload| self.take(front, payload)) {
                        Ok(()) => continue,
                        Err(ended) => return Over::Ended(ended),
                    }
                }
                () = heartbeat.ring() => {
                    return Over::Ended(Ended::Refused(Refused::new(4009, "no heartbeat came in time")));
                }
                _ = notes.tick() => {
                    self.place.with(Outlet::note);
                    continue;
                }
                stopped = poll_fn(|cx| place.poll(cx)) => stopped,
            };
            match stopped {
                Stopped::Disk(read) => {
                    let bytes = self.place.with(|outlet| outlet.read_bytes());
                    match read_disk(front, read, bytes).await {
                        Ok(run) => self.place.with(|outlet| outlet.read(run)),
                        Err(ended) => return Over::Ended(ended),
                    }
                }
                Stopped::Invalid => return Over::Invalid,
                Stopped::Refused(refused) => return Over::Ended(Ended::Refused(refused)),
                Stopped::Gone => return Over::Ended(Ended::Gone(None)),
            }
        }
    }

    fn take(&mut self, front: &Front, payload: Payload) -> Result<(), Ended> {
        if payload.op == 1 {
            self.deadline = Instant::now() + overdue(front);
        }
        self.place.with(|outlet| match payload.op {
            1 => {
                outlet.heartbeat(&payload.data);
                outlet.writing().out.payload(br#"{"t":null,"s":null,"op":11,"d":null}"#);
                Ok(())
            }
            op => outlet.command(op, payload.data).map_err(Ended::Refused),
        })
    }
}

async fn read_disk(front: &Front, read: DiskRead, bytes: usize) -> Result<OwnedRun, Ended> {
    match tokio::task::spawn_blocking(move || read.read(bytes)).await {
        Ok(Ok(run)) => Ok(run),
        Ok(Err(error)) => {
            front.metrics.disk_errors.inc();
            info!(%error, "the log can't be read from disk");
            Err(Ended::Refused(Refused::new(4000, "the log can't be read")))
        }
        Err(_) => Err(Ended::Gone(None)),
    }
}

impl<O: Outlet> Left<O> {
    fn into_link(self) -> Link {
        Link { reading: self.reading, writing: self.outlet.into_writing(), about: self.about }
    }

    /// Asks the client to confirm what it has, then to reconnect.
    async fn farewell(&mut self, within: Duration) {
        let asked = timeout(within, async {
            self.outlet.writing().send(br#"{"t":null,"s":null,"op":1,"d":null}"#).await.ok()?;
            loop {
                let payload = self.reading.next().await.ok()?;
                if payload.op == 1 && self.outlet.heartbeat(&payload.data) {
                    return Some(());
                }
            }
        });
        let _ = asked.await;
        if self.outlet.writing().out.is_empty() {
            self.outlet.flushed();
        }
        self.outlet.note();
        self.outlet.writing().out.payload(br#"{"t":null,"s":null,"op":7,"d":null}"#);
    }
}

/// What of a guild a client with these intents gets ("Guild Create", "List of Intents").
pub(super) fn view(intents: u64, large_threshold: u32) -> View {
    let has = |bit: u32| intents & (1 << bit) != 0;
    View {
        members: has(1),
        voice_states: has(7),
        presences: has(8),
        scheduled_events: has(16),
        large_threshold,
        own_user: 0,
    }
}

/// A client is given half an interval more than it was told.
fn overdue(front: &Front) -> Duration {
    front.settings.heartbeat_interval.mul_f64(1.5)
}

/// Waits until one of the client's shards leaves the process, or all do.
async fn any(leaving: &[CancellationToken]) {
    match leaving {
        [one] => one.cancelled().await,
        several => {
            let each = several.iter().map(|token| Box::pin(token.cancelled()));
            futures_util::future::select_all(each).await;
        }
    }
}
