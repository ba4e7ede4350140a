// SPDX-License-Identifier: AGPL-3.0-only
//! The section `[http]`, and what the service needs of others: what the user wrote comes in as sections, a checked
//! [`Config`] goes out. Every default stands beside what it fills; docs/configuration.md has the arithmetic.

mod routes;

use std::net::SocketAddr;
use std::time::Duration;

use holdfast_broker::BrokerSettings;
use holdfast_discord::signature::PublicKey;
use holdfast_rest::LimitSettings;
use holdfast_service::settings::{Document, GIB, KIB, MIB, Section, Value};
use holdfast_service::{HttpBounds, Tls};

use routes::Reach;
pub use routes::{Defer, Kinds, RouteSettings, WayKind};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Discord gives 3 s ("Interaction Callback"); what takes longer is there too late, however near Discord is.
const LONGEST_ANSWER: Duration = Duration::from_millis(2_700);

const NO_KEY: &str = "missing: it is on the application's page at Discord, \"Public Key\"";

/// How long an interaction's token is good for ("Interaction Callback").
const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);

/// Of the drain's time, so much is for what is being answered; most of the rest for replies that are being sent late.
pub(crate) const DRAIN_ANSWERS: f64 = 0.6;
pub(crate) const DRAIN_LATE: f64 = 0.35;

/// Everything that the service needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where Discord, or a proxy before us, comes.
    pub listen: SocketAddr,
    /// TLS of the listener.
    pub tls: Option<Tls>,
    /// Whose requests are taken.
    pub applications: Vec<Application>,
    /// How far a signed time may be from ours: of interactions, and of events, which Discord sends again for ten minutes.
    pub max_age: Duration,
    /// See `max_age`.
    pub events_max_age: Duration,
    /// Requests that are remembered, so that none is taken twice.
    pub remember: usize,
    /// When Discord is told to wait, if nobody has answered: of the 3 s that it gives, some go on the way.
    pub answer_within: Duration,
    /// How long after an interaction a worker's reply can be used.
    pub late_within: Duration,
    /// Deferred interactions whose reply is waited for.
    pub max_late: usize,
    /// Requests that are being answered.
    pub max_in_flight: usize,
    /// Largest body of a request.
    pub max_body: usize,
    /// Memory for the bodies of all requests that are being answered.
    pub bodies_memory: usize,
    /// Largest reply of a worker by HTTP.
    pub max_reply: usize,
    /// The longest that a body may take to come.
    pub body_timeout: Duration,
    /// Bounds of connections.
    pub bounds: HttpBounds,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Where interactions go: the first that fits.
    pub routes: Vec<RouteSettings>,
    /// Where webhook events go: to this URL, or else to the broker.
    pub events_url: Option<String>,
    /// Base of Discord's API, for what comes late.
    pub api_url: String,
    /// The broker.
    pub broker: Option<BrokerSettings>,
    /// The store that replicas share.
    pub cluster: Option<holdfast_cluster::Settings>,
    /// Limits of what comes late.
    pub limits: LimitSettings,
}

/// An application, by its key; at its paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// What Discord signs with.
    pub key: PublicKey,
    /// Path of its interactions.
    pub interactions: String,
    /// Path of its webhook events.
    pub events: String,
}

/// What others' sections say, for a process that reads them already.
#[derive(Debug, Clone, PartialEq)]
pub struct Beside {
    /// `discord.api_url`.
    pub api_url: String,
    /// What `[api]` says of limits.
    pub limits: LimitSettings,
    /// The section `[broker]`.
    pub broker: Option<BrokerSettings>,
    /// Whether `ws` is in the same process.
    pub ws: bool,
    /// The section `[cluster]`.
    pub cluster: Option<holdfast_cluster::Settings>,
}

