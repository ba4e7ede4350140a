// SPDX-License-Identifier: AGPL-3.0-only
//! Scenario files: a world, limits, and what happens when.
//!
//! In: JSON, in the forms of the control routes. Out: the same calls, at their times.
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::control::Control;
use crate::faults::Fault;
use crate::limits::Limits;
use crate::rest_limits::RestLimits;
use crate::traffic::{Emit, Traffic};
use crate::world::WorldSpec;

/// A whole scenario.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// The guilds.
    pub world: WorldSpec,
    /// Limits and knobs.
    pub limits: Limits,
    /// REST's limits.
    pub rest_limits: RestLimits,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// Something at its time.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// Milliseconds since the scenario began.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub wish: Wish,
}

/// What may happen.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// A generator starts.
    Traffic(Traffic),
    /// All generators stop (whatever the value).
    StopTraffic(Value),
    /// One event.
    Emit(Emit),
    /// A fault.
    Fault(Fault),
    /// Lasting faults end (whatever the value).
    ClearFaults(Value),
    /// Some limits change.
    Limits(Value),
}

/// A step that can't be carried out.
#[derive(Debug, thiserror::Error)]
#[error("step {number}: {source}")]
pub struct StepError {
    number: usize,
    source: serde_json::Error,
}

impl Scenario {
    /// Carries the steps out; returns after the last. World and limits are the simulator's options.
    ///
    /// # Errors
    /// When a step changes limits that there aren't.
    pub async fn play(&self, discord: &Control) -> Result<(), StepError> {
        discord.set_rest_limits(self.rest_limits.clone());
        let start = tokio::time::Instant::now();
        for (number, step) in self.steps.iter().enumerate() {
            tokio::time::sleep_until(start + Duration::from_millis(step.at_ms)).await;
            match &step.wish {
                Wish::Traffic(traffic) => drop(discord.traffic(traffic.clone())),
                Wish::StopTraffic(_) => drop(discord.stop_traffic().await),
                Wish::Emit(emit) => discord.emit(emit),
                Wish::Fault(fault) => drop(discord.fault(fault)),
                Wish::ClearFaults(_) => discord.clear_faults(),
                Wish::Limits(change) => {
                    let changed = discord.limits().changed(change);
                    discord.set_limits(changed.map_err(|source| StepError { number, source })?);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::{Options, Simulator};

    #[tokio::test]
    async fn a_scenario_file_sets_the_stage_and_plays_its_steps() {
        let text = r#"{"world": {"guilds": 4}, "limits": {"shards": 2}, "steps": [
            {"at_ms": 0, "traffic": {"burst": 6}},
            {"at_ms": 1, "fault": {"shard": "all", "kind": "no_ack"}},
            {"at_ms": 2, "limits": {"max_concurrency": 4}},
            {"at_ms": 3, "clear_faults": true}]}"#;
        let scenario: Scenario = serde_json::from_str(text).unwrap();
        let (world, limits) = (scenario.world.clone(), scenario.limits.clone());
        let discord = Simulator::start(Options { world, limits, ..Options::default() }).await.unwrap();
        scenario.play(&discord).await.unwrap();
        assert_eq!(discord.finish_traffic().await.sent.values().sum::<u64>(), 12);
        assert_eq!(discord.limits().max_concurrency, 4);
    }

    #[test]
    fn a_step_that_is_not_known_is_refused() {
        assert!(serde_json::from_str::<Scenario>(r#"{"steps": [{"at_ms": 0, "explode": 1}]}"#).is_err());
    }
}
