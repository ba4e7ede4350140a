// SPDX-License-Identifier: AGPL-3.0-only
//! The task of one client with a session, or about to get one.
//!
//! In: payloads from the client, wakes from its shard, time. Out: what its pump writes, commands for the
//! shard. Owns the connection; ends with it, with the service, or with a session that can't go on.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_state::View;
use serde_json::Value;
use tokio::{select, time::timeout};
use tracing::{debug, info};

use super::{
    Front, commands,
    identify::{Identify, Resume},
    link::{About, Ended, Link, Payload, Reading},
    opening::{Opening, identity},
    pump::{Pump, Stopped},
    query::Refused,
    source::{FromDisk, GAP, Source, Wants, dispatch, gap_marker},
};
use crate::{
    log::DiskRead,
    shard::{Alarm, Command, Hub, Identified, Resumed, unix_ms},
};

/// A read from disk brings at most this much.
const DISK_BYTES: usize = 256 * 1024;
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

/// A client's connection at its shard.
pub(super) struct Client {
    pub(super) reading: Reading,
    pub(super) about: About,
    pub(super) pump: Pump,
    /// When a heartbeat is overdue.
    deadline: Instant,
}

/// Runs the client until it has nothing more to do here. Gives the link back if the client may open anew.
pub(super) async fn run(front: Arc<Front>, hub: Arc<Hub>, link: Link, opening: Opening) -> Option<Link> {
    let mut client = match Client::new(&front, &hub, link, opening) {
        Ok(client) => client,
        Err(link) => return invalid(*link).await,
    };
    let over = client.serve().await;
    client.note();
    let hub = Arc::clone(&client.pump.hub);
    let (session, connection) = (client.pump.session.clone(), client.about.number);
    match over {
        Over::Invalid => {
            hub.core().sessions.detach(&session, connection, unix_ms());
            front.metrics.invalidated.inc();
            let gap = hub.core().gap.filter(|_| !session.is_empty());
            if let Some(gap) = gap {
                let marker = gap_marker(gap.stream, gap.from, gap.to);
                dispatch(&mut client.pump.writing.out, GAP, gap.to, &marker);
            }
            invalid(client.into_link()).await
        }
        Over::Ended(Ended::Gone(code)) => {
            debug!(code, "client gone");
            let mut core = hub.core();
            if matches!(code, Some(1000 | 1001)) {
                core.sessions.end(&session, connection, unix_ms());
            } else {
                core.sessions.detach(&session, connection, unix_ms());
            }
            None
        }
        Over::Ended(Ended::Refused(refused)) => {
            hub.core().sessions.detach(&session, connection, unix_ms());
            front.metrics.closed(refused.code);
            info!(code = refused.code, reason = refused.reason, peer = %client.about.peer, "client closed");
            client.into_link().close(&refused).await;
            None
        }
        Over::Stopping => {
            client.farewell().await;
            hub.core().sessions.detach(&session, connection, unix_ms());
            client.into_link().close(&Refused::new(4000, "restarting: resume")).await;
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

impl Client {
    /// Err: the client wanted to resume what can't be; the link is given back.
    fn new(front: &Arc<Front>, hub: &Arc<Hub>, link: Link, opening: Opening) -> Result<Self, Box<Link>> {
        let Link { reading, mut writing, about } = link;
        let threshold = match &opening {
            Opening::Identify(identify) => {
                writing.out.compress_payloads(identify.compress);
                identify.large_threshold
            }
            Opening::Resume(_) => 50,
        };
        let mut pump = Pump {
            front: Arc::clone(front),
            hub: Arc::clone(hub),
            writing,
            source: Source::AwaitReady,
            wants: Wants { intents: 0, own_user: 0 },
            view: view(0, threshold),
            shard: None,
            client: None,
            session: String::new(),
            connection: about.number,
            epoch: 0,
            cursor: 0,
            written: 0,
            last_given: 0,
            requests: BTreeMap::new(),
            resumes: 0,
            disk: None,
        };
        let opened = match opening {
            Opening::Identify(identify) => {
                identify_with(&mut pump, &about, identify);
                true
            }
            Opening::Resume(resume) => resume_with(&mut pump, &about, resume),
        };
        let deadline = Instant::now() + overdue(front);
        let client = Self { reading, about, pump, deadline };
        if opened { Ok(client) } else { Err(Box::new(client.into_link())) }
    }

    fn into_link(self) -> Link {
        Link { reading: self.reading, writing: self.pump.writing, about: self.about }
    }

    async fn serve(&mut self) -> Over {
        let front = Arc::clone(&self.pump.front);
        let hub = Arc::clone(&self.pump.hub);
        let mut heartbeat = Alarm::new();
        let mut notes = tokio::time::interval(NOTE_EVERY);
        notes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            heartbeat.set(Some(self.deadline));
            // Enabled before the log is read: what is appended after the read wakes us.
            let mut changed = pin!(hub.changed.notified());
            changed.as_mut().enable();
            let pump = &mut self.pump;
            let stopped = select! { biased;
                () = front.stopping.cancelled() => return Over::Stopping,
                payload = self.reading.next() => {
                    match payload.and_then(|payload| self.take(payload)) {
                        Ok(()) => continue,
                        Err(ended) => return Over::Ended(ended),
                    }
                }
                () = heartbeat.ring() => {
                    return Over::Ended(Ended::Refused(Refused::new(4009, "no heartbeat came in time")));
                }
                _ = notes.tick() => {
                    self.note();
                    continue;
                }
                stopped = poll_fn(|cx| pump.poll(cx)) => stopped,
                () = changed => continue,
            };
            match stopped {
                Stopped::Disk(read) => {
                    if let Err(ended) = self.read_disk(read).await {
                        return Over::Ended(ended);
                    }
                }
                Stopped::Invalid => return Over::Invalid,
                Stopped::Refused(refused) => return Over::Ended(Ended::Refused(refused)),
                Stopped::Gone => return Over::Ended(Ended::Gone(None)),
            }
        }
    }

    fn take(&mut self, payload: Payload) -> Result<(), Ended> {
        match payload.op {
            1 => {
                self.confirm(payload.data.as_u64());
                self.pump.writing.out.payload(br#"{"t":null,"s":null,"op":11,"d":null}"#);
                Ok(())
            }
            op => commands::take(self, op, payload.data).map_err(Ended::Refused),
        }
    }

    /// A heartbeat confirms everything up to its sequence, and what was filtered away since.
    fn confirm(&mut self, sequence: Option<u64>) {
        self.deadline = Instant::now() + overdue(&self.pump.front);
        let Some(sequence) = sequence else { return };
        let pump = &mut self.pump;
        // Below a snapshot's end, sequences count its payloads and stand for no event.
        if matches!(pump.source, Source::Snapshot(_) | Source::AwaitReady) || sequence > pump.sequence() {
            return;
        }
        let confirmed = if sequence >= pump.last_given { pump.written } else { sequence };
        let mut core = pump.hub.core();
        if let Some(session) = core.sessions.held(&pump.session, pump.connection)
            && sequence >= session.base
        {
            session.confirmed = session.confirmed.max(confirmed);
        }
    }

    /// Notes the client's place in its session.
    fn note(&mut self) {
        let pump = &self.pump;
        let mut core = pump.hub.core();
        if !core.sessions.holds(&pump.session, pump.connection) {
            return;
        }
        if let Some(session) = core.sessions.held(&pump.session, pump.connection)
            && (session.written != pump.written || session.requests.len() != pump.requests.len())
        {
            session.written = pump.written;
            session.requests.clone_from(&pump.requests);
        }
    }

    async fn read_disk(&mut self, read: DiskRead) -> Result<(), Ended> {
        let run = tokio::task::spawn_blocking(move || read.read(DISK_BYTES)).await;
        match run {
            Ok(Ok(run)) => {
                self.pump.disk = Some(FromDisk { run, at: 0 });
                Ok(())
            }
            Ok(Err(error)) => {
                self.pump.front.metrics.disk_errors.inc();
                info!(%error, "the log can't be read from disk");
                Err(Ended::Refused(Refused::new(4000, "the log can't be read")))
            }
            Err(_) => Err(Ended::Gone(None)),
        }
    }

    /// Asks the client to confirm what it has, then to reconnect.
    async fn farewell(&mut self) {
        let within = self.pump.front.settings.confirm_timeout;
        let asked = timeout(within, async {
            self.pump.writing.send(br#"{"t":null,"s":null,"op":1,"d":null}"#).await.ok()?;
            loop {
                let payload = self.reading.next().await.ok()?;
                if payload.op == 1 {
                    self.confirm(payload.data.as_u64());
                    return Some(());
                }
            }
        });
        let _ = asked.await;
        self.pump.written =
            if self.pump.writing.out.is_empty() { self.pump.cursor } else { self.pump.written };
        self.note();
        self.pump.writing.out.payload(br#"{"t":null,"s":null,"op":7,"d":null}"#);
    }
}

fn identify_with(pump: &mut Pump, about: &About, identify: Identify) {
    let name = about.query.name.clone();
    pump.wants.intents = identify.intents;
    pump.view = view(identify.intents, identify.large_threshold);
    pump.shard = identify.shard;
    pump.client = Some(Identified {
        connection: about.number,
        identity: identity(&identify.token),
        name,
        intents: identify.intents,
    });
    pump.front.note_intents(identify.intents);
    if let Some(presence) = identify.presence.filter(|_| pump.front.settings.forward_identify_presence) {
        // Discord doesn't close a client for a presence in IDENTIFY that it can't use.
        if let Ok(payload) = commands::presence_payload(Value::Object(presence)) {
            pump.hub.core().presence = Some(payload.clone());
            pump.hub.command(Command { client: about.number, voice: false, payload });
        }
    }
}

/// False: this can't be resumed.
fn resume_with(pump: &mut Pump, about: &About, resume: Resume) -> bool {
    let identity = identity(&resume.token);
    let hub = Arc::clone(&pump.hub);
    let mut core = hub.core();
    let (reach, epoch) = (core.reach(), core.epoch);
    let (id, sequence) = (resume.session_id, resume.sequence);
    let outcome = core.sessions.resume(&id, &identity, sequence, reach, epoch, about.number);
    pump.source = match outcome {
        Resumed::From => Source::Replay { until: reach.1 },
        Resumed::Ahead => Source::Ahead { sequence },
        Resumed::Impossible => {
            pump.front.metrics.resumes_refused.inc();
            return false;
        }
    };
    pump.front.metrics.client_resumes.inc();
    pump.resumes = core.sessions.resumes();
    pump.wants.own_user = core.ready.as_ref().map_or(0, |ready| ready.user);
    if let Some(session) = core.sessions.held(&id, about.number) {
        if sequence < session.snapshot {
            pump.source = Source::CatchUp { at: session.snapshot, resumed: Some(reach.1) };
        }
        pump.wants.intents = session.intents;
        pump.requests.clone_from(&session.requests);
    }
    pump.view = view(pump.wants.intents, 50);
    pump.epoch = epoch;
    pump.session = id;
    (pump.cursor, pump.written, pump.last_given) = (sequence, sequence, sequence);
    drop(core);
    // Another connection may still hold the session: it looks when it is woken.
    hub.changed.notify_waiters();
    true
}

/// What of a guild a client with these intents gets ("Guild Create", "List of Intents").
fn view(intents: u64, large_threshold: u32) -> View {
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
