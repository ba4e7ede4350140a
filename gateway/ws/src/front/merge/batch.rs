// SPDX-License-Identifier: AGPL-3.0-only
//! Payloads on their way from the logs to a client's encoder. In: entries, with the sequences that they get. Out: the
//! same, in order. Owned by the client's task, bounded by who fills it.

use holdfast_discord::scan;

use crate::{
    front::pump::{BATCH_BYTES, LOOKED_AT},
    log::Meta,
    shard::restore_nonce,
};

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    items: Vec<Item>,
    /// Bytes that were copied or passed over.
    spent: usize,
}

/// A payload of the batch.
#[derive(Clone, Copy)]
pub(super) struct Item {
    end: usize,
    /// Its sequence.
    pub(super) sequence: u64,
    /// When it came in; 0: that isn't known.
    pub(super) received_ms: u64,
}

impl Batch {
    pub(super) fn is_full(&self) -> bool {
        self.spent >= BATCH_BYTES
    }

    /// An entry was looked at.
    pub(super) fn looked_at(&mut self) {
        self.spent += LOOKED_AT;
    }

    /// Adds a payload with another sequence in the place of its position.
    pub(super) fn add(&mut self, meta: &Meta, payload: &[u8], sequence: u64) {
        let digits = meta.digits_at as usize;
        self.put(payload, digits..digits + usize::from(meta.digits), sequence, meta.received_ms);
    }

    /// Adds a payload of which nothing is known, with another sequence.
    pub(super) fn renumber(&mut self, payload: &[u8], sequence: u64) {
        // What isn't a dispatch never got into a log.
        if let Some(digits) = scan(payload).ok().and_then(|header| header.sequence_range) {
            self.put(payload, digits, sequence, 0);
        }
    }

    fn put(&mut self, payload: &[u8], digits: std::ops::Range<usize>, sequence: u64, received_ms: u64) {
        self.bytes.extend_from_slice(&payload[..digits.start]);
        self.bytes.extend_from_slice(itoa::Buffer::new().format(sequence).as_bytes());
        self.bytes.extend_from_slice(&payload[digits.end..]);
        self.items.push(Item { end: self.bytes.len(), sequence, received_ms });
        self.spent += payload.len();
    }

    /// Gives the last payload its client's nonce.
    pub(super) fn restore_nonce(&mut self, nonce: Option<&str>) {
        let Some(mut last) = self.items.pop() else { return };
        let begin = self.items.last().map_or(0, |item| item.end);
        let restored = restore_nonce(&self.bytes[begin..], nonce);
        self.bytes.truncate(begin);
        self.bytes.extend_from_slice(&restored);
        last.end = self.bytes.len();
        self.items.push(last);
    }

    /// Hands all payloads on, in order, and is empty. Returns what it took to gather them, in bytes.
    pub(super) fn drain(&mut self, mut give: impl FnMut(&Item, &[u8])) -> usize {
        let mut begin = 0;
        for item in self.items.drain(..) {
            give(&item, &self.bytes[begin..item.end]);
            begin = item.end;
        }
        self.bytes.clear();
        // What a large payload took is given back: idle clients are many.
        self.bytes.shrink_to(2 * 1024);
        std::mem::take(&mut self.spent)
    }
}
