// SPDX-License-Identifier: AGPL-3.0-only
//! Permits of all replicas. In: shards that wish to identify, Discord's figures as each replica hears them. Out: turns,
//! by the store's clock. The queue itself is a script; here is who waits, and what to tell a store that has forgotten.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_discord::limits::{IdentifyQueue, SessionStartLimit};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::leases::millis;
use super::reply::{Reply, strange, text};
use super::{Live, Valkey, script};
use crate::{Exhausted, Unavailable};

/// Two times of renewal that are no further apart mean the same day: figures are rounded and travel.
const SAME_DAY: Duration = Duration::from_secs(300);
/// How often a store is asked again that answers but can't do it.
const PAUSE: Duration = Duration::from_millis(500);
/// The store forgets the budget, and the concurrency changes: more than both at once doesn't happen.
const ATTEMPTS: u32 = 4;

/// The replicas' queue, as one of them sees it.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    valkey: Valkey,
    known: Mutex<Known>,
}

/// What was heard last: from Discord, and from the store.
#[derive(Debug)]
struct Known {
    limit: SessionStartLimit,
    heard: Instant,
    /// The store has been told.
    told: bool,
    remaining: u32,
    concurrency: u32,
}

enum Answer {
    Granted(Permit),
    Wait(Duration),
    Exhausted(Duration),
}

/// A permit on its way to the shard that asked; given back when dropped, unless the shard has got it.
struct Permit {
    shared: Shared,
    bucket: String,
    /// When it was granted, as the store says it.
    at: String,
    unused: bool,
}

impl Shared {
    pub(crate) fn new(valkey: &Valkey, limit: SessionStartLimit) -> Shared {
        let known = Known {
            limit,
            heard: Instant::now(),
            told: false,
            remaining: limit.remaining,
            concurrency: limit.max_concurrency.max(1),
        };
        Shared { inner: Arc::new(Inner { valkey: valkey.clone(), known: Mutex::new(known) }) }
    }

