// SPDX-License-Identifier: AGPL-3.0-only
//! The sections `[discord]` and `[ws]`: what the user wrote comes in as sections, a checked [`Config`] goes out.
//! Every default stands beside what it fills; docs/configuration.md has the arithmetic behind them.

mod kinds;
mod reshard;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::amqp::AmqpSettings;
use holdfast_broker::BrokerSettings;
use holdfast_discord::{EventKind, Intents};
use holdfast_service::settings::{Document, GIB, KIB, MIB, Section};
use holdfast_service::{Secret, Tls};
use kinds::{PRESENCE_KIND, intents, number_or, presence, shown, size};
pub use reshard::Reshard;

/// Events that a bot gets after it has identified again, since it last had them (design: catch-up). State changes
/// aren't among them: the snapshot that comes with READY has them already.
const CATCH_UP: [EventKind; 28] = [
    EventKind::MessageCreate,
    EventKind::MessageUpdate,
    EventKind::MessageDelete,
    EventKind::MessageDeleteBulk,
    EventKind::MessageReactionAdd,
    EventKind::MessageReactionRemove,
    EventKind::MessageReactionRemoveAll,
    EventKind::MessageReactionRemoveEmoji,
    EventKind::MessagePollVoteAdd,
    EventKind::MessagePollVoteRemove,
    EventKind::InteractionCreate,
    EventKind::GuildMemberAdd,
    EventKind::GuildMemberRemove,
    EventKind::GuildBanAdd,
    EventKind::GuildBanRemove,
    EventKind::GuildAuditLogEntryCreate,
    EventKind::AutoModerationActionExecution,
    EventKind::GuildScheduledEventUserAdd,
    EventKind::GuildScheduledEventUserRemove,
    EventKind::InviteCreate,
    EventKind::InviteDelete,
    EventKind::VoiceChannelEffectSend,
    EventKind::EntitlementCreate,
    EventKind::EntitlementUpdate,
    EventKind::EntitlementDelete,
    EventKind::SubscriptionCreate,
    EventKind::SubscriptionUpdate,
    EventKind::SubscriptionDelete,
];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Everything that the service needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Discord and who we are to it.
    pub discord: Discord,
    /// Where the WebSocket front listens.
    pub listen: SocketAddr,
    /// The front's address as clients reach it: READY's `resume_gateway_url`.
    pub public_url: String,
    /// The front's address as other replicas reach it: `HOST:PORT`; by default `listen`.
    pub advertise: Option<String>,
    /// TLS of the front.
    pub tls: Option<Tls>,
    /// Paths (such as `/metrics`) that the front's own listener answers from the process's pages.
    pub pages: Vec<String>,
    /// Folder of log, sessions and guild state.
    pub state_dir: PathBuf,
    /// Which shards are ours.
    pub shards: Shards,
    /// Template of the presence that each shard identifies with (`d` of op 3); `{{shard}}` is the shard's number.
    pub presence: Option<serde_json::Value>,
    /// What is kept of each guild.
    pub cache: Cache,
    /// How old a guild's changes may grow before they are saved; bounds what a restart reads back.
    pub checkpoint_age: Duration,
    /// Events that a bot gets after it has identified again.
    pub catch_up: Vec<EventKind>,
    /// Since when it gets them.
    pub catch_up_from: CatchUpFrom,
    /// Interactions older than this are left out of catch-up: their tokens are dead after 3 s.
    pub interaction_max_age: Duration,
    /// The heartbeat interval that clients are told.
    pub heartbeat_interval: Duration,
    /// How long a client may take for TLS and the WebSocket handshake.
    pub handshake_timeout: Duration,
    /// How long a client may take from HELLO to IDENTIFY or RESUME.
    pub identify_timeout: Duration,
    /// How long a client's session is kept after its connection has ended.
    pub session_expiry: Duration,
    /// How long a hand-over or a drain waits for clients to confirm what they have.
    pub confirm_timeout: Duration,
    /// How long a drain may take before the process ends anyway.
    pub drain_timeout: Duration,
    /// Most connections at once, identified or not.
    pub max_clients: usize,
    /// Most clients of one shard at once.
    pub max_clients_per_shard: usize,
    /// Events that a client with another shard count than ours may have unconfirmed and still resume.
    pub resume_window: usize,
    /// Largest message from a client, in bytes.
    pub max_frame_bytes: usize,
    /// Whether clients must present the bot's token.
    pub validate_token: bool,
    /// Whether the presence in a client's IDENTIFY is sent upstream.
    pub forward_identify_presence: bool,
    /// Whether a client that comes back gets the credentials of its voice connections again.
    pub restore_voice: bool,
    /// Whether clients on loopback that ask for zlib-stream get stored (not deflated) blocks.
    pub stored_zlib: bool,
    /// Threads, each with its share of the shards; `None` is one per core.
    pub threads: Option<usize>,
    /// Bounds of the logs.
    pub log: Log,
    /// Changing the count of shards.
    pub reshard: Reshard,
    /// The AMQP front.
    pub amqp: AmqpSettings,
    /// The broker; without it there is no AMQP front.
    pub broker: Option<BrokerSettings>,
    /// Whether services of the same process have something to say to this one, where there is no broker.
    pub embedded: bool,
    /// The store that replicas share; without it this process has all shards of `shards`.
    pub cluster: Option<holdfast_cluster::Settings>,
}

