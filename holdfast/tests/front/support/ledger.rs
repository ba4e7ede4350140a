// SPDX-License-Identifier: AGPL-3.0-only
//! Counts the simulator's messages: every one once, in order, per guild.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a client has got, by guild: the numbers of its messages in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    got: BTreeMap<String, Vec<u64>>,
}

impl Ledger {
    /// Notes a dispatch; others than the simulator's numbered messages don't count.
    pub(crate) fn note(&mut self, payload: &Value) {
        if let Some((guild, number)) = numbered(payload) {
            self.got.entry(guild.to_owned()).or_default().push(number);
        }
    }

    /// What came, by guild, in order.
    pub(crate) fn got(&self) -> &BTreeMap<String, Vec<u64>> {
        &self.got
    }

    /// Messages so far.
    pub(crate) fn count(&self) -> usize {
        self.got.values().map(Vec::len).sum()
    }

    /// Whether the last message of each of these guilds is here.
    pub(crate) fn has_last(&self, sent: &BTreeMap<String, u64>) -> bool {
        sent.iter()
            .all(|(guild, last)| *last == 0 || self.got.get(guild).is_some_and(|got| got.contains(last)))
    }

    /// Each of `sent` from `from` on exactly once and in order.
    pub(crate) fn assert_each_once(&self, sent: &BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
        for (guild, last) in sent {
            let first = from.get(guild).copied().unwrap_or(0) + 1;
            let expected: Vec<u64> = (first..=*last).collect();
            let got = self.got.get(guild).cloned().unwrap_or_default();
            if got != expected {
                let lost: Vec<_> = expected.iter().filter(|n| !got.contains(n)).take(20).collect();
                let sorted = got.is_sorted();
                panic!(
                    "guild {guild}: {} of {} messages (first {first}), in order: {sorted}, lost: {lost:?}",
                    got.len(),
                    expected.len()
                );
            }
        }
    }

    /// Each of `sent` at least once; what came twice.
    pub(crate) fn assert_none_lost(&self, sent: &BTreeMap<String, u64>) -> usize {
        let mut twice = 0;
        for (guild, last) in sent {
            let got = self.got.get(guild).cloned().unwrap_or_default();
            let lost: Vec<_> = (1..=*last).filter(|number| !got.contains(number)).take(20).collect();
            assert!(lost.is_empty(), "guild {guild}: lost {lost:?} of {last}");
            let mut distinct = got.clone();
            distinct.sort_unstable();
            distinct.dedup();
            twice += got.len() - distinct.len();
        }
        twice
    }

    /// What was sent after `from` came exactly once, last and in order, whatever came before it.
    pub(crate) fn assert_tail(&self, sent: &BTreeMap<String, u64>, from: &BTreeMap<String, u64>, what: &str) {
        for (guild, last) in sent {
            let first = from.get(guild).copied().unwrap_or(0) + 1;
            let expected: Vec<u64> = (first..=*last).collect();
            let got = self.got.get(guild).cloned().unwrap_or_default();
            assert!(got.ends_with(&expected), "{what}: guild {guild}: {got:?} should end with {expected:?}");
        }
    }

    /// The last number per guild.
    pub(crate) fn last(&self) -> BTreeMap<String, u64> {
        self.got.iter().filter_map(|(guild, got)| Some((guild.clone(), *got.last()?))).collect()
    }

    /// Adds what another client got after this one.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (guild, got) in &other.got {
            self.got.entry(guild.clone()).or_default().extend(got);
        }
    }
}

/// The guild and the number of one of the simulator's messages.
pub(crate) fn numbered(payload: &Value) -> Option<(&str, u64)> {
    if payload["t"] != "MESSAGE_CREATE" {
        return None;
    }
    let content = payload["d"]["content"].as_str().unwrap_or_default();
    let mut words = content.split(' ').skip_while(|word| *word != "sim").skip(1);
    Some((words.next()?, words.next()?.parse().ok()?))
}
