// SPDX-License-Identifier: AGPL-3.0-only
//! One of our shards behind a client of another shard count: a cursor in its log. That of a shard of a former count has
//! an end.
//!
//! In: the shard's log, from memory or from disk, or what the replica says that has it. Out: the client's payloads in a
//! batch, numbered by the session. The shard's lock is held while up to 64 KiB are copied, not while they are encoded.

use std::{collections::BTreeMap, sync::Arc, task::Context};

use holdfast_cluster::ShardId;

use super::{
    batch::Batch,
    far::{Far, Over, Said},
    share::Share,
    wire::Note,
};
use crate::{
    front::{
        Front,
        query::Refused,
        source::{FromDisk, Wants, catches_up},
    },
    log::{DiskRead, Meta, OwnedRun, Position, Read, Run, StreamId},
    shard::{ClientSession, Hub, Opened, unix_ms},
};

/// See the module's documentation.
pub(super) struct Leg {
    pub(super) shard: ShardId,
    pub(super) side: Side,
    /// Where the log ends of a shard of a former count.
    pub(super) end: Option<Position>,
    /// The id of the client's record at the shard: the place from which a later IDENTIFY is caught up.
    pub(super) record: String,
    /// The client's connection, which has that record.
    connection: u64,
    /// The upstream session (counted by this process) that the cursor belongs to.
    pub(super) epoch: u64,
    /// Position of the client's snapshot: below it, only what belongs into catch-up is given.
    pub(super) snapshot: Position,
    /// Everything up to here is in the buffer or the socket.
    pub(super) cursor: Position,
    /// Everything up to here has left for the socket.
    pub(super) written: Position,
    /// Member requests under way at the shard.
    pub(super) requests: BTreeMap<u64, Option<String>>,
    /// What of the client's place was last noted at the shard: written, confirmed, requests.
    pub(super) noted: Option<(Position, Position, usize)>,
    /// Where the shard took over from shards of a former count: what those have given is passed over.
    opened: Option<Arc<Opened>>,
    disk: Option<FromDisk>,
    head: Head,
}

/// Where a leg's shard is.
pub(super) enum Side {
    Here(Arc<Hub>),
    /// At another replica.
    There(Box<Far>),
    /// Nowhere: the client has confirmed everything of a shard of a former count.
    Over,
}

/// What comes next on a leg.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    /// To be looked at.
    Unknown,
    /// Nothing yet.
    End,
    /// An entry that came in at this time, milliseconds of Unix time.
    At(u64),
}

/// Why a leg can't be read on.
pub(super) enum Halt {
    /// What comes next is on disk.
    Disk(DiskRead),
    /// Discord has given the shard a new session, or can't bring it to where the client is.
    NewSession,
    /// What comes next is no longer there.
    Gone { stream: StreamId, oldest: Position },
    /// Its replica is lost, or wants the client to go.
    Refused(Refused),
}

/// How a leg's events are numbered.
pub(super) type Number<'a> = &'a mut dyn FnMut(Position) -> u64;

/// What a leg's entries are sifted by.
pub(super) struct Sieve<'a> {
    pub(super) front: &'a Front,
    pub(super) share: Share,
    pub(super) wants: &'a Wants,
}

impl Leg {
    pub(super) fn new(
        hub: Arc<Hub>,
        (record, connection): (String, u64),
        epoch: u64,
        snapshot: Position,
        cursor: Position,
    ) -> Self {
        let shard = ShardId::new(hub.shard, hub.total);
        let mut leg = Self::at(shard, Side::Here(hub), snapshot, cursor);
        (leg.record, leg.connection, leg.epoch) = (record, connection, epoch);
        leg
    }

    /// At another replica.
    pub(super) fn far(far: Box<Far>, snapshot: Position, cursor: Position) -> Self {
        Self::at(far.shard, Side::There(far), snapshot, cursor)
    }

    fn at(shard: ShardId, side: Side, snapshot: Position, cursor: Position) -> Self {
        Self {
            shard,
            side,
            end: None,
            record: String::new(),
            connection: 0,
            epoch: 0,
            snapshot,
            cursor,
            written: cursor,
            requests: BTreeMap::new(),
            noted: None,
            opened: None,
            disk: None,
            head: Head::Unknown,
        }
    }

