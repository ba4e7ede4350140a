// SPDX-License-Identifier: AGPL-3.0-only
//! Ids of events and gaps, and an event's bytes with a payload that somebody else owns.

use prost::{Message, encoding};

use crate::EventId;
use crate::v1::{Event, Gap};

/// Name of the event that a [`Gap`] is published as.
pub const GAP: &str = "HOLDFAST_GAP";

/// Key of the field `Event.data`: its number, and wire type 2, a length and that many bytes.
const DATA_KEY: u8 = (15 << 3) | 2;

impl Event {
    /// The event's id, `stream:position`; the AMQP property `message_id`.
    #[must_use]
    pub fn id(&self) -> EventId {
        EventId { stream: self.stream.clone(), position: self.position }
    }

    /// Appends the event with this `data`, which is copied once, from where it lies into `out`: a payload
    /// borrowed from a log needn't become a buffer of its own first. `self.data` is to be empty; if it isn't,
    /// it is written in vain, since readers take what comes last.
    pub fn encode_with(&self, data: &[u8], out: &mut Vec<u8>) {
        // The key, and at most ten bytes of length.
        out.reserve(self.encoded_len() + 11 + data.len());
        self.encode_raw(out);
        if !data.is_empty() {
            out.push(DATA_KEY);
            encoding::encode_varint(data.len() as u64, out);
            out.extend_from_slice(data);
        }
    }
}

impl Gap {
    /// The gap's id, `stream:from-to`; the AMQP property `message_id`. No event has such an id.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}:{}-{}", self.stream, self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_borrowed_payload_gives_the_same_bytes_as_an_owned_one() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 3_000_000] {
            let data = vec![b'x'; length];
            let head =
                Event { schema: 1, name: "MESSAGE_CREATE".to_owned(), position: 7, ..Event::default() };
            let mut bytes = b"before".to_vec();
            head.encode_with(&data, &mut bytes);
            let whole = Event { data: data.into(), ..head };
            assert_eq!(bytes.strip_prefix(b"before"), Some(whole.encode_to_vec().as_slice()), "{length}");
        }
    }

    #[test]
    fn a_borrowed_payload_wins_over_the_events_own() {
        let event = Event { data: "own".into(), ..Event::default() };
        let mut bytes = Vec::new();
        event.encode_with(b"borrowed", &mut bytes);
        assert_eq!(Event::decode(bytes.as_slice()).unwrap().data, "borrowed");
    }

    #[test]
    fn a_received_payload_is_a_part_of_the_body_not_a_copy() {
        let body = bytes::Bytes::from(Event { data: "{}".into(), ..Event::default() }.encode_to_vec());
        let event = Event::decode(body.clone()).unwrap();
        assert!(body.as_ptr_range().contains(&event.data.as_ptr()));
    }

    #[test]
    fn a_gap_is_named_by_its_ends() {
        let gap = Gap { stream: "00c0ffee00c0ffee".to_owned(), from: 30, to: 31, ..Gap::default() };
        assert_eq!(gap.id(), "00c0ffee00c0ffee:30-31");
    }
}
