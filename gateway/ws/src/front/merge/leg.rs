// SPDX-License-Identifier: AGPL-3.0-only
//! One of our shards behind a client of another shard count: a cursor in its log. That of a shard of a former count has
//! an end.
//!
//! In: the shard's log, from memory or from disk. Out: the client's payloads in a batch, numbered by the session. The
//! shard's lock is held while up to 64 KiB are copied, not while they are encoded.

use std::{collections::BTreeMap, sync::Arc};

use super::{places::Places, share::Share};
use crate::{
    front::{
        Front,
        pump::{BATCH_BYTES, LOOKED_AT},
        source::{FromDisk, Wants, catches_up},
    },
    log::{DiskRead, Meta, OwnedRun, Position, Read, Run, StreamId},
    shard::{Hub, Opened, restore_nonce},
};

/// See the module's documentation.
pub(super) struct Leg {
    /// None once the client has confirmed everything of a shard of a former count.
    pub(super) hub: Option<Arc<Hub>>,
    /// Where the log ends of a shard of a former count.
    pub(super) end: Option<Position>,
    /// The id of the client's record at the shard: the place from which a later IDENTIFY is caught up.
    pub(super) record: String,
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
}

/// What a leg's entries are sifted by.
pub(super) struct Sieve<'a> {
    pub(super) front: &'a Front,
    pub(super) share: Share,
    pub(super) wants: &'a Wants,
}

/// Payloads on their way from the logs to the client's encoder.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Bytes that were copied or passed over.
    spent: usize,
}

impl Leg {
    pub(super) fn new(
        hub: Arc<Hub>,
        record: String,
        epoch: u64,
        snapshot: Position,
        cursor: Position,
    ) -> Self {
        Self {
            hub: Some(hub),
            end: None,
            record,
            epoch,
            snapshot,
            cursor,
            written: cursor,
            requests: BTreeMap::new(),
            noted: Some((cursor, cursor, 0)),
            opened: None,
            disk: None,
            head: Head::Unknown,
        }
    }

    /// Of a shard of a former count, of which the client has everything and nothing is needed any more.
    pub(super) fn over(end: Position) -> Self {
        Self {
            hub: None,
            end: Some(end),
            record: String::new(),
            epoch: 0,
            snapshot: 0,
            cursor: end,
            written: end,
            requests: BTreeMap::new(),
            noted: None,
            opened: None,
            disk: None,
            head: Head::End,
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
        let Some(hub) = &self.hub else {
            self.head = Head::End;
            return Ok(());
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
    pub(super) fn take(
        &mut self,
        index: usize,
        until_ms: u64,
        sieve: &Sieve<'_>,
        places: &mut Places,
        batch: &mut Batch,
    ) {
        self.head = Head::Unknown;
        let Some(hub) = self.hub.clone() else { return };
        let sieve = &Sieve { share: sieve.share.of(hub.total), ..*sieve };
        if let Some(mut disk) = self.disk.take() {
            if let Some(run) = disk.rest() {
                self.sift(&run, (index, hub.shard), until_ms, sieve, places, batch);
            }
            disk.at = disk.run.metas.partition_point(|meta| meta.position <= self.cursor);
            self.disk = (disk.at < disk.run.metas.len()).then_some(disk);
            return;
        }
        let core = hub.core();
        // A new session since the last look is seen by the next.
        if let (true, Read::Memory(run)) = (core.epoch == self.epoch, core.log.read(self.cursor)) {
            self.sift(&run, (index, hub.shard), until_ms, sieve, places, batch);
        }
    }

    fn sift(
        &mut self,
        run: &Run<'_>,
        (index, shard): (usize, u32),
        until_ms: u64,
        sieve: &Sieve<'_>,
        places: &mut Places,
        batch: &mut Batch,
    ) {
        for (at, meta) in run.metas.iter().enumerate() {
            if meta.received_ms > until_ms || batch.is_full() {
                self.head = Head::At(meta.received_ms);
                return;
            }
            let payload = run.payload(at);
            if let Some(nonce) = self.requests.get(&meta.audience) {
                batch.add(meta, payload, places.give(index, meta.position));
                batch.restore_nonce(nonce.as_deref());
            } else if self.takes(shard, meta, payload, sieve) {
                batch.add(meta, payload, places.give(index, meta.position));
            }
            batch.spent += LOOKED_AT;
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

impl Batch {
    pub(super) fn is_full(&self) -> bool {
        self.spent >= BATCH_BYTES
    }

    /// Adds a payload with another sequence in the place of its position.
    fn add(&mut self, meta: &Meta, payload: &[u8], sequence: u64) {
        let (before, rest) = payload.split_at(meta.digits_at as usize);
        self.bytes.extend_from_slice(before);
        self.bytes.extend_from_slice(itoa::Buffer::new().format(sequence).as_bytes());
        self.bytes.extend_from_slice(&rest[usize::from(meta.digits)..]);
        self.ends.push(self.bytes.len());
        self.spent += payload.len();
    }

    /// Gives the last payload its client's nonce.
    fn restore_nonce(&mut self, nonce: Option<&str>) {
        self.ends.pop();
        let begin = self.ends.last().copied().unwrap_or(0);
        let restored = restore_nonce(&self.bytes[begin..], nonce);
        self.bytes.truncate(begin);
        self.bytes.extend_from_slice(&restored);
        self.ends.push(self.bytes.len());
    }

    /// Hands all payloads on, in order, and is empty. Returns what it took to gather them, in bytes.
    pub(super) fn drain(&mut self, mut give: impl FnMut(&[u8])) -> usize {
        let mut begin = 0;
        for end in self.ends.drain(..) {
            give(&self.bytes[begin..end]);
            begin = end;
        }
        self.bytes.clear();
        // What a large payload took is given back: idle clients are many.
        self.bytes.shrink_to(2 * 1024);
        std::mem::take(&mut self.spent)
    }
}