impl Config {
    /// Reads the section, and of others' what it needs, from the root of the settings.
    #[must_use]
    pub fn read(root: &Section<'_>) -> Self {
        let api_url = root.section("discord", |discord| {
            discord.pass_over_others();
            discord.url("api_url", "https://discord.com/api/v10", &["https", "http"])
        });
        let broker = BrokerSettings::read(root);
        let cluster = root.optional_section("cluster", holdfast_cluster::Settings::read);
        if root.origin("http").is_none() {
            root.problem("http.public_key", NO_KEY);
        }
        let limits = root.section("api", |api| {
            api.pass_over_others();
            LimitSettings::read(api)
        });
        Self::beside(root, Beside { api_url, limits, broker, ws: false, cluster })
    }

    /// Reads the section alone. Without it, nobody's requests are taken.
    #[must_use]
    pub fn beside(root: &Section<'_>, beside: Beside) -> Self {
        root.optional_section("http", |http| Self::of(http, beside)).unwrap_or_default()
    }

    fn of(http: &Section<'_>, beside: Beside) -> Self {
        let Beside { api_url, limits, broker, ws, cluster } = beside;
        let events_url = http.section("events", |events| url(events, "url"));
        let events = events_url.is_some();
        let read = Self {
            listen: http.address("listen", SocketAddr::from(([127, 0, 0, 1], 7980))),
            tls: Tls::read(http),
            applications: applications(http),
            max_age: http.duration("max_age", 30 * SECOND, SECOND..=HOUR),
            events_max_age: http.duration("events_max_age", 15 * MINUTE, SECOND..=24 * HOUR),
            // 1,000 interactions a second for as long as they are young, with room: 100 bytes each, 10 MB.
            remember: size(http.integer("remember", 100_000, 1_000..=100_000_000)),
            answer_within: http.duration("answer_within", 2 * SECOND, SECOND / 10..=LONGEST_ANSWER),
            // What is sent in the token's last seconds may come too late.
            late_within: http.duration("late_within", TOKEN_LIFE - MINUTE, SECOND..=TOKEN_LIFE),
            // About 3 KiB each, most of it the interaction.
            max_late: size(http.integer("max_late", 10_000, 1..=1_000_000)),
            max_in_flight: size(http.integer("max_in_flight", 4_096, 1..=1_000_000)),
            // Interactions with all that they resolve are below 100 KB.
            max_body: size(http.bytes("max_body", MIB, KIB..=64 * MIB)),
            // 4,096 that are ten times as large as usual. One has to fit in.
            bodies_memory: size(http.bytes("bodies_memory", 128 * MIB, 64 * MIB..=64 * GIB)),
            // A message's files may have 25 MiB.
            max_reply: size(http.bytes("max_reply", 26 * MIB, KIB..=512 * MIB)),
            body_timeout: http.duration("body_timeout", SECOND, SECOND / 10..=MINUTE),
            bounds: HttpBounds {
                max_connections: size(http.integer("max_connections", 4_096, 1..=1_000_000)),
                max_header_bytes: size(http.bytes("max_header_bytes", 16 * KIB, 8 * KIB..=MIB)),
                idle_timeout: http.duration("idle_timeout", 75 * SECOND, SECOND / 10..=HOUR),
            },
            drain_timeout: http.duration("drain_timeout", 10 * SECOND, SECOND..=HOUR),
            routes: routes::read(http, Reach { broker: broker.is_some(), ws, events }),
            events_url,
            api_url,
            broker,
            cluster,
            limits,
        };
        if read.late_within < read.answer_within {
            http.problem("late_within", "is counted from the interaction too: at least http.answer_within");
        }
        if read.drain_timeout.mul_f64(DRAIN_ANSWERS) < read.answer_within {
            http.problem(
                "drain_timeout",
                "too short: 0.6 of it is for answers, which take http.answer_within",
            );
        }
        read
    }
}

impl Default for Config {
    /// Everything at its default, and nobody's requests are taken.
    fn default() -> Self {
        let beside = Beside {
            api_url: "https://discord.com/api/v10".to_owned(),
            limits: LimitSettings::default(),
            broker: None,
            ws: false,
            cluster: None,
        };
        Document::empty().read(|root| root.section("http", |http| Self::of(http, beside))).value
    }
}

