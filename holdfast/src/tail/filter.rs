// SPDX-License-Identifier: AGPL-3.0-only
//! Which events are wanted. In: the command's flags. Out: routing keys for the broker, shards for the front, and a
//! judgement of each event. Pure. Markers of gaps pass whatever the names and guilds: what is shown has a hole there.

use holdfast_contract::GAP;
use holdfast_discord::EventKind;

use crate::args::Tail;

/// Lists of what is wanted; an empty one wants everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    events: Vec<String>,
    guilds: Vec<u64>,
    shards: Vec<u32>,
}

/// Stands for any one word of a routing key.
const ANY: &str = "*";

impl Filter {
    pub(super) fn of(options: &Tail) -> Self {
        let events = options.events.iter().map(|name| name.to_ascii_uppercase()).collect();
        Self { events, guilds: options.guilds.clone(), shards: options.shards.clone() }
    }

    /// Whether an event is shown.
    pub(super) fn admits(&self, name: &str, shard: Option<u32>, guild: u64) -> bool {
        let named = self.events.is_empty() || self.events.iter().any(|wanted| wanted == name);
        let in_guild = self.guilds.is_empty() || self.guilds.contains(&guild);
        // No shard is asked for where they aren't told apart.
        shard.is_none_or(|shard| self.admits_shard(shard)) && (name == GAP || (named && in_guild))
    }

    /// Routing keys that bring everything that is wanted, and little else.
    pub(super) fn keys(&self) -> Vec<String> {
        let text = |words: Vec<String>| if words.is_empty() { vec![ANY.to_owned()] } else { words };
        let names = text(self.events.clone());
        let shards = text(self.shards.iter().map(u32::to_string).collect());
        let guilds = text(self.guilds.iter().map(u64::to_string).collect());
        let mut keys = Vec::new();
        for shard in &shards {
            for name in &names {
                keys.extend(guilds.iter().map(|guild| format!("{name}.{shard}.{guild}")));
            }
            let gap = format!("{GAP}.{shard}.{ANY}");
            if names != [ANY] || guilds != [ANY] {
                keys.push(gap);
            }
        }
        keys
    }

    /// The shards out of `count` that hold what is wanted.
    pub(super) fn shards(&self, count: u32) -> Vec<u32> {
        let holds_a_guild = |shard: u32| {
            self.guilds.is_empty()
                || self.guilds.iter().any(|guild| (guild >> 22) % u64::from(count) == u64::from(shard))
        };
        (0..count).filter(|shard| self.admits_shard(*shard) && holds_a_guild(*shard)).collect()
    }

    /// Whether shards are to be told apart.
    pub(super) fn names_shards(&self) -> bool {
        !self.shards.is_empty()
    }

    /// Names that are wanted and that no documented event has.
    pub(super) fn unknown_events(&self) -> impl Iterator<Item = &str> {
        let known = |name: &&String| name.as_str() == GAP || EventKind::from_name(name) != EventKind::Unknown;
        self.events.iter().filter(move |name| !known(name)).map(String::as_str)
    }

    fn admits_shard(&self, shard: u32) -> bool {
        self.shards.is_empty() || self.shards.contains(&shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(events: &[&str], guilds: &[u64], shards: &[u32]) -> Filter {
        let events = events.iter().map(|name| (*name).to_owned()).collect();
        Filter { events, guilds: guilds.to_vec(), shards: shards.to_vec() }
    }

    #[test]
    fn all_that_is_given_must_hold_and_one_of_each_list() {
        let filter = filter(&["MESSAGE_CREATE", "TYPING_START"], &[7], &[1, 2]);
        assert!(filter.admits("MESSAGE_CREATE", Some(1), 7));
        assert!(filter.admits("TYPING_START", Some(2), 7));
        assert!(!filter.admits("MESSAGE_CREATE", Some(0), 7));
        assert!(!filter.admits("MESSAGE_CREATE", Some(1), 8));
        assert!(!filter.admits("MESSAGE_DELETE", Some(1), 7));
        assert!(Filter::default().admits("ANYTHING", None, 0));
    }

    #[test]
    fn gaps_of_the_shards_that_are_watched_are_always_shown() {
        let filter = filter(&["MESSAGE_CREATE"], &[7], &[1]);
        assert!(filter.admits(GAP, Some(1), 0));
        assert!(!filter.admits(GAP, Some(0), 0));
    }

    #[test]
    fn keys_are_every_combination_and_the_gaps() {
        assert_eq!(Filter::default().keys(), ["*.*.*"]);
        assert_eq!(filter(&[], &[], &[4]).keys(), ["*.4.*"]);
        assert_eq!(filter(&["A", "B"], &[7], &[1]).keys(), ["A.1.7", "B.1.7", "HOLDFAST_GAP.1.*"],);
        assert_eq!(filter(&["A"], &[], &[]).keys(), ["A.*.*", "HOLDFAST_GAP.*.*"]);
    }

    #[test]
    fn a_guild_is_watched_on_its_own_shard_alone() {
        assert_eq!(Filter::default().shards(3), [0, 1, 2]);
        assert_eq!(filter(&[], &[5 << 22], &[]).shards(4), [1]);
        assert_eq!(filter(&[], &[5 << 22], &[2]).shards(4), Vec::<u32>::new());
        assert_eq!(filter(&[], &[], &[2, 9]).shards(4), [2]);
    }

    #[test]
    fn a_misspelt_event_is_told() {
        let filter = filter(&["MESAGE_CREATE", "MESSAGE_CREATE", GAP], &[], &[]);
        assert_eq!(filter.unknown_events().collect::<Vec<_>>(), ["MESAGE_CREATE"]);
    }
}
