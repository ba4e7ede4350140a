// SPDX-License-Identifier: AGPL-3.0-only
//! What Discord answers, as far as our services read it. Fields that aren't named here are passed over.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Answer of `GET /gateway/bot` (Discord's documentation, "Get Gateway Bot").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GatewayBot {
    /// The gateway's address, without query.
    pub url: String,
    /// How many shards Discord recommends.
    pub shards: u32,
    /// How many sessions may still be begun.
    pub session_start_limit: SessionStartLimit,
}

/// The daily budget of IDENTIFYs ("Session Start Limit Object").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct SessionStartLimit {
    /// Sessions per day.
    pub total: u32,
    /// Sessions left.
    pub remaining: u32,
    /// When `remaining` is `total` again.
    #[serde(deserialize_with = "milliseconds")]
    pub reset_after: Duration,
    /// IDENTIFYs per 5 s.
    pub max_concurrency: u32,
}

/// Answer of `GET /users/@me`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CurrentUser {
    /// The bot's user id.
    pub id: String,
    /// The bot's name.
    pub username: String,
}

/// Answer of `GET /applications/@me`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Application {
    /// The application's id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its public flags ("Application Flags").
    #[serde(default)]
    pub flags: u64,
}

impl Application {
    /// Which privileged intents Discord grants, as gateway intent bits. Each has a flag for verified applications and
    /// one (`…_LIMITED`) for those in few servers.
    #[must_use]
    pub fn privileged_intents(&self) -> u64 {
        /// Pairs of flags in Discord's "Application Flags", and the intent's bit.
        const GRANTS: [(u64, u64); 3] =
            [(1 << 12 | 1 << 13, 1 << 8), (1 << 14 | 1 << 15, 1 << 1), (1 << 18 | 1 << 19, 1 << 15)];
        GRANTS.iter().filter(|(flags, _)| self.flags & flags != 0).map(|(_, intent)| intent).sum()
    }
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_flag_of_a_pair_grants_the_intent() {
        let grants =
            |flags| Application { id: String::new(), name: String::new(), flags }.privileged_intents();
        assert_eq!(grants(0), 0);
        assert_eq!(grants(1 << 12), 1 << 8);
        assert_eq!(grants(1 << 15), 1 << 1);
        assert_eq!(grants(1 << 13 | 1 << 14 | 1 << 19), 1 << 8 | 1 << 1 | 1 << 15);
    }
}