/// The one application of most, and those of `[[http.applications]]`.
fn applications(http: &Section<'_>) -> Vec<Application> {
    let only = Application::read(http);
    let mut all = http.tables("applications", Application::read);
    if all.iter().any(Option::is_none) {
        http.problem("applications", "each needs its public_key");
    }
    all.insert(0, only);
    let all: Vec<_> = all.into_iter().flatten().collect();
    if all.is_empty() {
        http.problem("public_key", NO_KEY);
    }
    let of_both = |one: &&Application| all.iter().any(|other| other.events == one.interactions);
    if let Some(application) = all.iter().find(of_both) {
        let path = &application.interactions;
        http.problem("applications", format!("{path} can't be for interactions and for events"));
    }
    all
}

impl Application {
    fn read(section: &Section<'_>) -> Option<Self> {
        let key = section.optional_custom(
            "public_key",
            "64 hexadecimal digits",
            |value| match value {
                Value::Text(text) => PublicKey::parse(text.trim()).ok(),
                _ => None,
            },
            |key| format!("\"{key}\""),
        );
        let (interactions, events) =
            (path(section, "interactions_path", "/interactions"), path(section, "events_path", "/events"));
        Some(Self { key: key?, interactions, events })
    }
}

fn path(section: &Section<'_>, key: &'static str, default: &str) -> String {
    let parse = |value: &Value| match value {
        Value::Text(text) if text.starts_with('/') && !text.contains(['?', '#', ' ']) => Some(text.clone()),
        _ => None,
    };
    let expected = format!("a path such as \"{default}\"");
    section.custom(key, default.to_owned(), &expected, parse, |path| format!("\"{path}\""))
}

/// A worker's address.
fn url(section: &Section<'_>, key: &'static str) -> Option<String> {
    let parse = |value: &Value| match value {
        Value::Text(text) => {
            let uri: http::Uri = text.parse().ok()?;
            let fits = matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some();
            fits.then(|| text.clone())
        }
        _ => None,
    };
    section.optional_custom(key, "a URL such as \"http://127.0.0.1:3000/interactions\"", parse, |url| {
        format!("\"{url}\"")
    })
}

/// A number that was checked to be in a range far below what a `usize` holds.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Problems of what somebody wrote, where `http` is a process of its own.
    fn said(text: &str) -> Vec<String> {
        let document = Document::parse(text, "my.toml").expect("it is TOML");
        let problems = document.read(Config::read).problems;
        problems.into_iter().map(|problem| problem.what).collect()
    }

    fn section(more: &str) -> String {
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        format!("[http]\npublic_key = \"{key}\"\n{more}")
    }

    #[test]
    fn what_leads_to_nobody_is_said() {
        let broker = "[broker]\nurl = \"amqp://localhost/%2f\"\n";
        assert_eq!(said(&section(broker)), Vec::<String>::new());
        let rest = said(&section(""));
        assert!(rest.len() == 1 && rest[0].contains("a last route"), "{rest:?}");
        let all = "[[http.routes]]\nto = [\"http\"]\nurl = \"http://127.0.0.1:3000/\"\n";
        assert_eq!(said(&section(all)), Vec::<String>::new());
        let some = said(&section(&all.replace("to =", "kind = \"modal\"\nto =")));
        assert!(some.len() == 1 && some[0].contains("a last route"), "{some:?}");
        let events = "[http.events]\nurl = \"http://127.0.0.1:3000/\"\n";
        assert_eq!(said(&section(events)), Vec::<String>::new());
        let amqp = said(&section("[[http.routes]]\nto = [\"amqp\"]\n"));
        assert!(amqp.iter().any(|problem| problem.contains("needs the section [broker]")), "{amqp:?}");
        let late = said(&section(&format!("answer_within = \"2s\"\nlate_within = \"1s\"\n{broker}")));
        assert!(late.len() == 1 && late[0].contains("at least http.answer_within"), "{late:?}");
    }
}
