// SPDX-License-Identifier: AGPL-3.0-only
//! Events of all kinds for a guild, made from its present state.
use serde_json::Value;

use crate::clock::Snowflakes;
use crate::world::World;

/// One event that could happen in the guild now.
pub(crate) fn event(
    _world: &mut World,
    _guild: u64,
    _random: &mut fastrand::Rng,
    _ids: &Snowflakes,
) -> Option<(&'static str, Value)> {
    None
}
