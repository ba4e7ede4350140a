// SPDX-License-Identifier: AGPL-3.0-only
//! Whether the process may be given work: each part states a condition, `/readyz` is well when all of them are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Everything that has to be well. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

/// One condition; it belongs to the part that states it.
#[derive(Debug, Clone)]
pub struct Condition {
    name: String,
    readiness: Readiness,
}

impl Readiness {
    /// Adds a condition that isn't met yet; `reason` says what is waited for.
    pub fn condition(&self, name: impl Into<String>, reason: impl Into<String>) -> Condition {
        let condition = Condition { name: name.into(), readiness: self.clone() };
        condition.waiting(reason);
        condition
    }

    /// What is waited for, as `name: reason`; empty when the process is ready.
    #[must_use]
    pub fn unmet(&self) -> Vec<String> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let unmet = waiting.iter().filter_map(|(name, reason)| Some(format!("{name}: {}", reason.as_ref()?)));
        unmet.collect()
    }
}

impl Condition {
    /// The condition is met.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The condition isn't met, or no longer.
    pub fn waiting(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        let mut waiting = self.readiness.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(self.name.clone(), reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_condition_is_met() {
        let readiness = Readiness::default();
        let shards = readiness.condition("shards", "0 of 2 connected");
        let broker = readiness.condition("broker", "connecting");
        assert_eq!(readiness.unmet(), ["broker: connecting", "shards: 0 of 2 connected"]);
        shards.ready();
        broker.ready();
        assert!(readiness.unmet().is_empty());
        shards.waiting("1 of 2 connected");
        assert_eq!(readiness.unmet(), ["shards: 1 of 2 connected"]);
    }
}