/// The section `[discord]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Discord {
    /// The bot's token, without `Bot `.
    pub token: Secret,
    /// Base of Discord's API; the gateway's address is asked for there.
    pub api_url: String,
    /// What our shards identify with.
    pub intents: Intents,
    /// Compression between Discord and us.
    pub compression: Compression,
    /// Largest payload from Discord after inflation, in bytes.
    pub max_payload_bytes: usize,
}

/// Compression between Discord and us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `compress=zstd-stream`: smallest, and the cheapest to inflate.
    ZstdStream,
    /// `compress=zlib-stream`.
    ZlibStream,
    /// None.
    None,
}

/// Which shards are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards {
    /// Shards of the whole bot; `None` takes what Discord recommends.
    pub total: Option<u32>,
    /// First shard of ours.
    pub start: u32,
    /// The one after our last; `None` is the total.
    pub end: Option<u32>,
}

/// What is kept of each guild; what isn't appears as an empty list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// Channels.
    pub channels: bool,
    /// Threads.
    pub threads: bool,
    /// Roles.
    pub roles: bool,
    /// Emojis.
    pub emojis: bool,
    /// Stickers.
    pub stickers: bool,
    /// Members other than the bot's own, which is always kept.
    pub members: bool,
    /// Presences.
    pub presences: bool,
    /// Voice states.
    pub voice_states: bool,
    /// Stage instances.
    pub stage_instances: bool,
    /// Scheduled events.
    pub scheduled_events: bool,
    /// Soundboard sounds.
    pub soundboard_sounds: bool,
}

/// Since when a bot that identifies again gets the events of `catch_up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUpFrom {
    /// From what was not yet written to the dead connection: no event twice.
    Written,
    /// From what its last heartbeat didn't confirm: no event unprocessed.
    Confirmed,
}

/// The section `[ws.log]`: bounds over the logs of all shards of this process together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Bytes in memory: 8 MiB on each of 16 shards, about 6,500 events of 1.2 KiB each.
    pub memory: u64,
    /// How long events that are on disk stay in memory, too.
    pub memory_age: Duration,
    /// Bytes on disk: 256 MiB on each of 16 shards, an hour at 50 events/s each.
    pub disk: u64,
    /// The oldest event that is kept.
    pub age: Duration,
    /// Events after which a batch is written.
    pub batch_events: usize,
    /// Time after which a batch is written.
    pub batch_interval: Duration,
}

