// SPDX-License-Identifier: AGPL-3.0-only
//! The section `[api]`, and what the service needs of others: what the user wrote comes in as sections, a checked
//! [`Config`] goes out. Every default stands beside what it fills; docs/configuration.md has the arithmetic.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_broker::BrokerSettings;
use holdfast_rest::LimitSettings;
use holdfast_service::settings::{Document, GIB, KIB, MIB, Section, Value};
use holdfast_service::{Secret, Tls};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Everything that the service needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where callers come.
    pub listen: SocketAddr,
    /// TLS of the listener.
    pub tls: Option<Tls>,
    /// Base of Discord's API.
    pub api_url: String,
    /// The bot's token, where there is one.
    pub token: Option<Secret>,
    /// Whether requests without a token get the bot's.
    pub default_token: bool,
    /// Whether other tokens are refused.
    pub only_own_token: bool,
    /// Values of `Authorization` that are taken, and no others but the bot's own. Empty: no list.
    pub tokens: Vec<Secret>,
    /// What callers have to show.
    pub secret: Option<Secret>,
    /// Whether bots are told to connect to `gateway_url`.
    pub gateway: bool,
    /// The WebSocket front as bots reach it.
    pub gateway_url: String,
    /// The count of shards that bots are told; `None` tells what Discord recommends.
    pub shards: Option<u32>,
    /// The longest that a request waits for its turn.
    pub max_wait: Duration,
    /// Largest body of a request that is kept to be sent again, and of all of them together.
    pub keep_body: usize,
    /// See `keep_body`.
    pub keep_memory: usize,
    /// Largest body of a request.
    pub max_body: u64,
    /// Largest head of a request.
    pub max_header_bytes: usize,
    /// Most connections of callers.
    pub max_connections: usize,
    /// How long a connection may be idle, and a head may take to come.
    pub idle_timeout: Duration,
    /// The longest pause within a body.
    pub body_timeout: Duration,
    /// How long Discord may take to begin its answer.
    pub upstream_timeout: Duration,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// The address at which other replicas and `webhook` reach the listener; by default `listen`.
    pub advertise: Option<String>,
    /// Whether identical requests that are under way at once share one answer.
    pub coalesce: bool,
    /// How long answers to GET are kept to be given again; zero: not at all.
    pub cache: Duration,
    /// Bytes of answers that are kept.
    pub cache_memory: usize,
    /// Bytes of uploads that are kept for `webhook`.
    pub uploads: u64,
    /// Where they are kept; by default where the system keeps such files.
    pub uploads_dir: Option<PathBuf>,
    /// How long each is kept.
    pub upload_expiry: Duration,
    /// Requests by AMQP that are taken in and not yet answered.
    pub requests_in_flight: u16,
    /// Limits.
    pub limits: LimitSettings,
    /// The broker; without it, that of this process.
    pub broker: Option<BrokerSettings>,
    /// The store in which replicas share one account; without it this process has its own.
    pub cluster: Option<holdfast_cluster::Settings>,
}

/// What others' sections say, for a process that reads them already.
#[derive(Debug, Clone, PartialEq)]
pub struct Beside {
    /// `discord.api_url`.
    pub api_url: String,
    /// `discord.token`, where there is one.
    pub token: Option<Secret>,
    /// `ws.public_url`.
    pub gateway_url: String,
    /// `ws.shards.total`.
    pub shards: Option<u32>,
    /// `[broker]`.
    pub broker: Option<BrokerSettings>,
    /// `[cluster]`.
    pub cluster: Option<holdfast_cluster::Settings>,
}

impl Config {
    /// Reads the section, and what it needs of others, in a process of this service alone.
    #[must_use]
    pub fn read(root: &Section<'_>) -> Self {
        let (token, api_url) = root.section("discord", |discord| {
            discord.pass_over_others();
            let token = discord.secret_or_file("token", "token_file");
            (token, discord.url("api_url", "https://discord.com/api/v10", &["https", "http"]))
        });
        let (gateway_url, shards) = root.section("ws", |ws| {
            ws.pass_over_others();
            let shards = ws.section("shards", |shards| {
                shards.pass_over_others();
                let parse = |value: &Value| match value {
                    Value::Integer(number) => u32::try_from(*number).ok().map(Some),
                    Value::Text(text) if text == "auto" => Some(None),
                    Value::Text(text) => text.parse().ok().map(Some),
                    _ => None,
                };
                let show =
                    |total: &Option<u32>| total.map_or("\"auto\"".to_owned(), |total| total.to_string());
                shards.custom("total", None, "a whole number or \"auto\"", parse, show)
            });
            (ws.url("public_url", "ws://localhost:7878", &["ws", "wss"]), shards)
        });
        let token = token.map(|token| Secret::new(token.expose().trim_start_matches("Bot ").trim()));
        let broker = BrokerSettings::read(root);
        let cluster = root.optional_section("cluster", holdfast_cluster::Settings::read);
        Self::beside(root, Beside { api_url, token, gateway_url, shards, broker, cluster })
    }

