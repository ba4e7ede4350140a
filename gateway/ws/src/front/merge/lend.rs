// SPDX-License-Identifier: AGPL-3.0-only
//! A leg for another replica, which merges its client: the end of who has the shard.
//!
//! In: what is wanted, the client's commands and places, from the other. Out: the shard's part of the client's snapshot,
//! then its events with their positions. The other is a client like others to this shard: it is not written to while it
//! doesn't read, it is asked to go when the shard leaves, and its place is stored.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use holdfast_state::{GuildSnapshot, View};
use serde_json::{Value, value::RawValue};
use tokio_util::sync::CancellationToken;

use super::{
    attach::attach,
    batch::Batch,
    bell::{Bell, Pulls},
    leg::{Halt, Leg, Sieve, note_in},
    loan::Loan,
    retired,
    seek::release,
    turn::{self, Refill, Source},
    wire::{self, ANSWER, Ask, COMMAND, GUILD, MARK, Note, SETTLE, What},
};
use crate::{
    front::{
        Front,
        client::{Client, DISK_BYTES, view},
        commands::{self, Sender},
        link::{Link, Writing},
        outlet::{Outlet, Place},
        pump::Stopped,
        query::Refused,
        source::{GAP, Wants, dispatch, gap_marker},
    },
    log::{Gap, OwnedRun, Position},
    shard::{Hub, Offer},
};

/// See the module's documentation.
pub(crate) struct Lender {
    front: Arc<Front>,
    hub: Arc<Hub>,
    writing: Writing,
    ask: Ask,
    stage: Stage,
    wants: Wants,
    view: View,
    connection: u64,
    /// None before the client is attached.
    leg: Option<Leg>,
    bell: Arc<Bell>,
    pulls: Option<Pulls>,
    /// What no other client gets, in the buffer and not yet written.
    offers: Vec<Offer>,
    batch: Batch,
    /// An event on its way.
    scratch: Vec<u8>,
    /// Where the log ended when the client came.
    until: Position,
    /// Everything up to here has been told of.
    told: Position,
    gap: Option<Gap>,
}

enum Stage {
    /// The shard may have no READY yet.
    Asked,
    /// The guilds of the snapshot, the last first.
    Guilds(Vec<GuildSnapshot>),
    Events,
    /// There is nothing for the client.
    Nothing,
}

/// Lends a shard.
pub(in crate::front) fn lend(front: &Arc<Front>, loan: Loan, link: Box<Link>) -> Client<Box<Lender>> {
    let Loan { hub, ask } = loan;
    let Link { reading, writing, about } = *link;
    front.metrics.legs_lent.inc();
    let bell = Bell::new(1);
    let pulls = Pulls::new(&bell, ask.who.share(hub.total), std::iter::once((0, &hub)));
    let lender = Lender {
        front: Arc::clone(front),
        writing,
        stage: Stage::Asked,
        wants: Wants { intents: ask.who.intents, own_user: 0 },
        view: view(ask.who.intents, ask.who.large_threshold),
        connection: about.number,
        leg: None,
        bell,
        pulls: Some(pulls),
        offers: Vec::new(),
        batch: Batch::default(),
        scratch: Vec::new(),
        until: 0,
        told: 0,
        gap: None,
        hub,
        ask,
    };
    Client::new(front, reading, about, Box::new(lender))
}

impl Lender {
    /// Attaches the client, once that is possible. False: not yet.
    fn answer(&mut self) -> Result<bool, Stopped> {
        let own_user = self.hub.core().ready.as_ref().map(|ready| ready.user);
        if own_user.is_none() && matches!(self.ask.what, What::Begin { .. }) {
            return Ok(false);
        }
        let Some(attached) = attach(&self.front, &self.hub, &self.ask, self.connection) else {
            if self.ask.what == What::Take {
                self.stage = Stage::Nothing;
                self.writing.out.payload(wire::payload(ANSWER, &None::<()>).as_bytes());
                return Ok(true);
            }
            return Err(Stopped::Invalid);
        };
        let (leg, answer) = (attached.leg, attached.answer);
        if matches!(self.ask.what, What::Resume { .. }) {
            self.wants.intents = answer.intents;
        }
        self.wants.own_user = own_user.unwrap_or(0);
        self.view.own_user = self.wants.own_user;
        (self.until, self.told) = (answer.until, leg.cursor);
        self.writing.out.payload(wire::payload(ANSWER, &answer).as_bytes());
        let mut guilds = attached.begun.map(|here| here.guilds).unwrap_or_default();
        guilds.reverse();
        self.stage = Stage::Guilds(guilds);
        self.leg = Some(leg);
        Ok(true)
    }

