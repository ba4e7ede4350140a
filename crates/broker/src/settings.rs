// SPDX-License-Identifier: AGPL-3.0-only
//! The section `[broker]`: what the user wrote comes in as a section, checked [`BrokerSettings`] go out. The address
//! holds a password, so it is a secret as a whole.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_service::Secret;
use holdfast_service::settings::{KIB, MIB, Section, Value};

use crate::address::Address;

const SECOND: Duration = Duration::from_secs(1);

/// What [`BrokerSettings::prefix`] is unless it is set.
const PREFIX: &str = "holdfast";

/// How the broker is reached. Without the section there is no AMQP front, and services of one process speak in
/// memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    /// `amqp://user:password@host:port/vhost`, or `amqps://`.
    pub url: Secret,
    /// What all names begin with: one prefix or one vhost per bot.
    pub prefix: String,
    /// Certificates of the authority that signed the broker's, PEM, on top of the public ones.
    pub ca: Option<PathBuf>,
    /// How often both sides show that they live. A broker that is silent for twice as long is given up; half of it
    /// passes between two heartbeats.
    pub heartbeat: Duration,
    /// How long TCP, TLS and AMQP together may take to connect.
    pub connect_timeout: Duration,
    /// The pause after the first failure to connect; doubled with each further one.
    pub reconnect_min: Duration,
    /// The longest pause between two attempts. There is no last attempt.
    pub reconnect_max: Duration,
    /// The largest body that is published, in bytes. RabbitMQ's own limit is 128 MiB up to 3.13 and 16 MiB since 4.0;
    /// beyond it, it closes the channel.
    pub max_message_bytes: usize,
}

impl BrokerSettings {
    /// The defaults for a given address.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: Secret::new(url),
            prefix: PREFIX.to_owned(),
            ca: None,
            // Detects a cut network within 20 s, at two small frames every 5 s; RabbitMQ's default of 60 s would take
            // two minutes.
            heartbeat: 10 * SECOND,
            connect_timeout: 10 * SECOND,
            reconnect_min: SECOND / 5,
            // Jittered between half and all of it: a thousand replicas make 270 attempts a second.
            reconnect_max: 5 * SECOND,
            max_message_bytes: 16 * MIB as usize,
        }
    }

    /// Reads the section from the root of the settings; `None` if it isn't there.
    pub fn read(root: &Section<'_>) -> Option<Self> {
        root.optional_section("broker", |broker| {
            let default = Self::at("");
            let expected = "up to 64 letters, digits, \"-\", \"_\" or \".\"";
            Self {
                url: url(broker),
                prefix: broker
                    .custom("prefix", default.prefix, expected, prefix, |name| format!("\"{name}\"")),
                ca: broker.optional_path("ca"),
                heartbeat: broker.duration("heartbeat", default.heartbeat, SECOND..=300 * SECOND),
                connect_timeout: broker.duration(
                    "connect_timeout",
                    default.connect_timeout,
                    SECOND / 10..=60 * SECOND,
                ),
                reconnect_min: broker.duration(
                    "reconnect_min",
                    default.reconnect_min,
                    SECOND / 100..=60 * SECOND,
                ),
                reconnect_max: broker.duration(
                    "reconnect_max",
                    default.reconnect_max,
                    SECOND / 100..=600 * SECOND,
                ),
                max_message_bytes: usize::try_from(broker.bytes(
                    "max_message_bytes",
                    16 * MIB,
                    64 * KIB..=128 * MIB,
                ))
                .unwrap_or(usize::MAX),
            }
        })
    }
}

fn url(broker: &Section<'_>) -> Secret {
    let url = broker.secret("url").unwrap_or_default();
    if url.is_empty() {
        broker
            .problem("url", "missing: expected an address such as \"amqp://user:password@localhost/vhost\"");
    } else if let Err(what) = Address::parse(&url) {
        broker.problem("url", what);
    }
    url
}

fn prefix(value: &Value) -> Option<String> {
    let Value::Text(text) = value else { return None };
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    (plain && (1..=64).contains(&text.len())).then(|| text.clone())
}

#[cfg(test)]
mod tests {
    use holdfast_service::settings::{Document, Origin};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Option<BrokerSettings>, Vec<String>) {
        let mut document = Document::empty();
        for (key, value) in pairs {
            let origin = Origin::Argument("test".to_owned());
            document.set(&format!("broker.{key}"), Value::Text((*value).to_owned()), origin);
        }
        let reading = document.read(BrokerSettings::read);
        (reading.value, reading.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_the_section_there_is_no_broker() {
        assert_eq!(read(&[]), (None, vec![]));
    }

    #[test]
    fn an_address_alone_is_enough() {
        let (settings, problems) = read(&[("url", "amqp://localhost")]);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(settings, Some(BrokerSettings::at("amqp://localhost")));
    }

    #[test]
    fn a_bad_address_is_reported_without_its_password() {
        for url in
            ["http://me:hunter2@host", "amqp://me:hunter2@host:port", "me:hunter2", "amqp://me:hunter2@"]
        {
            let (_, problems) = read(&[("url", url)]);
            assert_eq!(problems.len(), 1, "{url}: {problems:?}");
            assert!(problems[0].starts_with("broker.url: "), "{problems:?}");
            assert!(!problems[0].contains("hunter2"), "{problems:?}");
        }
    }

    #[test]
    fn a_prefix_that_would_break_names_is_refused() {
        for prefix in ["", "a b", "a/b", "*"] {
            let (_, problems) = read(&[("url", "amqp://localhost"), ("prefix", prefix)]);
            assert_eq!(problems.len(), 1, "{prefix:?}: {problems:?}");
        }
    }

    #[test]
    fn the_address_is_not_printed() {
        let printed = format!("{:?}", BrokerSettings::at("amqp://me:hunter2@host"));
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
