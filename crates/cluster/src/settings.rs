// SPDX-License-Identifier: AGPL-3.0-only
//! The section `[cluster]`: what the user wrote comes in, checked values go out. Its defaults stand beside what they
//! fill.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_discord::limits::IdentifyQueue;
use holdfast_service::Secret;
use holdfast_service::settings::{Section, Value};

use crate::valkey::Address;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The store that replicas share, and this replica's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the store is, with its credentials.
    pub(crate) address: Address,
    /// A file with the certificates that sign the store's, PEM; `None`: those that browsers trust.
    pub ca_file: Option<PathBuf>,
    /// What all keys begin with: one for each bot.
    pub prefix: String,
    /// How the bounds on time are chosen.
    pub times: Times,
    /// This replica's share of the shards, relative to the others'.
    pub weight: u32,
    /// The most shards that this replica takes.
    pub max_shards: Option<u32>,
    /// Whether the guild state is kept in the store too, so that another replica can resume: about 25 KB for a guild of
    /// some size, 25 MB for a shard of 1,000 of them. Whoever saves guilds heeds it; a session's record says whether
    /// they were.
    pub checkpoints: bool,
    /// IDENTIFYs of a day that are left unused.
    pub identify_reserve: u32,
}

/// Bounds on time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a lease and a replica's registration hold without being renewed: what a takeover after a crash waits
    /// for. Three renewals, so that one may be lost and one be late.
    pub expiry: Duration,
    /// How often they are renewed.
    pub renew: Duration,
    /// How long a call to the store may take.
    pub timeout: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times { expiry: 15 * SECOND, renew: 5 * SECOND, timeout: 2 * SECOND }
    }
}

impl Times {
    /// How long the store must have been out of everybody's reach to have been away: shorter than what makes a lease
    /// lapse that was renewed just before (expiry less one renewal), longer than one renewal.
    pub(crate) fn gap(&self) -> Duration {
        (self.expiry - self.renew) * 3 / 4
    }
}

impl Settings {
    /// Settings for the store at `url`, everything else at its default.
    ///
    /// # Errors
    /// Why the address is none.
    pub fn at(url: &str) -> Result<Settings, &'static str> {
        Ok(Settings {
            address: Address::parse(url)?,
            ca_file: None,
            prefix: "holdfast".to_owned(),
            times: Times::default(),
            weight: 100,
            max_shards: None,
            checkpoints: true,
            identify_reserve: IdentifyQueue::KEEP,
        })
    }

    /// Reads the section.
    #[must_use]
    pub fn read(cluster: &Section<'_>) -> Settings {
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let mut settings = Settings {
            address: address(cluster),
            ca_file: cluster.optional_path("ca_file"),
            prefix: prefix(cluster),
            times: times(cluster),
            weight: narrow(cluster.integer("weight", 100, 1..=10_000)),
            max_shards: max_shards(cluster),
            checkpoints: cluster.flag("checkpoints", true),
            identify_reserve: narrow(cluster.integer(
                "identify_reserve",
                u64::from(IdentifyQueue::KEEP),
                u64::from(IdentifyQueue::KEEP)..=1000,
            )),
        };
        if let Some(password) = cluster.secret("sentinel_password") {
            settings.address.set_sentinel_password(password);
        }
        settings
    }
}

fn address(cluster: &Section<'_>) -> Address {
    let url = cluster.secret_or_file("url", "url_file").unwrap_or_else(|| {
        cluster.problem("url", "missing: the store's address, such as \"redis://localhost\", or url_file");
        Secret::default()
    });
    match Address::parse(url.expose()) {
        Ok(address) => address,
        // Said above, if there is none at all. The text isn't shown: it may hold a password.
        Err(_) if url.is_empty() => Address::default(),
        Err(why) => {
            cluster.problem("url", why);
            Address::default()
        }
    }
}

fn times(cluster: &Section<'_>) -> Times {
    let default = Times::default();
    let times = Times {
        expiry: cluster.duration("expiry", default.expiry, SECOND..=5 * MINUTE),
        renew: cluster.duration("renew_interval", default.renew, SECOND / 10..=MINUTE),
        timeout: cluster.duration("timeout", default.timeout, SECOND / 20..=MINUTE),
    };
    if times.expiry < 3 * times.renew {
        cluster.problem(
            "expiry",
            "too short: at least three times renew_interval, so that one renewal may fail",
        );
        return default;
    }
    times
}

fn prefix(cluster: &Section<'_>) -> String {
    let prefix = cluster.text("prefix", "holdfast");
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(fits) {
        cluster.problem("prefix", "expected 1 to 64 letters, digits or any of - _ . :");
    }
    prefix
}

fn max_shards(cluster: &Section<'_>) -> Option<u32> {
    let parse = |value: &Value| match value {
        Value::Integer(number) => u32::try_from(*number).ok().filter(|number| *number > 0),
        Value::Text(text) => text.parse().ok().filter(|number| *number > 0),
        _ => None,
    };
    cluster.optional_custom("max_shards", "a whole number from 1", parse, u32::to_string)
}

#[cfg(test)]
mod tests {
    use holdfast_service::settings::Document;

    use super::*;

    #[test]
    fn a_section_with_an_address_is_enough() {
        let settings = read("url = \"redis://localhost\"").unwrap();
        assert_eq!(settings, Settings::at("redis://localhost").unwrap());
        assert!(settings.times.gap() > settings.times.renew);
    }

    #[test]
    fn all_problems_are_told_and_no_password_is() {
        let told = read(
            "url = \"reddis://:hush@host\"\nexpiry = \"6s\"\nprefix = \"a b\"\nmax_shards = 0\nweigth = 3\n",
        )
        .unwrap_err();
        for part in ["cluster.url", "redis://", "expiry", "prefix", "max_shards", "did you mean"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("hush"), "{told}");
        assert!(read("").unwrap_err().contains("missing"));
    }

    #[test]
    fn the_password_never_shows() {
        let settings = read("url = \"redis://me:hush@localhost\"\nsentinel_password = \"hush\"").unwrap();
        assert!(!format!("{settings:?}").contains("hush"));
    }

    fn read(section: &str) -> Result<Settings, String> {
        let document = Document::parse(&format!("[cluster]\n{section}"), "test.toml").unwrap();
        let reading = document.read(|root| root.section("cluster", Settings::read));
        reading.into_result().map_err(|problems| problems.to_string())
    }
}