    /// Of a shard of a former count, of which the client has everything and nothing is needed any more.
    pub(super) fn over(shard: ShardId, end: Position) -> Self {
        let mut leg = Self::at(shard, Side::Over, 0, end);
        (leg.end, leg.head) = (Some(end), Head::End);
        leg
    }

    /// The shard, if it is here.
    pub(super) fn hub(&self) -> Option<&Arc<Hub>> {
        match &self.side {
            Side::Here(hub) => Some(hub),
            _ => None,
        }
    }

    /// The other replica's end, if the shard is there.
    pub(super) fn far_mut(&mut self) -> Option<&mut Far> {
        match &mut self.side {
            Side::There(far) => Some(far),
            _ => None,
        }
    }

    /// Hears what another replica has said.
    pub(super) fn hear(&mut self, cx: &mut Context<'_>) {
        if let Side::There(far) = &mut self.side {
            far.poll(cx);
            self.head = Head::Unknown;
        }
    }

    /// Notes the client's place at the shard. False: somebody else has the client there.
    pub(super) fn note(&mut self, note: Note, connection: u64) -> bool {
        let now = (note.written, note.confirmed, self.requests.len());
        let noted = self.noted.replace(now) == Some(now) && note.given.is_empty();
        match &mut self.side {
            Side::Here(hub) if !noted => match hub.core().sessions.held(&self.record, connection) {
                Some(record) => {
                    note_in(record, note);
                    record.requests.clone_from(&self.requests);
                    true
                }
                None => false,
            },
            Side::There(far) => {
                far.note(&note, noted);
                true
            }
            Side::Here(_) | Side::Over => true,
        }
    }

    /// What the shard knows of the client's place is to be noted anew.
    pub(super) fn note_again(&mut self) {
        self.noted = None;
    }

    /// Whether nothing will come any more: the shard is one of a former count, and read to the end.
    pub(super) fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.cursor >= end)
    }

    /// Something has changed at the shard.
    pub(super) fn rung(&mut self) {
        self.head = Head::Unknown;
    }

    /// When the next entry came in; none while there is none.
    pub(super) fn head(&self) -> Option<u64> {
        match self.head {
            Head::At(received_ms) => Some(received_ms),
            Head::Unknown | Head::End => None,
        }
    }

    /// Finds out what comes next, if that isn't known.
    pub(super) fn look(&mut self) -> Result<(), Halt> {
        if self.head != Head::Unknown {
            return Ok(());
        }
        if let Some(first) =
            self.disk.as_ref().and_then(FromDisk::rest).and_then(|rest| rest.metas.first().copied())
        {
            self.head = Head::At(first.received_ms);
            return Ok(());
        }
        self.disk = None;
        let hub = match &mut self.side {
            Side::Here(hub) => hub,
            Side::There(far) => {
                self.head = look_far(far, &mut self.cursor)?;
                return Ok(());
            }
            Side::Over => {
                self.head = Head::End;
                return Ok(());
            }
        };
        let core = hub.core();
        self.opened.clone_from(&core.opened);
        if core.epoch != self.epoch {
            return Err(Halt::NewSession);
        }
        self.head = match core.log.read(self.cursor) {
            Read::Memory(run) => run.metas.first().map_or(Head::End, |first| Head::At(first.received_ms)),
            // Resumed from beyond the log's end, and upstream's replay is over and hasn't brought it there.
            Read::End if self.end.is_none() && self.cursor > core.log.last() && !hub.is_replaying() => {
                return Err(Halt::NewSession);
            }
            Read::End => Head::End,
            Read::Disk(read) => return Err(Halt::Disk(read)),
            Read::Gone { oldest } => return Err(Halt::Gone { stream: core.log.stream(), oldest }),
        };
        Ok(())
    }

    /// Takes what was read from disk.
    pub(super) fn read(&mut self, run: OwnedRun) {
        self.disk = Some(FromDisk { run, at: 0 });
        self.head = Head::Unknown;
    }

    /// Adds the client's payloads among the next entries: those that came in up to `until_ms`, as far as the batch
    /// has room.
    pub(super) fn take(&mut self, until_ms: u64, sieve: &Sieve<'_>, number: Number<'_>, batch: &mut Batch) {
        self.head = Head::Unknown;
        let hub = match &mut self.side {
            Side::Here(hub) => Arc::clone(hub),
            Side::There(far) => return take_far(far, &mut self.cursor, until_ms, number, batch),
            Side::Over => return,
        };
        let sieve = &Sieve { share: sieve.share.of(hub.total), ..*sieve };
        if let Some(mut disk) = self.disk.take() {
            if let Some(run) = disk.rest() {
                self.sift(&run, hub.shard, until_ms, sieve, number, batch);
            }
            disk.at = disk.run.metas.partition_point(|meta| meta.position <= self.cursor);
            self.disk = (disk.at < disk.run.metas.len()).then_some(disk);
            return;
        }
        let core = hub.core();
        // A new session since the last look is seen by the next.
        if let (true, Read::Memory(run)) = (core.epoch == self.epoch, core.log.read(self.cursor)) {
            self.sift(&run, hub.shard, until_ms, sieve, number, batch);
        }
    }

    fn sift(
        &mut self,
        run: &Run<'_>,
        shard: u32,
        until_ms: u64,
        sieve: &Sieve<'_>,
        number: Number<'_>,
        batch: &mut Batch,
    ) {
        for (at, meta) in run.metas.iter().enumerate() {
            if meta.received_ms > until_ms || batch.is_full() {
                self.head = Head::At(meta.received_ms);
                return;
            }
            let payload = run.payload(at);
            if let Some(nonce) = self.requests.get(&meta.audience) {
                batch.add(meta, payload, number(meta.position));
                batch.restore_nonce(nonce.as_deref());
            } else if self.takes(shard, meta, payload, sieve) {
                batch.add(meta, payload, number(meta.position));
            }
            batch.looked_at();
            self.cursor = meta.position;
        }
    }

    /// Whether an entry that nobody asked for is for the client.
    fn takes(&self, shard: u32, meta: &Meta, payload: &[u8], sieve: &Sieve<'_>) -> bool {
        if meta.audience != 0 || !sieve.share.takes(shard, meta.kind, meta.guild) {
            return false;
        }
        if self.opened.as_ref().is_some_and(|opened| opened.is_repeated(meta.position)) {
            return false;
        }
        let catching_up = meta.position <= self.snapshot;
        if catching_up && !catches_up(sieve.front, meta) || !sieve.wants.takes(meta, || payload.to_vec()) {
            return false;
        }
        if catching_up {
            sieve.front.metrics.caught_up.inc();
        }
        true
    }
}

