// SPDX-License-Identifier: AGPL-3.0-only
//! Where a message goes: exchanges and bindings, by AMQP's rules. Pure.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::error::Refusal;
use crate::message::{Header, Headers};
use crate::topology::{Binding, Destination, Exchange, ExchangeKind};

/// All exchanges with what is bound to them.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    known: HashMap<String, (Exchange, Vec<Binding>)>,
}

impl Exchanges {
    pub(super) fn new(exchanges: &[Exchange]) -> Self {
        let known = exchanges.iter().map(|exchange| (exchange.name.clone(), (exchange.clone(), Vec::new())));
        Self { known: known.collect() }
    }

    pub(super) fn declare(&mut self, exchange: &Exchange) -> Result<(), Refusal> {
        match self.known.get(&exchange.name) {
            Some((known, _)) if known != exchange => Err(Refusal::Mismatch(format!(
                "exchange {} is {:?}, not {:?}",
                exchange.name, known.kind, exchange.kind
            ))),
            Some(_) => Ok(()),
            None => {
                self.known.insert(exchange.name.clone(), (exchange.clone(), Vec::new()));
                Ok(())
            }
        }
    }

    pub(super) fn bind(&mut self, binding: &Binding) -> Result<(), Refusal> {
        let Some((_, bindings)) = self.known.get_mut(&binding.source) else {
            return Err(Refusal::Mismatch(format!("there is no exchange {}", binding.source)));
        };
        if !bindings.contains(binding) {
            bindings.push(binding.clone());
        }
        Ok(())
    }

    pub(super) fn unbind(&mut self, binding: &Binding) {
        if let Some((_, bindings)) = self.known.get_mut(&binding.source) {
            bindings.retain(|known| known != binding);
        }
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.known.remove(name);
        self.forget(&Destination::Exchange(name.to_owned()));
    }

    pub(super) fn forget_queue(&mut self, name: &str) {
        self.forget(&Destination::Queue(name.to_owned()));
    }

    fn forget(&mut self, destination: &Destination) {
        for (_, bindings) in self.known.values_mut() {
            bindings.retain(|binding| binding.destination != *destination);
        }
    }

    /// The queues that get a message; `None` if there is no such exchange.
    pub(super) fn route(&self, exchange: &str, key: &str, headers: &Headers) -> Option<BTreeSet<String>> {
        self.known.get(exchange)?;
        let (mut queues, mut passed) = (BTreeSet::new(), BTreeSet::new());
        let mut next = vec![exchange.to_owned()];
        while let Some(name) = next.pop() {
            if !passed.insert(name.clone()) {
                continue;
            }
            let Some((exchange, bindings)) = self.known.get(&name) else { continue };
            let found = matching(&exchange.kind, bindings, key, headers);
            if found.is_empty() {
                next.extend(exchange.alternate.clone());
            }
            for binding in found {
                match &binding.destination {
                    Destination::Queue(queue) => _ = queues.insert(queue.clone()),
                    Destination::Exchange(exchange) => next.push(exchange.clone()),
                }
            }
        }
        Some(queues)
    }
}

fn matching<'b>(
    kind: &ExchangeKind,
    bindings: &'b [Binding],
    key: &str,
    headers: &Headers,
) -> Vec<&'b Binding> {
    match kind {
        ExchangeKind::Fanout => bindings.iter().collect(),
        ExchangeKind::Direct => bindings.iter().filter(|binding| binding.key == key).collect(),
        ExchangeKind::Topic => bindings.iter().filter(|binding| topic(&binding.key, key)).collect(),
        ExchangeKind::ConsistentHash { header } => {
            hashed(bindings, headers.get(header)).into_iter().collect()
        }
    }
}

/// Whether a key matches a pattern, word by word.
fn topic(pattern: &str, key: &str) -> bool {
    fn words(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => {
                words(rest, key) || key.split_first().is_some_and(|(_, key)| words(pattern, key))
            }
            (Some((word, pattern)), Some((first, key))) => {
                (*word == "*" || word == first) && words(pattern, key)
            }
            _ => false,
        }
    }
    words(&pattern.split('.').collect::<Vec<_>>(), &key.split('.').collect::<Vec<_>>())
}

/// The binding that a value falls to, by their weights.
fn hashed<'b>(bindings: &'b [Binding], value: Option<&Header>) -> Option<&'b Binding> {
    let weight = |binding: &Binding| binding.key.parse::<u64>().unwrap_or(1);
    let total: u64 = bindings.iter().map(weight).sum();
    let mut hasher = DefaultHasher::new();
    match value {
        Some(Header::Text(text)) => text.hash(&mut hasher),
        Some(Header::Integer(number)) => number.hash(&mut hasher),
        Some(Header::Flag(flag)) => flag.hash(&mut hasher),
        None => {}
    }
    let mut at = hasher.finish().checked_rem(total)?;
    bindings.iter().find(|binding| {
        let here = at < weight(binding);
        at = at.saturating_sub(weight(binding));
        here
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_match_as_amqp_says() {
        for (pattern, key, expected) in [
            ("#", "", true),
            ("#", "a.b.c", true),
            ("*", "a", true),
            ("*", "a.b", false),
            ("MESSAGE_CREATE.#", "MESSAGE_CREATE.17.5", true),
            ("MESSAGE_CREATE.#", "MESSAGE_CREATE", true),
            ("*.17.*", "MESSAGE_CREATE.17.5", true),
            ("*.17.*", "MESSAGE_CREATE.18.5", false),
            ("*.*.5", "MESSAGE_CREATE.17.5", true),
            ("#.5", "MESSAGE_CREATE.17.5", true),
            ("#.b.#", "a.b.c", true),
            ("#.b.#", "a.c", false),
        ] {
            assert_eq!(topic(pattern, key), expected, "{pattern} on {key}");
        }
    }

    #[test]
    fn exchanges_that_lead_to_each_other_end() {
        let mut exchanges = Exchanges::default();
        for name in ["a", "b"] {
            exchanges.declare(&Exchange::new(name, ExchangeKind::Fanout)).expect("declared");
        }
        exchanges.bind(&Binding::exchange("a", "b", "")).expect("bound");
        exchanges.bind(&Binding::exchange("b", "a", "")).expect("bound");
        exchanges.bind(&Binding::queue("b", "q", "")).expect("bound");
        let queues = exchanges.route("a", "", &Headers::default()).expect("there");
        assert_eq!(queues.into_iter().collect::<Vec<_>>(), ["q"]);
    }
}
