// SPDX-License-Identifier: AGPL-3.0-only
//! A client whose shard count is ours: its pump follows one shard.
//!
//! In: IDENTIFY or RESUME. Out: a client at its seat, and the pump as its task's outlet.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll},
};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Front,
    client::{Client, DISK_BYTES, view},
    commands::{self, Sender},
    identify::{Identify, Resume},
    link::{About, Link, Writing},
    opening::{Opening, identity},
    outlet::{Outlet, Place},
    pump::{Pump, Stopped},
    query::Refused,
    seat::Seat,
    source::{FromDisk, GAP, Source, Wants, dispatch, gap_marker},
};
use crate::{
    log::OwnedRun,
    shard::{Command, Hub, Identified, Priority, Resumed, unix_ms},
};

/// Opens a client's session at its shard. Err: the client wanted to resume what can't be; the link is given back.
pub(super) fn open(
    front: &Arc<Front>,
    hub: &Arc<Hub>,
    link: Box<Link>,
    opening: Opening,
) -> Result<Client<Arc<Seat>>, Box<Link>> {
    let Link { reading, mut writing, about } = *link;
    if let Opening::Identify(identify) = &opening {
        writing.out.compress_payloads(identify.compress);
    }
    let mut pump = Pump {
        front: Arc::clone(front),
        hub: Arc::clone(hub),
        writing,
        source: Source::AwaitReady,
        wants: Wants { intents: 0, own_user: 0 },
        view: view(0, 50),
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
        offers: Vec::new(),
        stopped: None,
    };
    let opened = match opening {
        Opening::Identify(identify) => {
            identify_with(&mut pump, &about, identify);
            true
        }
        Opening::Resume(resume) => resume_with(&mut pump, &about, resume),
    };
    if !opened {
        return Err(Box::new(Link { reading, writing: pump.writing, about }));
    }
    Ok(Client::new(front, reading, about, Seat::take(pump)))
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
        shard: [pump.hub.shard, pump.hub.total],
    });
    pump.front.note_intents(identify.intents);
    if let Some(presence) = identify.presence.filter(|_| pump.front.settings.forward_identify_presence) {
        // Discord doesn't close a client for a presence in IDENTIFY that it can't use.
        if let Ok(payload) = commands::presence_payload(Value::Object(presence)) {
            pump.hub.core().presence = Some(payload.clone());
            pump.hub.command(Command::new(about.number, Priority::Normal, payload));
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
    hub.readers.wake();
    true
}

impl Place for Arc<Seat> {
    type Outlet = Pump;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stopped> {
        Seat::poll(self, cx)
    }

    fn with<T>(&mut self, what: impl FnOnce(&mut Pump) -> T) -> T {
        what(&mut self.pump())
    }

    fn leaving(&self) -> Vec<CancellationToken> {
        vec![self.pump().hub.leaving.clone()]
    }

    fn leave(self) -> Option<Pump> {
        Seat::leave(self)
    }
}

impl Outlet for Pump {
    fn writing(&mut self) -> &mut Writing {
        &mut self.writing
    }

    fn into_writing(self) -> Writing {
        self.writing
    }

    fn command(&mut self, op: u64, data: Value) -> Result<(), Refused> {
        let mut sender = Sender {
            sequence: self.sequence(),
            front: &self.front,
            hub: &self.hub,
            connection: self.connection,
            wants: &self.wants,
            out: &mut self.writing.out,
            requests: &mut self.requests,
        };
        commands::take(&mut sender, op, data)
    }

    fn confirm(&mut self, sequence: u64) {
        // Below a snapshot's end, sequences count its payloads and stand for no event.
        if matches!(self.source, Source::Snapshot(_) | Source::AwaitReady) || sequence > self.sequence() {
            return;
        }
        let confirmed = if sequence >= self.last_given { self.written } else { sequence };
        let mut core = self.hub.core();
        if let Some(session) = core.sessions.held(&self.session, self.connection)
            && sequence >= session.base
        {
            session.confirmed = session.confirmed.max(confirmed);
        }
    }

    fn flushed(&mut self) {
        self.written = self.cursor;
    }

    fn note(&mut self) {
        let mut core = self.hub.core();
        if let Some(session) = core.sessions.held(&self.session, self.connection)
            && (session.written != self.written || session.requests.len() != self.requests.len())
        {
            session.written = self.written;
            session.requests.clone_from(&self.requests);
        }
    }

    fn read_bytes(&self) -> usize {
        DISK_BYTES
    }

    fn read(&mut self, run: OwnedRun) {
        self.disk = Some(FromDisk { run, at: 0 });
    }

    fn detach(&mut self, ended: bool) {
        let mut core = self.hub.core();
        if ended {
            core.sessions.end(&self.session, self.connection, unix_ms());
        } else {
            core.sessions.detach(&self.session, self.connection, unix_ms());
        }
    }

    fn tell_gap(&mut self) {
        let gap = self.hub.core().gap.filter(|_| !self.session.is_empty());
        if let Some(gap) = gap {
            let marker = gap_marker(gap.stream, gap.from, gap.to);
            dispatch(&mut self.writing.out, GAP, gap.to, &marker);
        }
    }
}
