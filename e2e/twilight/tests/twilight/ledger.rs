// SPDX-License-Identifier: AGPL-3.0-only
//! Counts the simulator's messages, which carry `sim <guild> <number>`: each once, in order, per guild.

use std::collections::BTreeMap;

/// By guild, the numbers in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Ledger(BTreeMap<String, Vec<u64>>);

impl Ledger {
    /// Notes a message by its content.
    pub(crate) fn note(&mut self, content: &str) {
        let mut words = content.split(' ').skip_while(|word| *word != "sim").skip(1);
        if let (Some(guild), Some(Ok(number))) = (words.next(), words.next().map(str::parse)) {
            self.0.entry(guild.to_owned()).or_default().push(number);
        }
    }

    /// Messages so far.
    pub(crate) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether the last of all that were sent are here.
    pub(crate) fn has_last(&self, sent: &BTreeMap<String, u64>) -> bool {
        sent.iter().all(|(guild, last)| *last == 0 || self.last(guild) >= *last)
    }

    /// Each of `sent` once and in order, from where an earlier bot stopped.
    pub(crate) fn assert_each_once_after(&self, earlier: &Self, sent: &BTreeMap<String, u64>) {
        for (guild, last) in sent {
            let expected: Vec<u64> = (earlier.last(guild) + 1..=*last).collect();
            let got = self.0.get(guild).cloned().unwrap_or_default();
            let lost: Vec<_> = expected.iter().filter(|number| !got.contains(number)).take(20).collect();
            assert!(
                got == expected,
                "guild {guild}: {} of {} messages, in order: {}, lost: {lost:?}",
                got.len(),
                expected.len(),
                got.is_sorted()
            );
        }
    }

    /// Each of `sent` once and in order.
    pub(crate) fn assert_each_once(&self, sent: &BTreeMap<String, u64>) {
        self.assert_each_once_after(&Self::default(), sent);
    }

    fn last(&self, guild: &str) -> u64 {
        self.0.get(guild).and_then(|got| got.last().copied()).unwrap_or(0)
    }
}
