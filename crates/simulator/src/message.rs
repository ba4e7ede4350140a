// SPDX-License-Identifier: AGPL-3.0-only
//! Messages of traffic.
//!
//! In: guild, number, id. Out: a MESSAGE_CREATE as Discord writes it, of a given size, made by copying pieces of a
//! text that was cut up once. No two are alike, so that they compress about as well as real ones.
use std::sync::LazyLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;

use crate::clock::{iso8601, unix};
use crate::encode::decimal;
use crate::hub::Event;
use crate::words;
use crate::world::{Kind, entity, index_of};

/// In Discord's order of keys. `‹…›` are slots.
const TEXT: &str = r#"{"type":0,"tts":false,"timestamp":"‹time›","pinned":false,"nonce":"‹micros›","mentions":[],"mention_roles":[],"mention_everyone":false,"member":{"roles":["‹role›"],"premium_since":null,"pending":false,"nick":null,"mute":false,"joined_at":"‹joined›","flags":0,"deaf":false,"communication_disabled_until":null,"banner":null,"avatar":null},"id":"‹id›","flags":0,"embeds":[‹embed›],"edited_timestamp":null,"content":"sim ‹guild› ‹number›","components":[],"channel_type":0,"channel_id":"‹channel›","author":{"username":"‹username›","public_flags":0,"primary_guild":null,"id":"‹author›","global_name":"‹name›","discriminator":"0","collectibles":null,"clan":null,"avatar_decoration_data":null,"avatar":"‹hash›"},"attachments":[],"guild_id":"‹guild›"}"#;

/// What fills a message up to its size.
const EMBED: &str = r#"{"type":"rich","description":"‹words›"}"#;

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
    Joined,
    Username,
    Name,
    Hash,
    Words,
}

/// The cut-up text.
pub(crate) struct MessageTemplate {
    pieces: Vec<(Vec<u8>, Option<Slot>)>,
    /// Length of the words that fill the message up.
    words: usize,
    /// Members that a guild's messages come from.
    authors: u32,
    /// The second that `time` was written in.
    second: u64,
    time: String,
    /// Where a message is put together.
    message: Vec<u8>,
    /// Events are cut from one allocation after another, not allocated singly.
    space: BytesMut,
}

/// Allocations that events are cut from.
const SPACE: usize = 256 << 10;

impl MessageTemplate {
    /// For payloads of about `bytes` in all, by the first `authors` members of each guild; smaller ones than the fields need aren't possible (some 950).
    pub(crate) fn new(bytes: usize, authors: u32) -> Self {
        let mut template = Self::cut(&TEXT.replace("‹embed›", ""));
        if bytes > template.size() + EMBED.len() {
            template = Self::cut(&TEXT.replace("‹embed›", EMBED));
            template.words = bytes.saturating_sub(template.size());
        }
        template.authors = authors.max(1);
        template
    }

    /// Of a payload as it is now.
    fn size(&mut self) -> usize {
        self.build(u64::MAX >> 1, 1_000, u64::MAX >> 1).len() + AROUND
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
                "joined" => Slot::Joined,
                "username" => Slot::Username,
                "name" => Slot::Name,
                "hash" => Slot::Hash,
                "words" => Slot::Words,
                _ => Slot::Guild,
            };
            pieces.push((before.as_bytes().to_vec(), Some(slot)));
            rest = after;
        }
        pieces.push((rest.as_bytes().to_vec(), None));
        Self {
            pieces,
            words: 0,
            authors: 1,
            second: 0,
            time: iso8601(Duration::ZERO),
            message: Vec::new(),
            space: BytesMut::new(),
        }
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
        let now = unix();
        self.set_time(now);
        let index = index_of(guild);
        let mut random = Rng::with_seed(guild.rotate_left(32) ^ number);
        let mut author = Author::new(index, random.u32(1..=self.authors));
        let out = &mut self.message;
        out.clear();
        for (piece, slot) in &self.pieces {
            out.extend_from_slice(piece);
            let value = match slot {
                None => continue,
                Some(Slot::Time) => {
                    out.extend_from_slice(self.time.as_bytes());
                    continue;
                }
                Some(Slot::Words) => {
                    words::write(&mut random, self.words, out);
                    continue;
                }
                Some(slot @ (Slot::Joined | Slot::Username | Slot::Name | Slot::Hash)) => {
                    author.write(*slot, out);
                    continue;
                }
                Some(Slot::Micros) => u64::try_from(now.as_micros()).unwrap_or_default(),
                Some(Slot::Role) => entity(Kind::Role, index, 1),
                Some(Slot::Id) => id,
                Some(Slot::Guild) => guild,
                Some(Slot::Number) => number,
                Some(Slot::Channel) => entity(Kind::Channel, index, 0),
                Some(Slot::Author) => author.id,
            };
            out.extend_from_slice(decimal(value, &mut [0; 20]));
        }
        self.space.extend_from_slice(out);
        self.space.split().freeze()
    }

    /// Only the microseconds are written anew within a second.
    fn set_time(&mut self, now: Duration) {
        if self.second == now.as_secs() {
            let micros = 1_000_000 + u64::from(now.subsec_micros());
            let digits = &mut [0; 20];
            let digits = std::str::from_utf8(&decimal(micros, digits)[1..]).unwrap_or("000000");
            self.time.replace_range(20..26, digits);
        } else {
            (self.second, self.time) = (now.as_secs(), iso8601(now));
        }
    }
}

