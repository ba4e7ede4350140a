// SPDX-License-Identifier: AGPL-3.0-only
//! Messages of traffic.
//!
//! In: guild, number, id. Out: a MESSAGE_CREATE as Discord writes it, of a given size, made by copying pieces of a
//! text that was cut up once.
use bytes::{Bytes, BytesMut};

use crate::clock::{iso8601, unix};
use crate::encode::decimal;
use crate::hub::Event;
use crate::world::{Kind, entity, index_of};

/// In Discord's order of keys. `‹…›` are slots.
const TEXT: &str = r#"{"type":0,"tts":false,"timestamp":"‹time›","pinned":false,"nonce":"‹micros›","mentions":[],"mention_roles":[],"mention_everyone":false,"member":{"roles":["‹role›"],"premium_since":null,"pending":false,"nick":null,"mute":false,"joined_at":"2023-04-05T06:07:08.091011+00:00","flags":0,"deaf":false,"communication_disabled_until":null,"banner":null,"avatar":null},"id":"‹id›","flags":0,"embeds":[‹padding›],"edited_timestamp":null,"content":"sim ‹guild› ‹number›","components":[],"channel_type":0,"channel_id":"‹channel›","author":{"username":"somebody","public_flags":0,"primary_guild":null,"id":"‹author›","global_name":"Some Body","discriminator":"0","collectibles":null,"clan":null,"avatar_decoration_data":null,"avatar":"1a2b3c4d5e6f708192a3b4c5d6e7f809"},"attachments":[],"guild_id":"‹guild›"}"#;

/// What dispatch adds around `d`, with room for a sequence of six digits.
const AROUND: usize = 46;

#[derive(Clone, Copy, Debug)]
enum Slot {
    Time,
    Micros,
    Role,
    Id,
    Guild,
    Number,
    Channel,
    Author,
}

/// The cut-up text.
pub(crate) struct MessageTemplate {
    pieces: Vec<(Vec<u8>, Option<Slot>)>,
    time: String,
    /// Events are cut from one allocation after another, not allocated singly.
    space: BytesMut,
}

/// Allocations that events are cut from.
const SPACE: usize = 256 << 10;

impl MessageTemplate {
    /// For payloads of about `bytes` in all; smaller ones than the fields need aren't possible (some 950).
    pub(crate) fn new(bytes: usize) -> Self {
        // Slots are about as wide as their names plus what is added here: 19 digits, times, markers.
        let plain = TEXT.replace("‹padding›", "");
        let mut template = Self::cut(&plain);
        let size = template.build(u64::MAX >> 1, 1_000, u64::MAX >> 1).len() + AROUND;
        let frame = r#"{"type":"rich","description":""}"#;
        if bytes > size + frame.len() {
            let words = "lorem ipsum dolor sit amet ".repeat(bytes / 27 + 1);
            let embed = frame.replace(r#":"""#, &format!(":\"{}\"", &words[..bytes - size - frame.len()]));
            template = Self::cut(&TEXT.replace("‹padding›", &embed));
        }
        template
    }

    fn cut(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('‹') {
            let (slot, after) = after.split_once('›').unwrap_or((after, ""));
            let slot = match slot {
                "time" => Slot::Time,
                "micros" => Slot::Micros,
                "role" => Slot::Role,
                "id" => Slot::Id,
                "number" => Slot::Number,
                "channel" => Slot::Channel,
                "author" => Slot::Author,
                _ => Slot::Guild,
            };
            pieces.push((before.as_bytes().to_vec(), Some(slot)));
            rest = after;
        }
        pieces.push((rest.as_bytes().to_vec(), None));
        Self { pieces, time: iso8601(unix()), space: BytesMut::new() }
    }

    /// Takes the present time for the `timestamp` of the messages that follow.
    pub(crate) fn set_time(&mut self) {
        self.time = iso8601(unix());
    }

    /// The event, its channel and its id.
    pub(crate) fn message(&mut self, guild: u64, number: u64, id: u64) -> (Event, u64, u64) {
        let data = self.build(guild, number, id);
        let channel = entity(Kind::Channel, index_of(guild), 0);
        let name = Bytes::from_static(b"MESSAGE_CREATE");
        (Event { guild: Some(guild), shard: None, name, data, about_self: false }, channel, id)
    }

    fn build(&mut self, guild: u64, number: u64, id: u64) -> Bytes {
        if self.space.capacity() < 64 << 10 {
            self.space = BytesMut::with_capacity(SPACE);
        }
        let index = index_of(guild);
        for (piece, slot) in &self.pieces {
            self.space.extend_from_slice(piece);
            let value = match slot {
                None => continue,
                Some(Slot::Time) => {
                    self.space.extend_from_slice(self.time.as_bytes());
                    continue;
                }
                Some(Slot::Micros) => u64::try_from(unix().as_micros()).unwrap_or_default(),
                Some(Slot::Role) => entity(Kind::Role, index, 1),
                Some(Slot::Id) => id,
                Some(Slot::Guild) => guild,
                Some(Slot::Number) => number,
                Some(Slot::Channel) => entity(Kind::Channel, index, 0),
                Some(Slot::Author) => entity(Kind::User, index, 1),
            };
            self.space.extend_from_slice(decimal(value, &mut [0; 20]));
        }
        self.space.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::guild_id;

    #[test]
    fn a_message_has_the_size_asked_for_and_its_number() {
        for bytes in [1_200, 4_000] {
            let mut template = MessageTemplate::new(bytes);
            let (event, channel, id) = template.message(guild_id(5), 17, 1_540_000_000_000_000_000);
            let size = event.data.len() + AROUND;
            assert!(size.abs_diff(bytes) < 12, "{size} instead of {bytes}");
            let data: serde_json::Value = serde_json::from_slice(&event.data).unwrap();
            assert_eq!(data["content"], format!("sim {} 17", guild_id(5)));
            assert_eq!(
                (data["id"].as_str(), data["channel_id"].as_str()),
                (Some(id.to_string().as_str()), Some(channel.to_string().as_str()))
            );
            assert!(data["nonce"].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000_000_000);
        }
    }
}