    /// The next guild of the snapshot.
    fn guild(&mut self) {
        let Stage::Guilds(guilds) = &mut self.stage else { return };
        let Some(guild) = guilds.pop() else {
            self.stage = Stage::Events;
            if !self.ask.what.is_former() {
                self.bell.take_offers();
            }
            return;
        };
        let mut data = Vec::new();
        let built = guild.guild_create(&self.view, &mut data).is_ok();
        let data = String::from_utf8(data).ok().filter(|_| built);
        let data = data.and_then(|data| RawValue::from_string(data).ok());
        if data.is_none() {
            self.front.metrics.malformed.inc();
        }
        let data = data.as_deref().map_or("null", RawValue::get);
        self.writing.out.payload(format!("{{\"op\":{GUILD},\"d\":{data}}}").as_bytes());
    }

    /// The next events, up to 64 KiB.
    fn events(&mut self) -> Result<Refill, Stopped> {
        let Some(leg) = &mut self.leg else { return Ok(Refill::Idle) };
        if self.bell.take(0) {
            leg.rung();
        }
        if !self.hub.core().sessions.holds(&leg.record, self.connection) {
            return Err(Stopped::Refused(Refused::new(4000, "resumed elsewhere")));
        }
        let sieve =
            Sieve { front: &self.front, share: self.ask.who.share(self.hub.total), wants: &self.wants };
        let mut halted = None;
        while !self.batch.is_full() {
            if let Err(halt) = leg.look() {
                halted = Some(halt);
                break;
            }
            if leg.head().is_none() {
                break;
            }
            leg.take(u64::MAX, &sieve, &mut |position| position, &mut self.batch);
        }
        let (out, scratch, told) = (&mut self.writing.out, &mut self.scratch, &mut self.told);
        let spent = self.batch.drain(|item, payload| {
            wire::event(item.sequence, item.received_ms, payload, scratch);
            out.payload(scratch);
            *told = item.sequence;
        });
        scratch.clear();
        scratch.shrink_to(2 * 1024);
        match halted {
            _ if spent > 0 => Ok(Refill::Filled(spent)),
            Some(halt) => self.halted(halt),
            None => Ok(self.mark_end()),
        }
    }

    fn halted(&mut self, halt: Halt) -> Result<Refill, Stopped> {
        let Some(leg) = &mut self.leg else { return Ok(Refill::Idle) };
        match halt {
            Halt::Disk(read) => Err(Stopped::Disk(read)),
            Halt::Refused(refused) => Err(Stopped::Refused(refused)),
            Halt::NewSession => {
                self.gap = self.hub.core().gap;
                Err(Stopped::Invalid)
            }
            Halt::Gone { stream, oldest } => {
                self.front.metrics.fell_behind.inc();
                if leg.cursor >= leg.snapshot {
                    if leg.end.is_some() {
                        // To come back wouldn't help.
                        return Err(Stopped::Invalid);
                    }
                    let reason = format!("too far behind: a log begins at {oldest}");
                    return Err(Stopped::Refused(Refused::new(4009, reason)));
                }
                // In catch-up, closing wouldn't help: the next IDENTIFY would begin at the same place.
                let to = oldest.saturating_sub(1);
                let gap = gap_marker(stream, leg.cursor, oldest);
                (leg.cursor, self.told) = (to, to);
                leg.rung();
                let gap = wire::dispatch(GAP, to, &gap);
                wire::event(to, 0, &gap, &mut self.scratch);
                self.writing.out.payload(&self.scratch);
                Ok(Refill::Filled(gap.len()))
            }
        }
    }

    /// When the log's end is reached for the first time, the other is waiting to hear of it.
    fn mark_end(&mut self) -> Refill {
        let cursor = self.leg.as_ref().map_or(0, |leg| leg.cursor);
        if self.told >= self.until || cursor < self.until {
            return Refill::Idle;
        }
        self.mark(cursor);
        Refill::Filled(0)
    }

    /// Tells that nothing for the client lies up to here.
    fn mark(&mut self, cursor: Position) {
        if cursor > self.told {
            self.told = cursor;
            self.writing.out.payload(wire::payload(MARK, &cursor).as_bytes());
        }
    }