    pub(crate) async fn acquire(&self, shard: u32) -> Result<(), Exhausted> {
        let mut turn = Turn { shared: self, shard, waits: false };
        loop {
            match self.ask(shard).await {
                Ok(Answer::Granted(mut permit)) => {
                    turn.waits = false;
                    permit.unused = false;
                    return Ok(());
                }
                Ok(Answer::Exhausted(renewed_in)) => return Err(Exhausted { renewed_in }),
                Ok(Answer::Wait(wait)) => {
                    turn.waits = true;
                    tokio::time::sleep(wait).await;
                }
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    let mut state = self.inner.valkey.state();
                    // It ends with the last handle on the store, and we hold one.
                    let _ = state.wait_for(crate::StoreState::is_connected).await;
                }
            }
        }
    }

    pub(crate) fn refused(&self, shard: u32) {
        let own = self.clone();
        self.behind("identify refused", async move {
            let mut call = script::REFUSED.on([&own.bucket(shard)]);
            call.arg(millis(IdentifyQueue::INTERVAL + IdentifyQueue::PATIENCE));
            // While the store is away nobody identifies anyway.
            let _ = own.inner.valkey.control(|live| async move { live.call(call).await }).await;
        });
    }

    pub(crate) fn update(&self, limit: SessionStartLimit) {
        {
            let mut known = self.lock();
            known.limit = limit;
            known.heard = Instant::now();
            known.told = false;
        }
        let own = self.clone();
        self.behind("identify budget", async move {
            let own = &own;
            // If the store is away, the next request tells it.
            let _ = own.inner.valkey.control(|live| async move { own.tell(&live).await }).await;
        });
    }

    pub(crate) fn remaining(&self) -> u32 {
        let known = self.lock();
        // What Discord has said since is on its way to the store.
        let remaining = if known.told { known.remaining } else { known.limit.remaining };
        remaining.saturating_sub(self.inner.valkey.inner.settings.identify_reserve)
    }

    pub(crate) fn limit(&self) -> SessionStartLimit {
        self.lock().limit
    }

    /// Asks beside the caller, who may go away before the answer comes: it may be a permit.
    async fn ask(&self, shard: u32) -> Result<Answer, Unavailable> {
        let (own, (answers, answer)) = (self.clone(), oneshot::channel());
        self.behind("asking to identify", async move {
            // Nobody waits any more: what was granted is given back.
            let _ = answers.send(own.ask_now(shard).await);
        });
        answer.await.unwrap_or_else(|_| Err(strange()))
    }

    async fn ask_now(&self, shard: u32) -> Result<Answer, Unavailable> {
        self.inner
            .valkey
            .control(|live| async move {
                for _ in 0..ATTEMPTS {
                    let told = self.lock().told;
                    if !told {
                        self.tell(&live).await?;
                    }
                    if let Some(answer) = self.request(&live, shard).await? {
                        return Ok(answer);
                    }
                }
                Err(strange())
            })
            .await
    }

    /// `None`: what was thought of the store isn't so; ask again.
    async fn request(&self, live: &Live, shard: u32) -> Result<Option<Answer>, Unavailable> {
        let concurrency = self.lock().concurrency;
        let bucket = self.bucket(shard);
        let mut call = script::IDENTIFY.on([&self.budget(), &bucket]);
        call.arg(shard).arg(concurrency).arg(&live.server.run);
        call.arg(millis(IdentifyQueue::INTERVAL)).arg(millis(IdentifyQueue::PATIENCE));
        call.arg(self.inner.valkey.inner.settings.identify_reserve).arg(millis(IdentifyQueue::DAY));
        let mut reply = Reply::list(live.call(call).await?)?;
        let answer = reply.text()?;
        let wait = match answer.as_str() {
            "unknown" => {
                // What it had said is the latest that is known of the day.
                let mut known = self.lock();
                known.limit = known.now();
                known.heard = Instant::now();
                known.told = false;
                return Ok(None);
            }
            "concurrency" => {
                self.lock().concurrency = reply.parsed()?;
                return Ok(None);
            }
            "granted" => Duration::ZERO,
            _ => Duration::from_millis(reply.parsed()?),
        };
        self.lock().remaining = reply.parsed()?;
        match answer.as_str() {
            "granted" => {
                let (shared, at) = (self.clone(), reply.text()?);
                Ok(Some(Answer::Granted(Permit { shared, bucket, at, unused: true })))
            }
            "wait" => Ok(Some(Answer::Wait(wait))),
            "exhausted" => Ok(Some(Answer::Exhausted(wait))),
            _ => Err(strange()),
        }
    }

    /// Tells the store what Discord said, as it stands by now.
    async fn tell(&self, live: &Live) -> Result<(), Unavailable> {
        let limit = self.lock().now();
        let mut call = script::LEARN.on([&self.budget()]);
        call.arg(limit.total).arg(limit.remaining).arg(millis(limit.reset_after)).arg(limit.max_concurrency);
        call.arg(&live.server.run).arg(live.server.began_ms.map_or(String::new(), |began| began.to_string()));
        call.arg(millis(SAME_DAY));
        let remaining = text(live.call(call).await?)?.parse().map_err(|_| strange())?;
        let mut known = self.lock();
        known.remaining = remaining;
        known.concurrency = limit.max_concurrency;
        known.told = true;
        Ok(())
    }

    fn budget(&self) -> String {
        self.inner.valkey.inner.keys.budget()
    }

    fn bucket(&self, shard: u32) -> String {
        let concurrency = self.lock().concurrency;
        self.inner.valkey.inner.keys.bucket(shard % concurrency)
    }

    /// Does what nobody waits for.
    fn behind(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        // A turn may be dropped where no runtime is left: it lapses by itself.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.inner.valkey.inner.tasks.spawn(name, work);
        }
    }

    /// Held for a few assignments, which leave nothing half done.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Discord's answer, with the time that has passed since, and with what the store said later.
    fn now(&self) -> SessionStartLimit {
        let max_concurrency = self.limit.max_concurrency.max(1);
        let passed = self.heard.elapsed();
        let remaining = if self.told { self.remaining } else { self.limit.remaining };
        match self.limit.reset_after.checked_sub(passed) {
            Some(reset_after) => SessionStartLimit { remaining, reset_after, max_concurrency, ..self.limit },
            None => {
                let total = self.limit.total;
                SessionStartLimit {
                    remaining: total,
                    reset_after: IdentifyQueue::DAY,
                    total,
                    max_concurrency,
                }
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.unused {
            return;
        }
        let own = self.shared.clone();
        let mut call = script::UNUSED.on([&own.budget(), &self.bucket]);
        call.arg(&self.at);
        self.shared.behind("identify unused", async move {
            // A store that has gone away meanwhile counts one IDENTIFY too many.
            let _ = own.inner.valkey.control(|live| async move { live.call(call).await }).await;
        });
    }
}

/// A shard's place in the queue, given up when dropped.
struct Turn<'a> {
    shared: &'a Shared,
    shard: u32,
    waits: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let (own, shard) = (self.shared.clone(), self.shard);
        self.shared.behind("identify given up", async move {
            let mut call = redis::cmd("HDEL");
            call.arg(own.bucket(shard)).arg(shard);
            // It lapses by itself, a little later.
            let _ = own.inner.valkey.control(|live| async move { live.call(call).await }).await;
        });
    }
}
