// SPDX-License-Identifier: AGPL-3.0-only
//! REST's limits as replicas share them. In: requests that want to go, and what became of them. Out: tickets, or what to
//! wait for. The account itself is a script, the same as `holdfast_discord::rest::Bucket` by the store's clock.

use std::fmt::Write as _;
use std::time::Duration;

use holdfast_discord::rest::Told;
use holdfast_service::Tasks;
use redis::{Cmd, Value};
use tokio::sync::watch;

use super::dial::Dialler;
use super::link::Link;
use super::reply::{Reply, strange, text};
use super::{CaFileError, script};
use crate::{Settings, StoreState, Unavailable};

/// What one replica has to do with the shared account. Clones share the connection.
#[derive(Clone, Debug)]
pub struct RestStore {
    link: Link,
    state: watch::Receiver<StoreState>,
    prefix: String,
}

/// Whose bucket it is, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestBucket {
    keys: [String; 5],
    kin: u16,
    group: u8,
}

/// A request that wants to go.
#[derive(Clone, Copy, Debug)]
pub struct RestWish {
    /// What may turn out to count apart.
    pub voice: u16,
    /// Only one at a time.
    pub alone: bool,
    /// After this time without an answer, whoever sent a request has died.
    pub patience: Duration,
    /// When a request without an answer is taken to be counted, at the latest, after it was sent.
    pub margin: Duration,
    /// The global limit and its window, if it counts.
    pub global: Option<(u32, Duration)>,
    /// The limit that no header tells, if it counts.
    pub hidden: Option<(u32, Duration)>,
}

/// The right to send one request.
#[derive(Clone, Debug)]
pub struct RestTicket {
    at: String,
    ended: String,
    base: String,
    place: String,
}

/// What the store says to a wish.
#[derive(Clone, Debug)]
pub enum RestTaken {
    /// It may go.
    Granted(RestTicket),
    /// It may not go yet.
    Wait {
        /// For so long; `None`: until a request under way is answered.
        time: Option<Duration>,
        /// It is the global limit that keeps it.
        global: bool,
    },
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub enum RestEnd<'a> {
    /// Answered.
    Answered {
        /// What headers told.
        told: Option<Told>,
        /// Answers without a limit mean nothing.
        cautious: bool,
        /// What the answer calls the bucket, if that is news, the route, and whether that may join another's kin.
        name: Option<(&'a str, u16, bool)>,
    },
    /// A 429 about the bucket.
    Limited {
        /// How long it holds.
        wait: Duration,
        /// What headers told.
        told: Option<Told>,
    },
    /// A 429 about a limit that no header tells.
    Hidden(Duration),
    /// A 429 about everything.
    Global(Duration),
    /// No answer came.
    Lost,
    /// It was never sent.
    Unused,
}

/// What is noted under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestNoted {
    /// Nothing was: from now on it counts as begun.
    Fresh,
    /// It was begun.
    Undecided,
    /// It was done, with this outcome.
    Done(Vec<u8>),
}

/// What stands for something that was begun; an outcome has [`DONE`] before it.
const BEGUN: &[u8] = b"?";
const DONE: u8 = b'=';

impl RestStore {
    /// Connects in the background, for ever.
    ///
    /// # Errors
    /// When `ca_file` can't be used.
    pub fn start(settings: &Settings, tasks: &Tasks) -> Result<Self, CaFileError> {
        let (link, state) = Link::keep(Dialler::new(settings)?, tasks, None);
        Ok(Self { link, state, prefix: settings.prefix.clone() })
    }

