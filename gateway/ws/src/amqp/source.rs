// SPDX-License-Identifier: AGPL-3.0-only
//! What is published next. In: the log, from the cursor on. Out: a batch of messages, or what is in the way.
//! Holds the core's lock for one batch, which it builds there: that copies each payload once.

use std::sync::Arc;

use holdfast_broker::Positioned;
use holdfast_cluster::StreamId;
use holdfast_contract::v1::GapReason;
use holdfast_discord::EventKind;
use tracing::warn;

use super::{
    cursor::Cursor,
    envelope::{Envelope, Missing, is_sendable, parts},
    settings::AmqpSettings,
};
use crate::{
    log::{DiskRead, FIRST, Meta, OwnedRun, Position, Read, Run},
    shard::{Core, Hub, Opened, unix_ms},
};

/// Bounds of a batch: a few hundred microseconds under the lock.
const MESSAGES: usize = 128;
const BYTES: usize = 256 * 1024;
/// Entries that are looked at for one batch: those that aren't published cost little.
const LOOKED_AT: usize = 4096;

/// What comes next.
pub(super) enum Next {
    /// Messages, in order, with the names of their events.
    Batch(Vec<Positioned>),
    /// The next entries are on disk.
    Disk(DiskRead),
    /// Nothing, until something is appended.
    Nothing,
    /// READY hasn't come yet: nobody knows the application.
    NotReady,
}

/// What could not be published.
#[derive(Default)]
pub(super) struct LeftOut {
    /// Events that are larger than the broker takes.
    pub(super) unsendable: u64,
    /// Events that were no longer in the log.
    pub(super) lost: u64,
}

/// Reads one shard's log.
pub(super) struct Source {
    pub(super) hub: Arc<Hub>,
    pub(super) settings: AmqpSettings,
    pub(super) envelope: Envelope,
    /// What was read from disk and not yet published.
    pub(super) disk: Option<OwnedRun>,
    /// What was left out since somebody last asked.
    pub(super) left_out: LeftOut,
    /// The largest body that the broker takes.
    max_bytes: usize,
    /// What was to be read next had gone: where the log can be read again, and why.
    gone: Option<(Position, GapReason)>,
    /// Where a shard that took over from shards of another count begins.
    pub(super) opened: Option<Arc<Opened>>,
    /// Which kinds are published, by number; names that this version doesn't know are looked up.
    kinds: Vec<bool>,
}

impl Source {
    pub(super) fn new(hub: Arc<Hub>, settings: AmqpSettings, envelope: Envelope, max_bytes: usize) -> Self {
        let kinds =
            (0..=u8::MAX).map(|number| settings.publishes(EventKind::from_u8(number).name())).collect();
        let left_out = LeftOut::default();
        Self { hub, settings, envelope, disk: None, left_out, max_bytes, gone: None, opened: None, kinds }
    }

    /// The next batch; the cursor moves over what was looked at.
    pub(super) fn next(&mut self, cursor: &mut Cursor) -> Next {
        let hub = Arc::clone(&self.hub);
        let core = hub.core();
        if self.envelope.application == 0 {
            let Some(ready) = &core.ready else { return Next::NotReady };
            self.envelope.application = ready.application();
        }
        if let Some(gap) = core.gap
            && cursor.position() > gap.from
            && cursor.stream() == gap.stream
            && core.log.stream() != gap.stream
        {
            // What was published above it had not reached the disk when we were killed, and Discord didn't replay it.
            cursor.back_to(gap.from);
        }
        let mut batch = Vec::new();
        if let Some(disk) = self.disk.take() {
            self.take(&disk.as_run(), cursor, &mut batch);
            if !batch.is_empty() {
                let rest = disk.metas.last().is_some_and(|last| last.position > cursor.position());
                self.disk = rest.then_some(disk);
                return Next::Batch(batch);
            }
        }
        self.out_of_log(&core, cursor, batch)
    }

    fn out_of_log(&mut self, core: &Core, cursor: &mut Cursor, mut batch: Vec<Positioned>) -> Next {
        let mut looked_at = 0;
        loop {
            let before = cursor.position();
            let after = self.gone.map_or(before, |(oldest, _)| before.max(oldest - 1));
            match core.log.read(after) {
                Read::Memory(run) => self.take(&run, cursor, &mut batch),
                // The gap is told when its other end is known.
                Read::Gone { oldest } => {
                    let dropped = after + 1 < core.log.oldest();
                    let reason = if dropped { GapReason::LogFull } else { GapReason::LogDamaged };
                    self.gone = Some((oldest, self.gone.map_or(reason, |(_, reason)| reason)));
                }
                Read::Disk(read) if batch.is_empty() => return Next::Disk(read),
                Read::Disk(_) | Read::End => break,
            }
            looked_at += cursor.position().saturating_sub(before);
            if batch.len() >= MESSAGES || bytes(&batch) >= BYTES || looked_at >= LOOKED_AT as u64 {
                break;
            }
        }
        if batch.is_empty() && looked_at < LOOKED_AT as u64 { Next::Nothing } else { Next::Batch(batch) }
    }

