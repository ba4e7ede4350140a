// SPDX-License-Identifier: AGPL-3.0-only
//! Whether a bot got every message: in order within each run, all runs together without a hole but those that Discord
//! itself made.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::Ledger;

/// Last numbers per guild: before and after Discord had dropped a session.
pub(crate) type Hole = (BTreeMap<String, u64>, BTreeMap<String, u64>);

/// Checks a bot's runs against what was sent; how many messages came twice.
pub(crate) fn check(who: &str, runs: &[Ledger], sent: &BTreeMap<String, u64>, holes: &[Hole]) -> usize {
    sent.iter()
        .map(|(guild, last)| check_guild(&format!("{who}, guild {guild}"), guild, runs, *last, holes))
        .sum()
}

fn check_guild(who: &str, guild: &str, runs: &[Ledger], last: u64, holes: &[Hole]) -> usize {
    let excused = |number: &u64| {
        let bound = |side: &BTreeMap<String, u64>| side.get(guild).copied().unwrap_or(0);
        holes.iter().any(|(before, after)| bound(before) < *number && *number <= bound(after))
    };
    let (mut all, mut came) = (BTreeSet::<u64>::new(), 0);
    for (run, ledger) in runs.iter().enumerate() {
        let numbers = ledger.got().get(guild).map_or(&[][..], Vec::as_slice);
        for pair in numbers.windows(2) {
            assert!(pair[0] < pair[1], "{who}: run {run} has {} before {}", pair[0], pair[1]);
            let lost: Vec<u64> = (pair[0] + 1..pair[1]).filter(|number| !excused(number)).collect();
            assert!(lost.is_empty(), "{who}: run {run} of {} lacks {lost:?}", runs.len());
        }
        came += numbers.len();
        all.extend(numbers.iter().copied());
    }
    let lost: Vec<u64> = (1..=last).filter(|number| !all.contains(number) && !excused(number)).collect();
    let begins: Vec<_> = runs.iter().map(|run| run.got().get(guild).map(|got| (got[0], got.len()))).collect();
    assert!(lost.is_empty(), "{who}: lost {lost:?} of {last}; runs (first, count): {begins:?}");
    came - all.len()
}