impl Config {
    /// Reads `[discord]` and `[ws]` from the root of the settings.
    #[must_use]
    pub fn read(root: &Section<'_>) -> Self {
        let discord = root.section("discord", Discord::read);
        let broker = BrokerSettings::read(root);
        let cluster = root.optional_section("cluster", holdfast_cluster::Settings::read);
        root.section("ws", |ws| {
            let shards = ws.section("shards", |shards| Shards::read(shards, cluster.is_some()));
            Self {
                discord,
                listen: ws.address("listen", SocketAddr::from(([127, 0, 0, 1], 7878))),
                public_url: ws.url("public_url", "ws://localhost:7878", &["ws", "wss"]),
                advertise: ws.optional_text("advertise"),
                tls: Tls::read(ws),
                pages: ws.names("pages", &[], "a list of paths such as \"/metrics\"", |path| {
                    path.starts_with('/')
                }),
                state_dir: state_dir(ws, cluster.is_some()),
                shards,
                presence: ws.optional_custom("presence", PRESENCE_KIND, presence, shown),
                cache: ws.section("cache", Cache::read),
                checkpoint_age: ws.duration("checkpoint_age", 5 * MINUTE, SECOND..=24 * HOUR),
                catch_up: catch_up(ws),
                catch_up_from: ws.choice(
                    "catch_up_from",
                    CatchUpFrom::Written,
                    &[("written", CatchUpFrom::Written), ("confirmed", CatchUpFrom::Confirmed)],
                ),
                interaction_max_age: ws.duration(
                    "interaction_max_age",
                    3 * SECOND,
                    Duration::ZERO..=15 * MINUTE,
                ),
                heartbeat_interval: ws.duration(
                    "heartbeat_interval",
                    Duration::from_millis(41_250),
                    SECOND..=5 * MINUTE,
                ),
                handshake_timeout: ws.duration("handshake_timeout", 10 * SECOND, SECOND / 10..=MINUTE),
                identify_timeout: ws.duration("identify_timeout", 30 * SECOND, SECOND / 10..=10 * MINUTE),
                session_expiry: ws.duration("session_expiry", 5 * MINUTE, SECOND..=24 * HOUR),
                confirm_timeout: ws.duration("confirm_timeout", 2 * SECOND, Duration::ZERO..=MINUTE),
                drain_timeout: ws.duration("drain_timeout", 20 * SECOND, SECOND..=HOUR),
                max_clients: size(ws.integer("max_clients", 16_384, 1..=1_000_000)),
                max_clients_per_shard: size(ws.integer("max_clients_per_shard", 64, 1..=100_000)),
                resume_window: size(ws.integer("resume_window", 65_536, 1_024..=16_777_216)),
                max_frame_bytes: size(ws.bytes("max_frame_bytes", 4 * KIB, 4 * KIB..=16 * MIB)),
                validate_token: ws.flag("validate_token", true),
                forward_identify_presence: ws.flag("forward_identify_presence", false),
                restore_voice: ws.flag("restore_voice", true),
                stored_zlib: ws.flag("stored_zlib", true),
                threads: number_or(ws, "threads", "auto", 1..=1024).map(|threads| threads as usize),
                log: ws.section("log", Log::read),
                reshard: ws.section("reshard", |reshard| Reshard::read(reshard, &shards)),
                amqp: AmqpSettings::read(ws),
                broker,
                embedded: false,
                cluster,
            }
        })
    }
}

impl Default for Config {
    /// Everything at its default and no token.
    fn default() -> Self {
        Document::empty().read(Self::read).value
    }
}

