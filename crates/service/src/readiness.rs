// SPDX-License-Identifier: AGPL-3.0-only
//! Whether the process may be given work: each part states a condition, `/readyz` is well when all of them are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Everything that has to be well. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<String, Standing>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Met,
    /// It is met, with something that people should know.
    Remark(String),
    Unmet(String),
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
        self.select(|standing| match standing {
            Standing::Unmet(reason) => Some(reason),
            _ => None,
        })
    }

    /// What people should know though the process is ready, as `name: remark`.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        self.select(|standing| match standing {
            Standing::Remark(remark) => Some(remark),
            _ => None,
        })
    }

    fn select(&self, which: impl Fn(&Standing) -> Option<&String>) -> Vec<String> {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions
            .iter()
            .filter_map(|(name, standing)| Some(format!("{name}: {}", which(standing)?)))
            .collect()
    }
}

impl Condition {
    /// The condition is met.
    pub fn ready(&self) {
        self.set(Standing::Met);
    }

    /// The condition is met, but people should know something.
    pub fn remark(&self, remark: impl Into<String>) {
        self.set(Standing::Remark(remark.into()));
    }

    /// The condition isn't met, or no longer.
    pub fn waiting(&self, reason: impl Into<String>) {
        self.set(Standing::Unmet(reason.into()));
    }

    fn set(&self, standing: Standing) {
        let mut conditions = self.readiness.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.insert(self.name.clone(), standing);
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
        broker.remark("slow");
        assert_eq!((readiness.unmet(), readiness.remarks()), (vec![], vec!["broker: slow".to_owned()]));
        shards.waiting("1 of 2 connected");
        assert_eq!(readiness.unmet(), ["shards: 1 of 2 connected"]);
    }
}
