// SPDX-License-Identifier: AGPL-3.0-only
//! What is published for an entry of the log. In: its description and payload. Out: key, properties, headers, and the
//! envelope with Discord's JSON of `d` as it came. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use holdfast_broker::{
    HEADER_GENERATION, HEADER_GUILD, HEADER_SHARD, Header, Headers, Message, Names, Positioned, Properties,
    Publication, Text,
};
use holdfast_cluster::StreamId;
use holdfast_contract::{
    Body, CONTENT_TYPE, GAP, SCHEMA,
    v1::{Event, Gap, GapReason},
};
use holdfast_discord::{EventKind, scan};
use prost::Message as _;

use super::cursor::{slot_of, slot_of_gap};
use crate::log::{Meta, Position};

/// What all messages of a shard have in common.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) exchange: Text,
    pub(super) shard: u32,
    pub(super) shard_count: u32,
    pub(super) application: u64,
    pub(super) generation: u64,
}

/// AMQP's bound on a routing key, in bytes.
const KEY_BYTES: usize = 255;

/// Whether the broker takes a message with a body of at most so many bytes.
pub(super) fn is_sendable(message: &Positioned, max_bytes: usize) -> bool {
    let publication = &message.publication;
    publication.message.body.len() <= max_bytes && publication.key.len() <= KEY_BYTES
}

/// A place where events may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) stream: StreamId,
    pub(super) from: Position,
    pub(super) to: Position,
    pub(super) next_stream: StreamId,
    pub(super) reason: GapReason,
    /// How many are missing; 0: nobody knows.
    pub(super) lost: u64,
}

/// An event's name, and its `d`. None: the payload isn't what the log takes.
pub(super) fn parts<'a>(meta: &Meta, payload: &'a [u8]) -> Option<(Cow<'static, str>, &'a [u8])> {
    if meta.kind != EventKind::Unknown
        && let Some(data) = meta.data(payload)
    {
        return Some((Cow::Borrowed(meta.kind.name()), data));
    }
    // Names that this version doesn't know, and entries that were read from disk.
    let header = scan(payload).ok()?;
    let data = header.data.clone().and_then(|range| payload.get(range)).unwrap_or(b"null");
    Some((Cow::Owned(header.name?.to_owned()), data))
}

impl Envelope {
    /// The message of an event. `uncertain`: a shard of another count may have published it, too.
    pub(super) fn event(
        &self,
        meta: &Meta,
        stream: &str,
        (name, data): (&str, &[u8]),
        uncertain: bool,
    ) -> Positioned {
        let event = Event {
            schema: SCHEMA,
            application: self.application,
            shard: self.shard,
            shard_count: self.shard_count,
            stream: stream.to_owned(),
            position: meta.position,
            sequence: meta.sequence.unwrap_or(0),
            generation: self.generation,
            received_at_us: meta.received_ms * 1000,
            name: name.to_owned(),
            guild_id: meta.guild,
            possible_duplicate: uncertain,
            ..Event::default()
        };
        let mut body = Vec::new();
        event.encode_with(data, &mut body);
        let id = format!("{stream}:{}", meta.position);
        let guild = (meta.guild != 0).then_some(meta.guild);
        let seconds = meta.received_ms / 1000;
        let position = slot_of(meta.position);
        let publication = self.publication(Event::TYPE, name, guild, (id, seconds), body.into());
        Positioned { position, publication }
    }

    /// The message of a gap.
    pub(super) fn gap(&self, missing: &Missing, now_ms: u64) -> Positioned {
        let gap = Gap {
            schema: SCHEMA,
            application: self.application,
            shard: self.shard,
            shard_count: self.shard_count,
            stream: missing.stream.to_string(),
            generation: self.generation,
            received_at_us: now_ms * 1000,
            name: GAP.to_owned(),
            from: missing.from,
            to: missing.to,
            next_stream: missing.next_stream.to_string(),
            reason: missing.reason.into(),
            lost: missing.lost,
        };
        let id = gap.id();
        let body = Bytes::from(gap.encode_to_vec());
        // An event that can't be published is replaced by its gap; any other gap is behind the event at `from`.
        let position = match missing.reason {
            GapReason::TooLarge => slot_of(missing.from + 1),
            _ => slot_of_gap(missing.from),
        };
        let publication = self.publication(Gap::TYPE, GAP, None, (id, now_ms / 1000), body);
        Positioned { position, publication }
    }

    fn publication(
        &self,
        kind: &'static str,
        name: &str,
        guild: Option<u64>,
        (id, seconds): (String, u64),
        body: Bytes,
    ) -> Publication {
        let mut headers = Headers::with_capacity(3);
        let shard = self.shard.to_string();
        headers.push(HEADER_GUILD, guild.map_or_else(|| shard.clone(), |guild| guild.to_string()));
        headers.push(HEADER_SHARD, shard);
        let generation = i64::try_from(self.generation).unwrap_or(i64::MAX);
        headers.push(HEADER_GENERATION, Header::Integer(generation));
        let properties = Properties {
            message_id: Some(Text::Owned(id)),
            kind: Some(Text::Borrowed(kind)),
            content_type: Some(Text::Borrowed(CONTENT_TYPE)),
            timestamp: Some(seconds),
            persistent: true,
            ..Properties::default()
        };
        let key = Names::event_key(name, self.shard, guild);
        Publication::new(self.exchange.clone(), key, Message { body, properties, headers }).mandatory()
    }
}