impl Discord {
    fn read(discord: &Section<'_>) -> Self {
        let token = discord.secret_or_file("token", "token_file").unwrap_or_else(|| {
            discord
                .problem("token", "missing: set the variable DISCORD_TOKEN, or the key token or token_file");
            Secret::default()
        });
        Self {
            token: Secret::new(token.expose().trim_start_matches("Bot ").trim()),
            api_url: discord.url("api_url", "https://discord.com/api/v10", &["https", "http"]),
            intents: intents(discord),
            compression: discord.choice(
                "compression",
                Compression::ZstdStream,
                &[
                    ("zstd-stream", Compression::ZstdStream),
                    ("zlib-stream", Compression::ZlibStream),
                    ("none", Compression::None),
                ],
            ),
            max_payload_bytes: size(discord.bytes("max_payload_bytes", 64 * MIB, MIB..=GIB)),
        }
    }
}

impl Shards {
    /// `shared`: replicas share out all of them.
    fn read(shards: &Section<'_>, shared: bool) -> Self {
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let total = number_or(shards, "total", "auto", 1..=1_000_000).map(narrow);
        let start = narrow(shards.integer("start", 0, 0..=1_000_000));
        let end = number_or(shards, "end", "total", 1..=1_000_000).map(narrow);
        if end.is_some_and(|end| end <= start) {
            shards.problem(
                "end",
                format!("no shard is left: it is the one after the last, and start is {start}"),
            );
        }
        if let Some(total) = total {
            if start >= total {
                shards.problem("start", format!("shards are numbered from 0, and there are {total}"));
            }
            if end.is_some_and(|end| end > total) {
                shards.problem("end", format!("shards are numbered from 0, and there are {total}"));
            }
        }
        for (key, is_set) in [("start", start > 0), ("end", end.is_some())] {
            if shared && is_set {
                let what =
                    "with [cluster], replicas share out all shards: leave it out, or leave [cluster] out";
                shards.problem(key, what);
            }
        }
        Self { total, start, end }
    }
}

impl Cache {
    fn read(cache: &Section<'_>) -> Self {
        Self {
            channels: cache.flag("channels", true),
            threads: cache.flag("threads", true),
            roles: cache.flag("roles", true),
            emojis: cache.flag("emojis", true),
            stickers: cache.flag("stickers", true),
            members: cache.flag("members", false),
            presences: cache.flag("presences", false),
            voice_states: cache.flag("voice_states", true),
            stage_instances: cache.flag("stage_instances", true),
            scheduled_events: cache.flag("scheduled_events", true),
            soundboard_sounds: cache.flag("soundboard_sounds", true),
        }
    }
}

impl Log {
    fn read(log: &Section<'_>) -> Self {
        Self {
            memory: log.bytes("memory", 128 * MIB, MIB..=1024 * GIB),
            memory_age: log.duration("memory_age", 30 * SECOND, SECOND..=HOUR),
            disk: log.bytes("disk", 4 * GIB, 16 * MIB..=64 * 1024 * GIB),
            age: log.duration("age", 24 * HOUR, MINUTE..=7 * 24 * HOUR),
            batch_events: size(log.integer("batch_events", 256, 1..=65_536)),
            batch_interval: log.duration("batch_interval", SECOND / 4, SECOND / 1000..=10 * SECOND),
        }
    }
}

/// `shared`: replicas share the shards.
fn state_dir(ws: &Section<'_>, shared: bool) -> PathBuf {
    let dir = ws.path("state_dir", "state");
    if shared && dir.as_os_str().is_empty() {
        let what = "empty: with [cluster] a folder is needed: events that don't fit into memory and the replica's name are kept in it";
        ws.problem("state_dir", what);
    }
    dir
}

fn catch_up(ws: &Section<'_>) -> Vec<EventKind> {
    let default = CATCH_UP.map(EventKind::name);
    let known = |name: &str| EventKind::from_name(name) != EventKind::Unknown;
    let expected = "a list of Discord's event names such as \"MESSAGE_CREATE\"";
    ws.names("catch_up", &default, expected, known).iter().map(|name| EventKind::from_name(name)).collect()
}