    /// Whether the store can be reached, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<StoreState> {
        self.state.clone()
    }

    /// Whether it can be reached now, as far as is known.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state.borrow().is_connected()
    }

    /// The bucket of a token, which goes by a hash.
    #[must_use]
    pub fn bucket(&self, token: &str, kin: u16, group: u8, major: u64) -> RestBucket {
        let own = format!("{}:{{{token}}}:", self.prefix);
        let mut bucket = own.clone();
        // Writing to a string can't fail.
        let _ = write!(bucket, "bucket:{kin}.{group}.{major:x}");
        let (hidden, flying) = (format!("{bucket}:hidden"), format!("{bucket}:flying"));
        RestBucket {
            keys: [bucket, format!("{own}global"), hidden, format!("{own}learnt"), flying],
            kin,
            group,
        }
    }

    /// Lets a request go, if it may; with the version of what was learnt.
    ///
    /// # Errors
    /// The store is away.
    pub async fn take(&self, bucket: &RestBucket, wish: &RestWish) -> Result<(RestTaken, u64), Unavailable> {
        let mut call = script::REST_TAKE.on(bucket.keys());
        call.arg(wish.voice).arg(u8::from(wish.alone)).arg(millis(wish.patience)).arg(millis(wish.margin));
        for (limit, window) in [wish.global, wish.hidden].map(Option::unwrap_or_default) {
            call.arg(limit).arg(millis(window));
        }
        let mut reply = Reply::list(self.call(call).await?)?;
        let (what, version) = (reply.text()?, reply.parsed()?);
        if what == "granted" {
            let mut part = || reply.text();
            let ticket = RestTicket { at: part()?, ended: part()?, base: part()?, place: part()? };
            return Ok((RestTaken::Granted(ticket), version));
        }
        let time: String = reply.text()?;
        let time = match time.as_str() {
            "answer" => None,
            ms => Some(Duration::from_secs_f64(ms.parse::<f64>().map_err(|_| strange())?.max(0.0) / 1_000.0)),
        };
        Ok((RestTaken::Wait { time, global: what == "global" }, version))
    }

    /// Tells what became of a request.
    ///
    /// # Errors
    /// The store is away: the request counts as one without an answer.
    pub async fn end(
        &self,
        bucket: &RestBucket,
        ticket: &RestTicket,
        wish: &RestWish,
        end: &RestEnd<'_>,
    ) -> Result<(), Unavailable> {
        let (what, wait, told) = match end {
            RestEnd::Answered { told, .. } => ("answered", Duration::ZERO, *told),
            RestEnd::Limited { wait, told } => ("limited", *wait, *told),
            RestEnd::Hidden(wait) => ("hidden", *wait, None),
            RestEnd::Global(wait) => ("global", *wait, None),
            RestEnd::Lost => ("lost", Duration::ZERO, None),
            RestEnd::Unused => ("unused", Duration::ZERO, None),
        };
        let RestTicket { at, ended, base, place } = ticket;
        let mut call = script::REST_ANSWER.on(bucket.keys());
        call.arg(what).arg(at).arg(ended).arg(base).arg(place).arg(wish.voice).arg(millis(wait));
        for (_, window) in [wish.global, wish.hidden].map(Option::unwrap_or_default) {
            call.arg(millis(window));
        }
        let (cautious, name) = match end {
            RestEnd::Answered { cautious, name, .. } => (*cautious, *name),
            _ => (false, None),
        };
        call.arg(u8::from(cautious));
        match told {
            Some(told) => {
                call.arg(told.limit).arg(told.used()).arg(millis(told.reset_after));
                call.arg(told.reset.map(millis).unwrap_or_default());
            }
            None => {
                call.arg(&["", "", "", ""]);
            }
        }
        let (name, route, joins) = name.unwrap_or_default();
        call.arg(name).arg(bucket.kin).arg(bucket.group).arg(route).arg(u8::from(joins));
        self.call(call).await.map(|_| ())
    }

    /// What was learnt about a token's routes: `(route, kin)` and `(voice, group)`.
    ///
    /// # Errors
    /// The store is away.
    pub async fn learnt(
        &self,
        bucket: &RestBucket,
    ) -> Result<(Vec<(u16, u16)>, Vec<(u16, u8)>), Unavailable> {
        let mut call = redis::cmd("HGETALL");
        call.arg(&bucket.keys[3]);
        let (mut kins, mut groups) = (Vec::new(), Vec::new());
        for (field, value) in Reply::pairs(self.call(call).await?)? {
            let (field, value) = (text(field)?, text(value)?);
            let whole = value.split('.').next().unwrap_or_default();
            if let Some(route) = field.strip_prefix("k:") {
                kins.extend(route.parse().ok().zip(whole.parse().ok()));
            } else if let Some(voice) = field.strip_prefix("v:") {
                groups.extend(voice.parse().ok().zip(whole.parse().ok()));
            }
        }
        Ok((kins, groups))
    }

    /// Counts invalid requests of an egress address; says how many all of its senders have had in ten minutes.
    ///
    /// # Errors
    /// The store is away.
    pub async fn invalid(&self, egress: &str, more: u32) -> Result<u32, Unavailable> {
        let key = format!("{}:{{{egress}}}:invalid", self.prefix);
        let mut call = script::REST_INVALID.on([&key]);
        call.arg(more);
        match self.call(call).await? {
            Value::Int(total) => Ok(u32::try_from(total).unwrap_or(u32::MAX)),
            _ => Err(strange()),
        }
    }

    /// Says that a replica is at an address, for so long (zero: no more); tells where all are behind an egress address.
    ///
    /// # Errors
    /// The store is away.
    pub async fn replicas(
        &self,
        egress: &str,
        address: &str,
        counts: Duration,
    ) -> Result<Vec<String>, Unavailable> {
        let key = format!("{}:{{{egress}}}:senders", self.prefix);
        let mut call = script::REST_REPLICAS.on([&key]);
        call.arg(address).arg(counts.as_millis() as u64);
        let mut reply = Reply::list(self.call(call).await?)?;
        let mut replicas = Vec::new();
        while let Some(replica) = reply.optional()? {
            replicas.push(replica);
        }
        Ok(replicas)
    }

    /// Notes that something was begun, unless anything is noted already.
    ///
    /// # Errors
    /// The store is away.
    pub async fn begin(&self, key: &str, expiry: Duration) -> Result<RestNoted, Unavailable> {
        let mut call = redis::cmd("SET");
        call.arg(self.done_key(key)).arg(BEGUN).arg("NX").arg("PX").arg(expiry.as_millis() as u64);
        match self.call(call).await? {
            // It may lapse in between: then it isn't known how it ended.
            Value::Nil => Ok(self.noted(key).await?.unwrap_or(RestNoted::Undecided)),
            _ => Ok(RestNoted::Fresh),
        }
    }

    /// What was begun is still under way, unless it is done already.
    ///
    /// # Errors
    /// The store is away.
    pub async fn renew(&self, key: &str, expiry: Duration) -> Result<(), Unavailable> {
        if let Some(RestNoted::Done(_)) = self.noted(key).await? {
            return Ok(());
        }
        let mut call = redis::cmd("SET");
        call.arg(self.done_key(key)).arg(BEGUN).arg("PX").arg(expiry.as_millis() as u64);
        self.call(call).await.map(|_| ())
    }

    /// What is noted, if anything is.
    ///
    /// # Errors
    /// The store is away.
    pub async fn noted(&self, key: &str) -> Result<Option<RestNoted>, Unavailable> {
        let mut call = redis::cmd("GET");
        call.arg(self.done_key(key));
        match self.call(call).await? {
            Value::Nil => Ok(None),
            Value::BulkString(noted) => Ok(Some(match noted.split_first() {
                Some((&DONE, outcome)) => RestNoted::Done(outcome.to_vec()),
                _ => RestNoted::Undecided,
            })),
            _ => Err(strange()),
        }
    }

    /// Notes the outcome of what was done.
    ///
    /// # Errors
    /// The store is away.
    pub async fn done(&self, key: &str, outcome: &[u8], expiry: Duration) -> Result<(), Unavailable> {
        let noted: Vec<u8> = [DONE].iter().chain(outcome).copied().collect();
        let mut call = redis::cmd("SET");
        call.arg(self.done_key(key)).arg(noted).arg("PX").arg(expiry.as_millis() as u64);
        self.call(call).await.map(|_| ())
    }

    /// Notes nothing any more.
    ///
    /// # Errors
    /// The store is away.
    pub async fn undone(&self, key: &str) -> Result<(), Unavailable> {
        let mut call = redis::cmd("DEL");
        call.arg(self.done_key(key));
        self.call(call).await.map(|_| ())
    }

    fn done_key(&self, key: &str) -> String {
        format!("{}:{{{key}}}:done", self.prefix)
    }

    async fn call(&self, call: Cmd) -> Result<Value, Unavailable> {
        let live = self.link.live()?;
        live.bounded(live.call(call)).await
    }
}

impl RestBucket {
    fn keys(&self) -> [&str; 5] {
        self.keys.each_ref().map(String::as_str)
    }
}

/// Milliseconds with decimals, as the scripts read them.
fn millis(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1_000.0)
}
