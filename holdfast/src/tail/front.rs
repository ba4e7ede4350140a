// SPDX-License-Identifier: AGPL-3.0-only
//! Events from the WebSocket front, as a client of a name of its own, so that it takes over nobody's session. In: an
//! address, the bot's token, the number of shards where it is known. Out: events, and notices. One connection per
//! shard ([`Connection`]), else one that merges them all; made again when it is lost.

mod connection;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_discord::CloseCode;
use holdfast_service::{Backoff, Exit, Secret, Tasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use self::connection::{Connection, Ended};
use super::filter::Filter;
use super::{Failure, Item};

/// Pauses between two attempts to connect again.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the admin listener may take to answer, and how much it may say.
const ASK_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_BYTES: u64 = 4096;

/// See the module.
pub(super) struct Front {
    about: Arc<About>,
    items: mpsc::Sender<Item>,
    tasks: Tasks,
}

/// What all its connections have in common.
struct About {
    url: String,
    token: Secret,
    /// By which the front tells us from the bot.
    name: String,
    filter: Arc<Filter>,
}

/// Follows one shard.
struct Follower {
    about: Arc<About>,
    items: mpsc::Sender<Item>,
    tasks: Tasks,
    shard: Shard,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shard {
    /// One of so many.
    One { number: u32, count: u32 },
    /// All as one, whatever their number.
    All,
}

impl Front {
    pub(super) fn new(
        url: &str,
        token: &Secret,
        filter: Arc<Filter>,
        items: mpsc::Sender<Item>,
        tasks: &Tasks,
    ) -> Self {
        let name = format!("tail-{:016x}", fastrand::u64(..));
        let url = url.trim_end_matches('/').to_owned();
        let about = About { url, token: token.clone(), name, filter };
        Self { about: Arc::new(about), items, tasks: tasks.clone() }
    }

    /// Begins to watch `count` shards, or all as one where nobody knows their number; gives what is watched, in words.
    pub(super) async fn watch(self, count: Option<u32>) -> Result<String, Failure> {
        let shards = self.shards(count)?;
        let mut first = None;
        match Connection::open(&self.about, shards[0]).await {
            Ok(connection) => first = Some(connection),
            // Another process has it; the next one may be here.
            Err(Ended::Closed { code: CloseCode::INVALID_SHARD, .. }) if shards.len() > 1 => {}
            Err(ended) => return Err(self.about.failure(ended)),
        }
        let what = match count {
            Some(count) => format!("{}, {} of {count} shards", self.about.url, shards.len()),
            None => format!("{}, all shards as one", self.about.url),
        };
        for shard in shards {
            let follower = Follower {
                about: Arc::clone(&self.about),
                items: self.items.clone(),
                tasks: self.tasks.clone(),
                shard,
            };
            self.tasks.spawn("tail: a shard", follower.run(first.take()));
        }
        Ok(what)
    }

    /// What to identify for; at least one.
    fn shards(&self, count: Option<u32>) -> Result<Vec<Shard>, Failure> {
        let filter = &self.about.filter;
        let Some(count) = count else {
            return if filter.names_shards() {
                Err(Failure::usage(
                    "how many shards there are isn't known: set ws.shards.total, or leave out --shard",
                ))
            } else {
                Ok(vec![Shard::All])
            };
        };
        let shards: Vec<_> =
            filter.shards(count).into_iter().map(|number| Shard::One { number, count }).collect();
        if shards.is_empty() {
            let what = format!("there are {count} shards, and none of them has what is asked for");
            return Err(Failure::usage(what));
        }
        Ok(shards)
    }
}

impl Follower {
    async fn run(self, mut connection: Option<Connection>) {
        let mut backoff = Backoff::new(PAUSE, LONGEST_PAUSE);
        loop {
            let opened = match connection.take() {
                Some(connection) => Ok(connection),
                None => tokio::select! {
                    biased;
                    () = self.tasks.token().cancelled() => return,
                    opened = Connection::open(&self.about, self.shard) => opened,
                },
            };
            let ended = match opened {
                Ok(connection) => {
                    backoff.succeeded();
                    connection.follow(&self.about.filter, &self.items, self.tasks.token()).await
                }
                Err(ended) => ended,
            };
            let Some((said, again)) = self.judge(ended) else { return };
            if self.items.send(said).await.is_err() || !again {
                return;
            }
            tokio::select! {
                biased;
                () = self.tasks.token().cancelled() => return,
                () = tokio::time::sleep(backoff.failed()) => {}
            }
        }
    }

    /// What is said about the end of a connection, and whether to connect again; nothing if the end was our own.
    fn judge(&self, ended: Ended) -> Option<(Item, bool)> {
        let shard = self.shard;
        Some(match ended {
            Ended::Asked => return None,
            Ended::Closed { code: CloseCode::AUTHENTICATION_FAILED, .. } => {
                (Item::Failed(self.about.failure(ended)), false)
            }
            Ended::Closed { code: CloseCode::INVALID_SHARD, reason } => (Item::Notice(reason), false),
            Ended::Closed { code, reason } => {
                (Item::Notice(format!("{shard}: closed with {code}: {reason}; connecting again")), true)
            }
            Ended::Lost(what) => (Item::Notice(format!("{shard}: {what}; connecting again")), true),
        })
    }
}

impl Shard {
    /// What IDENTIFY says. Whoever is the only shard is served from all of Holdfast's.
    fn identity(self) -> [u32; 2] {
        match self {
            Self::One { number, count } => [number, count],
            Self::All => [0, 1],
        }
    }

    fn number(self) -> Option<u32> {
        match self {
            Self::One { number, .. } => Some(number),
            Self::All => None,
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One { number, .. } => write!(f, "shard {number}"),
            Self::All => f.write_str("all shards"),
        }
    }
}

impl About {
    /// Why there is nothing to watch, and what to do about it.
    fn failure(&self, ended: Ended) -> Failure {
        let url = &self.url;
        match ended {
            Ended::Closed { code: CloseCode::AUTHENTICATION_FAILED, .. } => Failure {
                what: format!(
                    "{url} refuses the token: give the one that Holdfast runs with, as DISCORD_TOKEN or in the settings"
                ),
                exit: Exit::Refused,
            },
            Ended::Closed { code, reason } => Failure::error(format!("{url} closed with {code}: {reason}")),
            Ended::Lost(what) => Failure::error(format!(
                "no WebSocket front at {url}: {what}. Is Holdfast running? Name another address with --url"
            )),
            Ended::Asked => Failure::error("the process is ending"),
        }
    }
}

/// Asks the admin listener of a Holdfast with these settings how many shards there are; none if it doesn't answer.
pub(super) async fn ask_count(admin: SocketAddr) -> Option<u32> {
    tokio::time::timeout(ASK_WITHIN, async {
        let mut tcp = TcpStream::connect(admin).await.ok()?;
        let request = format!("GET /shard-count HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        tcp.take(ANSWER_BYTES).read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let served = head.starts_with("HTTP/1.1 200");
        body.trim().parse().ok().filter(|count| served && *count > 0)
    })
    .await
    .ok()?
}
