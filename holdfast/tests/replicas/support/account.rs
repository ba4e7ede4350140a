// SPDX-License-Identifier: AGPL-3.0-only
//! What has been published, event by event: which ids came, in which order, under which generation.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use holdfast_contract::v1::Event;
use serde_json::{Value, json};

use super::{Ledger, ledger::numbered};

/// A consumer's books, kept as the contract tells consumers to: lower generations are dropped, known ids passed over.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) ledger: Ledger,
    /// By number and count.
    shards: BTreeMap<(u32, u32), Shard>,
    /// What each id stood for when it came first.
    ids: HashMap<(String, u64), u64>,
    /// Ids that came again.
    pub(crate) repeated: u64,
    /// Events that shards of another count may have given, too, and had.
    pub(crate) doubled: u64,
    /// Gaps told.
    pub(crate) gaps: u64,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
}

/// One shard's part.
#[derive(Default)]
struct Shard {
    generation: u64,
    position: u64,
    /// The latest event may have come by a shard of another count, too.
    uncertain: bool,
    stream: String,
    /// Events of a lower generation than one that had come.
    stale: u64,
    /// When the first event of this generation was taken in from Discord, since 1970.
    since: Duration,
    /// The longest way of a message: when it was taken in, and when it came here, after it was made.
    delays: Delays,
}

/// How long messages were under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delays {
    /// From Discord to the shard's owner.
    pub(crate) to_owner: Duration,
    /// From Discord to the consumer.
    pub(crate) to_consumer: Duration,
}

impl Account {
    /// An event came.
    pub(crate) fn note(&mut self, event: &Event) {
        let shard = self.shards.entry((event.shard, event.shard_count)).or_default();
        if event.generation < shard.generation {
            shard.stale += 1;
            return;
        }
        if event.generation > shard.generation {
            shard.generation = event.generation;
            shard.since = Duration::from_micros(event.received_at_us);
        }
        let what = content(event);
        let known = *self.ids.entry((event.stream.clone(), event.position)).or_insert(what);
        if known != what {
            self.wrong.push(format!("{} names two events", event.id()));
        }
        if event.position <= shard.position {
            self.repeated += 1;
            return;
        }
        // What shards of another count have given is passed over.
        let before = std::mem::replace(&mut shard.uncertain, event.possible_duplicate);
        let passed_over = before || event.possible_duplicate;
        // A count that the bot comes back to begins far above where it was; other new streams are told by a gap.
        let anew = std::mem::replace(&mut shard.stream, event.stream.clone()) != event.stream;
        let follows = event.position == shard.position + 1 || passed_over || anew;
        if shard.position > 0 && !follows {
            let (shard, before, now) = (event.shard, shard.position, event.position);
            self.wrong.push(format!("shard {shard}: {now} ({}) follows {before}", event.name));
        }
        shard.position = event.position;
        if event.name == "MESSAGE_CREATE" {
            let data: Value = serde_json::from_slice(&event.data).expect("data is JSON");
            shard.delays.note(made(&data), Duration::from_micros(event.received_at_us));
            let payload = json!({ "t": event.name, "d": data });
            let known = |(guild, number)| {
                self.ledger.got().get(guild).is_some_and(|got: &Vec<u64>| got.contains(&number))
            };
            if event.possible_duplicate && numbered(&payload).is_some_and(known) {
                self.doubled += 1;
                return;
            }
            self.ledger.note(&payload);
        }
    }

    /// Events of a lower generation than one that had come, by shard.
    pub(crate) fn stale(&self) -> BTreeMap<u32, u64> {
        self.shards.iter().map(|((shard, _), it)| (*shard, it.stale)).collect()
    }

    /// Each shard's generation.
    pub(crate) fn generations(&self) -> BTreeMap<u32, u64> {
        self.shards.iter().map(|((shard, _), it)| (*shard, it.generation)).collect()
    }

    /// The longest delays of each shard's messages; counted anew from here on.
    pub(crate) fn delays(&mut self) -> Vec<Delays> {
        self.shards.values_mut().map(|shard| std::mem::take(&mut shard.delays)).collect()
    }

    /// When the shard's owner of now took in its first event, since 1970.
    pub(crate) fn taken_over(&self, shard: u32) -> Duration {
        let owned = self.shards.iter().find(|((number, _), _)| *number == shard);
        owned.map(|(_, it)| it.since).expect("it has published")
    }
}

impl Delays {
    fn note(&mut self, made: Duration, received: Duration) {
        self.to_owner = self.to_owner.max(received.saturating_sub(made));
        self.to_consumer = self.to_consumer.max(now().saturating_sub(made));
    }
}

/// Since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// When a message was made, as its id says, since 1970.
fn made(message: &Value) -> Duration {
    const DISCORD_EPOCH_MS: u64 = 1_420_070_400_000;
    let id: u64 = message["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    Duration::from_millis((id >> 22) + DISCORD_EPOCH_MS)
}

fn content(event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&event.name, event.shard, event.sequence, event.guild_id, &event.data).hash(&mut hasher);
    hasher.finish()
}