impl Drop for Leg {
    /// The client doesn't come, or isn't served: its record waits for it as after any connection's end.
    fn drop(&mut self) {
        if let Side::Here(hub) = &self.side {
            hub.core().sessions.detach(&self.record, self.connection, unix_ms());
        }
    }
}

/// Notes a client's place in its record.
pub(super) fn note_in(record: &mut ClientSession, note: Note) {
    (record.written, record.confirmed) = (note.written, record.confirmed.max(note.confirmed));
    if let Some(spread) = &mut record.spread {
        ([spread.written, spread.confirmed], spread.owed) = (note.sequences, note.owed);
        spread.given = note.given;
    }
}

/// What comes next from another replica. What lies up to a mark isn't for the client.
fn look_far(far: &mut Far, cursor: &mut Position) -> Result<Head, Halt> {
    while let Some(Said::Mark(position)) = far.next() {
        *cursor = (*cursor).max(*position);
        far.take();
    }
    match (far.next(), far.over()) {
        (Some(Said::Event { received_ms, .. }), _) => Ok(Head::At(*received_ms)),
        // It has no time of its own.
        (Some(_), _) => Ok(Head::At(0)),
        (None, Some(Over::Invalid)) => Err(Halt::NewSession),
        (None, Some(Over::Closed(refused))) => Err(Halt::Refused(refused.clone())),
        (None, None) => Ok(Head::End),
    }
}

fn take_far(far: &mut Far, cursor: &mut Position, until_ms: u64, number: Number<'_>, batch: &mut Batch) {
    while let Some(said) = far.next() {
        if batch.is_full() || matches!(said, Said::Event { received_ms, .. } if *received_ms > until_ms) {
            return;
        }
        match far.take() {
            Some(Said::Event { position, message, at, .. }) => {
                batch.renumber(&message.as_payload()[at..], number(position));
                *cursor = position;
            }
            Some(Said::Own(message)) => batch.renumber(message.as_payload(), number(0)),
            Some(Said::Mark(position)) => *cursor = (*cursor).max(position),
            // Those of the snapshot have been given.
            Some(Said::Guild(_)) | None => {}
        }
    }
}
