// SPDX-License-Identifier: AGPL-3.0-only
//! What has been published, event by event: which ids came, in which order, under which generation.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    time::Instant,
};

use holdfast_contract::v1::Event;
use serde_json::{Value, json};

use super::Ledger;

/// A consumer's books, kept as the contract tells consumers to: lower generations are dropped, known ids passed over.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) ledger: Ledger,
    shards: BTreeMap<u32, Shard>,
    /// What each id stood for when it came first.
    ids: HashMap<(String, u64), u64>,
    /// Ids that came again.
    pub(crate) repeated: u64,
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
    /// Events of a lower generation than one that had come.
    stale: u64,
    /// When the latest new event came, and the longest pause before one.
    heard: Option<Instant>,
    silence: std::time::Duration,
}

impl Account {
    /// An event came.
    pub(crate) fn note(&mut self, event: &Event) {
        let shard = self.shards.entry(event.shard).or_default();
        if event.generation < shard.generation {
            shard.stale += 1;
            return;
        }
        shard.generation = event.generation;
        let what = content(event);
        let known = *self.ids.entry((event.stream.clone(), event.position)).or_insert(what);
        if known != what {
            self.wrong.push(format!("{} names two events", event.id()));
        }
        if event.position <= shard.position {
            self.repeated += 1;
            return;
        }
        if shard.position > 0 && event.position != shard.position + 1 {
            let (shard, before, now) = (event.shard, shard.position, event.position);
            self.wrong.push(format!("shard {shard}: {now} ({}) follows {before}", event.name));
        }
        shard.position = event.position;
        let now = Instant::now();
        if let Some(heard) = shard.heard.replace(now) {
            shard.silence = shard.silence.max(now - heard);
        }
        if event.name == "MESSAGE_CREATE" {
            let data: Value = serde_json::from_slice(&event.data).expect("data is JSON");
            self.ledger.note(&json!({ "t": event.name, "d": data }));
        }
    }

    /// Events of a lower generation than one that had come, by shard.
    pub(crate) fn stale(&self) -> BTreeMap<u32, u64> {
        self.shards.iter().map(|(shard, it)| (*shard, it.stale)).collect()
    }

    /// Each shard's generation.
    pub(crate) fn generations(&self) -> BTreeMap<u32, u64> {
        self.shards.iter().map(|(shard, it)| (*shard, it.generation)).collect()
    }

    /// The longest pause between two events of a shard, of all shards; counted anew from here on.
    pub(crate) fn longest_silence(&mut self) -> std::time::Duration {
        self.shards.values_mut().map(|shard| std::mem::take(&mut shard.silence)).max().unwrap_or_default()
    }
}

fn content(event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&event.name, event.shard, event.sequence, event.guild_id, &event.data).hash(&mut hasher);
    hasher.finish()
}