    /// Reads the section alone.
    #[must_use]
    pub fn beside(root: &Section<'_>, beside: Beside) -> Self {
        let Beside { api_url, token, gateway_url, shards, broker, cluster } = beside;
        root.section("api", |api| Self {
            listen: api.address("listen", SocketAddr::from(([127, 0, 0, 1], 7979))),
            tls: Tls::read(api),
            api_url,
            default_token: own(api, "default_token", token.as_ref()),
            only_own_token: own(api, "only_own_token", token.as_ref()),
            tokens: listed(api),
            token,
            secret: api.secret("secret"),
            gateway: api.flag("gateway", true),
            gateway_url,
            shards,
            max_wait: api.duration("max_wait", MINUTE, SECOND / 10..=HOUR),
            // A message with embeds is at most 6,000 characters, up to 24 KB.
            keep_body: size(api.bytes("keep_body", 64 * KIB, 0..=16 * MIB)),
            // 1,024 of the largest, or 64,000 usual ones.
            keep_memory: size(api.bytes("keep_memory", 64 * MIB, MIB..=2 * GIB)),
            max_body: api.bytes("max_body", 512 * MIB, MIB..=16 * GIB),
            max_header_bytes: size(api.bytes("max_header_bytes", 32 * KIB, 8 * KIB..=MIB)),
            max_connections: size(api.integer("max_connections", 16_384, 1..=1_000_000)),
            idle_timeout: api.duration("idle_timeout", 75 * SECOND, SECOND / 10..=HOUR),
            body_timeout: api.duration("body_timeout", 30 * SECOND, SECOND / 10..=HOUR),
            upstream_timeout: api.duration("upstream_timeout", MINUTE, SECOND / 10..=HOUR),
            drain_timeout: api.duration("drain_timeout", 20 * SECOND, SECOND..=HOUR),
            advertise: api.optional_text("advertise"),
            coalesce: api.flag("coalesce", true),
            cache: api.duration("cache", Duration::ZERO, Duration::ZERO..=MINUTE),
            // 4,096 answers of 4 KiB.
            cache_memory: size(api.bytes("cache_memory", 16 * MIB, MIB..=2 * GIB)),
            // Ten files of Discord's own bound for a guild of level 3, 100 MiB.
            uploads: api.bytes("uploads", GIB, 0..=1024 * GIB),
            uploads_dir: api.optional_path("uploads_dir"),
            upload_expiry: api.duration("upload_expiry", 15 * MINUTE, SECOND..=24 * HOUR),
            // × at most 256 KiB = 256 MiB at worst.
            requests_in_flight: u16::try_from(api.integer("requests_in_flight", 1_024, 1..=65_535))
                .unwrap_or(u16::MAX),
            limits: LimitSettings::read(api),
            broker,
            cluster,
        })
    }
}

impl Default for Config {
    /// Everything at its default and no token.
    fn default() -> Self {
        Document::empty().read(Self::read).value
    }
}

/// The lines of `tokens_file`.
fn listed(api: &Section<'_>) -> Vec<Secret> {
    let Some(path) = api.optional_path("tokens_file") else { return Vec::new() };
    let read = std::fs::read_to_string(path).map_err(|error| format!("cannot read the file: {error}"));
    read.and_then(|text| parse_tokens(&text)).unwrap_or_else(|problem| {
        api.problem("tokens_file", problem);
        Vec::new()
    })
}

/// Values of `Authorization`, one a line; a bare token is a bot's. Empty lines and those that begin with `#` say nothing.
fn parse_tokens(text: &str) -> Result<Vec<Secret>, String> {
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let tokens: Result<Vec<_>, _> = lines.map(|(number, line)| token(number + 1, line)).collect();
    tokens.and_then(|tokens| {
        if tokens.is_empty() {
            Err("the file lists no token: nobody could use api".to_owned())
        } else {
            Ok(tokens)
        }
    })
}

fn token(line: usize, text: &str) -> Result<Secret, String> {
    // Not a word of the line itself: it may hold a token.
    let wrong = || format!("line {line} is neither a token nor `Bot TOKEN` nor `Bearer TOKEN`");
    let (scheme, token) = text.split_once(' ').unwrap_or(("Bot", text));
    let fits = token.bytes().all(|byte| byte.is_ascii_graphic()) && !token.is_empty();
    if !fits || !["Bot", "Bearer"].contains(&scheme) {
        return Err(wrong());
    }
    Ok(Secret::new(format!("{scheme} {token}")))
}

/// A flag that means something only with a token of the bot's own.
fn own(api: &Section<'_>, key: &'static str, token: Option<&Secret>) -> bool {
    let flag = api.flag(key, false);
    if flag && token.is_none_or(Secret::is_empty) {
        api.problem(key, "needs discord.token");
    }
    flag
}

/// A number that was checked to be in a range far below what a `usize` holds.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tokens_has_one_a_line() {
        let tokens = parse_tokens("# ours\n\nabc.def\r\n  Bot x \nBearer y\n").unwrap();
        assert_eq!(tokens, ["Bot abc.def", "Bot x", "Bearer y"].map(Secret::new));
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_refused_without_a_word_of_it() {
        for (text, problem) in [
            ("", "lists no token"),
            ("# Bot x", "lists no token"),
            ("a\nBasic hunter2", "line 2 is neither"),
            ("Bot hunter2 hunter2", "line 1 is neither"),
            ("hunter\u{e9}2", "line 1 is neither"),
        ] {
            let said = parse_tokens(text).unwrap_err();
            assert!(said.contains(problem) && !said.contains("hunter"), "{text}: {said}");
        }
    }
}