    /// Adds the run's entries to the batch, as far as it has room.
    fn take(&mut self, run: &Run<'_>, cursor: &mut Cursor, batch: &mut Vec<Positioned>) {
        let from = run.metas.partition_point(|meta| meta.position <= cursor.position());
        let mut total = bytes(batch);
        let stream = run.stream.to_string();
        for (index, meta) in run.metas.iter().enumerate().skip(from) {
            if batch.len() >= MESSAGES || total >= BYTES {
                return;
            }
            if cursor.position() < FIRST {
                // No stream came before the log's first event.
                cursor.begin(run.stream);
            }
            if let Some(reason) = self.missing_before(meta.position, run.stream, cursor) {
                self.gap(cursor, meta.position, run.stream, reason, batch);
            }
            let message = self.event(meta, &stream, run.payload(index));
            let message = message.map(|message| self.sendable(message, meta.position, run.stream));
            cursor.read(meta.position, message.is_some());
            if let Some(message) = message {
                total += message.publication.message.body.len();
                batch.push(message);
            }
        }
    }

    /// None: it isn't published. What one client asked for goes to that client only.
    fn event(&self, meta: &Meta, stream: &str, payload: &[u8]) -> Option<Positioned> {
        let known = meta.kind != EventKind::Unknown;
        if meta.audience != 0 || (known && !self.kinds.get(meta.kind as usize).copied().unwrap_or(true)) {
            return None;
        }
        let opened = self.opened.as_ref().filter(|opened| meta.position <= opened.until);
        if opened.is_some_and(|opened| opened.is_repeated(meta.position)) {
            return None;
        }
        let (name, data) = parts(meta, payload)?;
        let published = known || self.settings.publishes(&name);
        published.then(|| self.envelope.event(meta, stream, (&name, data), opened.is_some()))
    }

    /// Whether events may be missing between the cursor and an entry, and why.
    fn missing_before(&mut self, position: Position, stream: StreamId, cursor: &Cursor) -> Option<GapReason> {
        let gone = self.gone.take_if(|(oldest, _)| *oldest <= position).map(|(_, reason)| reason);
        let jumps = position > cursor.position() + 1;
        match gone {
            Some(GapReason::LogFull) if jumps => Some(GapReason::LogFull),
            _ if stream != cursor.stream() => Some(GapReason::NewSession),
            _ => jumps.then_some(GapReason::LogDamaged),
        }
    }

    /// The message, or in its place the gap that it leaves when the broker doesn't take it.
    fn sendable(&mut self, message: Positioned, position: Position, stream: StreamId) -> Positioned {
        if is_sendable(&message, self.max_bytes) {
            return message;
        }
        self.left_out.unsendable += 1;
        let bytes = message.publication.message.body.len();
        warn!(
            shard = self.hub.shard,
            position, bytes, "an event is larger than broker.max_message_bytes: a gap"
        );
        let (from, to, reason) = (position - 1, position + 1, GapReason::TooLarge);
        self.envelope.gap(&Missing { stream, from, to, next_stream: stream, reason, lost: 1 }, unix_ms())
    }

    fn gap(
        &mut self,
        cursor: &mut Cursor,
        to: u64,
        next_stream: StreamId,
        reason: GapReason,
        batch: &mut Vec<Positioned>,
    ) {
        let from = cursor.position();
        let dropped = match reason {
            // Events that never came are missing too, or only those.
            GapReason::NewSession => 0,
            _ => (to - from).saturating_sub(1),
        };
        self.left_out.lost += dropped;
        // Among them may be some that weren't to be published.
        let lost = if self.settings.events.is_empty() { dropped } else { 0 };
        let missing = Missing { stream: cursor.stream(), from, to, next_stream, reason, lost };
        batch.push(self.envelope.gap(&missing, unix_ms()));
        cursor.gap(to, next_stream);
    }
}

fn bytes(batch: &[Positioned]) -> usize {
    batch.iter().map(|message| message.publication.message.body.len()).sum()
}

/// Reads what a batch can take. None: it has gone meanwhile, and the log says how far. Blocks.
pub(super) fn read_disk(read: DiskRead) -> std::io::Result<Option<OwnedRun>> {
    let run = read.read(BYTES)?;
    Ok((!run.metas.is_empty()).then_some(run))
}