    /// A command of the client's.
    fn forward(&mut self, mut command: Value) -> Result<(), Refused> {
        let data = command.get_mut("d").map(Value::take).unwrap_or_default();
        let op = command.get("op").and_then(Value::as_u64).unwrap_or_default();
        let mut none = std::collections::BTreeMap::new();
        let mut sender = Sender {
            front: &self.front,
            hub: &self.hub,
            connection: self.connection,
            wants: &self.wants,
            // Who merges has numbers of its own.
            sequence: 0,
            out: &mut self.writing.out,
            requests: self.leg.as_mut().map_or(&mut none, |leg| &mut leg.requests),
        };
        commands::take(&mut sender, op, data)
    }
}

impl Source for Box<Lender> {
    fn refill(&mut self, _: &mut Context<'_>) -> Result<Refill, Stopped> {
        match &self.stage {
            Stage::Asked => Ok(if self.answer()? { Refill::Filled(0) } else { Refill::Idle }),
            Stage::Guilds(_) => {
                self.guild();
                Ok(Refill::Filled(0))
            }
            Stage::Events => {
                // Who merges has numbers of its own.
                self.bell.give_offers(|| 0, &mut self.writing.out, &mut self.offers);
                if self.writing.out.is_empty() { self.events() } else { Ok(Refill::Filled(0)) }
            }
            Stage::Nothing => Ok(Refill::Idle),
        }
    }

    fn is_heavy(&self) -> bool {
        matches!(self.stage, Stage::Guilds(_))
    }
}

impl Place for Box<Lender> {
    type Outlet = Self;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stopped> {
        self.bell.listen(cx.waker());
        turn::poll(self, cx)
    }

    fn with<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        what(self)
    }

    fn leaving(&self) -> Vec<CancellationToken> {
        // A shard of a former count has left already, and stays for who still reads it.
        let former = self.ask.what.is_former();
        vec![if former { self.front.stopping.clone() } else { self.hub.leaving.clone() }]
    }

    fn leave(self) -> Option<Self> {
        Some(self)
    }
}

impl Outlet for Box<Lender> {
    fn writing(&mut self) -> &mut Writing {
        &mut self.writing
    }

    fn into_writing(self) -> Writing {
        self.writing
    }

    fn command(&mut self, op: u64, data: Value) -> Result<(), Refused> {
        match (op, self.leg.take_if(|_| op == SETTLE)) {
            (COMMAND, _) => self.forward(data),
            (_, Some(leg)) => {
                retired::settle_at(&self.hub, &leg.record, self.connection);
                self.stage = Stage::Nothing;
                Ok(())
            }
            _ => Err(Refused::new(4001, format!("opcode {op} is none that a replica sends"))),
        }
    }

    fn confirm(&mut self, _: u64) {}

    /// Where the client is. When the shard leaves, it says so until the other has closed.
    fn heartbeat(&mut self, data: &Value) -> bool {
        let note = serde_json::from_value::<Note>(data.clone()).ok();
        if let (Some(note), Some(leg)) = (note, &self.leg) {
            let mut core = self.hub.core();
            if let Some(record) = core.sessions.held(&leg.record, self.connection) {
                let first = record.spread.as_ref().is_some_and(|spread| spread.written == u64::MAX);
                note_in(record, note);
                if first && !self.ask.what.is_former() {
                    core.save_clients(true);
                }
            }
        }
        false
    }

    fn flushed(&mut self) {
        self.offers.drain(..).for_each(Offer::written);
    }

    fn note(&mut self) {
        let Some(leg) = &mut self.leg else { return };
        let mut core = self.hub.core();
        if let Some(record) = core.sessions.held(&leg.record, self.connection)
            && record.requests.len() != leg.requests.len()
        {
            record.requests.clone_from(&leg.requests);
        }
        drop(core);
        let cursor = leg.cursor;
        if matches!(self.stage, Stage::Events) {
            self.mark(cursor);
        }
    }

    fn read_bytes(&self) -> usize {
        DISK_BYTES
    }

    fn read(&mut self, run: OwnedRun) {
        if let Some(leg) = &mut self.leg {
            leg.read(run);
        }
    }

    fn detach(&mut self, ended: bool) {
        if let Some(leg) = &mut self.leg {
            release(&self.front, leg, self.connection, ended);
        }
        if self.pulls.take().is_some() {
            self.front.metrics.legs_lent.dec();
        }
    }

    fn tell_gap(&mut self) {
        if let Some(gap) = self.gap {
            let marker = gap_marker(gap.stream, gap.from, gap.to);
            dispatch(&mut self.writing.out, GAP, 0, &marker);
        }
    }
}