/// Who wrote a message: the same number in the same guild is always the same person.
struct Author {
    id: u64,
    random: Rng,
}

impl Author {
    fn new(index: u32, number: u32) -> Self {
        let id = entity(Kind::User, index, number);
        Self { id, random: Rng::with_seed(id) }
    }

    fn write(&mut self, slot: Slot, out: &mut Vec<u8>) {
        match slot {
            Slot::Joined => {
                out.extend_from_slice(JOINED[self.random.usize(..JOINED.len())].as_bytes());
            }
            Slot::Username => words::write_name(&mut self.random, 10, out),
            Slot::Hash => words::write_hex(&mut self.random, 32, out),
            _ => words::write(&mut self.random, 12, out),
        }
    }
}

/// When members joined: some instants between 2016 and 2025.
static JOINED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut random = Rng::with_seed(2);
    let micros = 1_451_606_400_000_000..1_735_689_600_000_000;
    (0..1_024).map(|_| iso8601(Duration::from_micros(random.u64(micros.clone())))).collect()
});

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;
    use crate::world::guild_id;

    #[test]
    fn a_stream_of_messages_compresses_about_as_well_as_a_real_one() {
        for guilds in [1, 20, 1_000] {
            let mut template = MessageTemplate::new(1_200, 1_000);
            let mut stream = Compress::new(Compression::new(1), true);
            for number in 0..2_000 {
                let guild = guild_id(number % guilds);
                let id = 1_540_000_000_000_000_000 + (u64::from(number) << 22);
                let message = template.message(guild, u64::from(number / guilds) + 1, id).0.data;
                let mut out = Vec::with_capacity(4_096);
                stream.compress_vec(&message, &mut out, FlushCompress::Sync).unwrap();
            }
            let percent = stream.total_out() * 100 / stream.total_in();
            assert!((28..=45).contains(&percent), "{guilds} guilds: {percent} %");
        }
    }

    #[test]
    fn the_same_author_has_the_same_name_everywhere() {
        let mut template = MessageTemplate::new(1_200, 1_000);
        let mut authors = std::collections::HashMap::new();
        for number in 0..3_000 {
            let event = template.message(guild_id(3), number, 1).0;
            let data: serde_json::Value = serde_json::from_slice(&event.data).unwrap();
            let known = authors.entry(data["author"]["id"].to_string()).or_insert(data["author"].clone());
            assert_eq!(*known, data["author"]);
        }
        assert!((500..=1_000).contains(&authors.len()), "{} authors", authors.len());
    }

    #[test]
    fn a_message_has_the_size_asked_for_and_its_number() {
        for bytes in [1_200, 4_000] {
            let mut template = MessageTemplate::new(bytes, 1_000);
            let (event, channel, id) = template.message(guild_id(5), 17, 1_540_000_000_000_000_000);
            let size = event.data.len() + AROUND;
            assert!(size.abs_diff(bytes) < 12, "{size} instead of {bytes}");
            let data: serde_json::Value = serde_json::from_slice(&event.data).unwrap();
            assert_eq!(data["content"], format!("sim {} 17", guild_id(5)));
            let time = data["timestamp"].as_str().unwrap();
            assert!(time.len() == 32 && time.ends_with("+00:00"), "{time}");
            assert_eq!(
                (data["id"].as_str(), data["channel_id"].as_str()),
                (Some(id.to_string().as_str()), Some(channel.to_string().as_str()))
            );
            assert!(data["nonce"].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000_000_000);
        }
    }
}
