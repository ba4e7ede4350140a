// SPDX-License-Identifier: AGPL-3.0-only
//! Who may send when: one account per token, one guard per address. In: requests that want to go, and what became of
//! them. Out: permits, or a refusal that says when to come again. Owned by the service that sends.

mod account;
mod fair;
mod guard;
mod metrics;
mod permit;
mod refusal;
mod settings;
mod shared;
mod slot;
mod state;
mod to_the_end;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use account::{Account, Clock};
pub use fair::{Caller, Priority};
use holdfast_cluster::{CaFileError, RestStore};
use holdfast_discord::rest::{InvalidGuard, find};
use holdfast_service::{Page, Service, Tasks};
pub use metrics::{Cause, Metrics};
use permit::Held;
pub use permit::{Limited, Permit};
pub use refusal::Refusal;
pub use settings::LimitSettings;
use sha2::{Digest as _, Sha256};
use shared::{Lanes, NoGrant};
use slot::Wish;
use tokio::time::Instant;

use crate::ledger::Ledger;

/// Accounts are looked through for idle ones when there are so many: one takes about 10 KiB.
const ACCOUNTS: usize = 1_024;

const SECOND: Duration = Duration::from_secs(1);

/// The limits of everything that is sent to Discord from here. Clones share them.
#[derive(Clone)]
pub struct Limits {
    inner: Arc<Inner>,
}

struct Inner {
    settings: LimitSettings,
    /// By the Authorization header.
    accounts: RwLock<HashMap<Box<[u8]>, Arc<Account>>>,
    guard: Mutex<InvalidGuard>,
    /// Webhooks that Discord doesn't know, and until when that is taken for granted.
    gone: Mutex<HashMap<u64, Duration>>,
    waiting: AtomicUsize,
    clock: Clock,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    /// Where replicas share the account.
    store: Option<RestStore>,
    /// Invalid requests that the store hasn't heard of.
    untold: AtomicU32,
    ledger: Ledger,
}

/// Name of the account of all requests whose credential is a token in their path. No value of the header is it.
const IN_THE_PATH: &[u8] = b"\0";

/// A request that wants to go.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Value of the header Authorization; empty without one.
    pub authorization: &'a [u8],
    /// HTTP method.
    pub method: &'a str,
    /// Path below the API's version, without query.
    pub path: &'a str,
    /// Whether the body changes a channel's name or topic.
    pub name_topic: bool,
    /// How urgent it is; by default as its route says.
    pub priority: Option<Priority>,
    /// Who sends it.
    pub caller: Caller,
    /// How long it may wait.
    pub deadline: Instant,
}

impl Limits {
    /// No requests so far. Tasks that look after those who wait belong to `tasks`. With a store, replicas share the
    /// account as long as it can be reached; without one, and meanwhile, each has its own.
    #[must_use]
    pub fn new(
        settings: LimitSettings,
        metrics: Arc<Metrics>,
        store: Option<RestStore>,
        tasks: &Tasks,
    ) -> Self {
        let inner = Inner {
            ledger: Ledger::new(store.clone()),
            store,
            untold: AtomicU32::new(0),
            guard: Mutex::new(InvalidGuard::new(settings.invalid_brake, settings.invalid_stop)),
            settings,
            accounts: RwLock::default(),
            gone: Mutex::default(),
            waiting: AtomicUsize::new(0),
            clock: Clock::new(),
            tasks: tasks.clone(),
            metrics,
        };
        let limits = Self { inner: Arc::new(inner) };
        tasks.spawn("invalid requests", Arc::clone(&limits.inner).follow_invalid());
        limits
    }

    /// The limits of this process, which all its services that send share: whoever asks first has them made, with the
    /// store of `cluster` where there is one. `POST /rest/clear` of the admin listener [clears](Limits::clear) them.
    ///
    /// # Errors
    /// The store's certificates can't be used.
    pub async fn of_process(
        settings: &LimitSettings,
        cluster: Option<&holdfast_cluster::Settings>,
        service: &Service,
    ) -> Result<Self, CaFileError> {
        let make = async {
            let metrics = service.metrics.register(|registry| Arc::new(Metrics::new(registry)));
            // Its connection lives as long as anybody has it: nobody waits for its end.
            let connection = service.tasks.child();
            let store = cluster.map(|cluster| RestStore::start(cluster, &connection)).transpose()?;
            let limits = Self::new(settings.clone(), metrics, store, &service.tasks);
            let cleared = limits.clone();
            service.pages.on_post("/rest/clear", move |_| {
                cleared.clear();
                std::future::ready(Page::text("cleared\n"))
            });
            Ok(limits)
        };
        service.once(make).await
    }

    /// Where replicas share the account, if they do.
    #[must_use]
    pub fn store(&self) -> Option<&RestStore> {
        self.inner.store.as_ref()
    }

    /// What a request's account goes by, as a number that is the same in all replicas; `None` if nothing is counted.
    #[must_use]
    pub fn account_number(authorization: &[u8], method: &str, path: &str) -> Option<u64> {
        let found = find(method, path);
        let route = found.id.route();
        let name = if route.exempt { found.major.as_bytes() } else { authorization };
        (!route.each).then(|| hash(name))
    }

    /// What was done lately, by idempotency keys.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// Waits until the request may be sent. Dropping the future gives its place up.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn acquire(&self, ask: &Ask<'_>) -> Result<Permit, Refusal> {
        let outcome = self.permit(ask).await;
        if let Err(refusal) = &outcome {
            self.inner.metrics.refused(refusal.reason());
        }
        outcome
    }

    async fn permit(&self, ask: &Ask<'_>) -> Result<Permit, Refusal> {
        let inner = &self.inner;
        let found = find(ask.method, ask.path);
        let route = found.id.route();
        let age = if found.message.is_some() { found.age(unix()) as u16 } else { 0 };
        let wish = Wish {
            route: found.id,
            voice: found.id.0 * 3 + age,
            major: number(found.major),
            name_topic: ask.name_topic && route.name_topic,
            priority: ask.priority.unwrap_or(if route.urgent { Priority::High } else { Priority::Normal }),
            caller: ask.caller,
        };
        // A token in the path is the credential: whoever sends it, it is one bucket.
        let account = inner.account(if route.exempt { IN_THE_PATH } else { ask.authorization });
        let deadline = inner.clock.of(ask.deadline);
        inner.may_go(&account, &wish)?;
        inner.pass_guard(deadline).await?;
        if ask.deadline < Instant::now() {
            return Err(Refusal::Late { retry_after: SECOND });
        }
        let held = self.granted(&account, wish, ask.deadline).await?;
        let permit = Permit::new(self.clone(), Arc::clone(&account), wish, held);
        // While it waited, Discord may have said of another one what goes for all. Unsent, it gives its places back.
        inner.may_go(&account, &wish)?;
        Ok(permit)
    }

    /// Waits for the turn.
    async fn granted(&self, account: &Arc<Account>, wish: Wish, until: Instant) -> Result<Held, Refusal> {
        let inner = &self.inner;
        let route = wish.route.route();
        let mut store_away = inner.store.as_ref().is_some_and(|store| !store.is_connected());
        if let Some(lanes) = account.lanes.clone().filter(|lanes| !route.each && lanes.is_connected()) {
            let waiting = Waiting::begin(self, account, &wish)?;
            let outcome = lanes.acquire(account, wish, until).await;
            waiting.end();
            match outcome {
                Ok((grant, waited)) => {
                    if let Some((cause, time)) = waited {
                        inner.waited(account, cause, time);
                    }
                    account.goes_alone(false, Duration::ZERO);
                    return Ok(Held::Shared(grant));
                }
                Err(NoGrant::Late(retry_after)) => return Err(Refusal::Late { retry_after }),
                // Until it is back, the account of this process has to do.
                Err(NoGrant::StoreAway) => store_away = true,
            }
        }
        if store_away && !route.exempt {
            account.goes_alone(true, inner.clock.now() + SECOND + inner.settings.global_margin);
        }
        if let Some(grant) = account.try_now(&wish, inner.clock.now()) {
            return Ok(Held::Own(grant));
        }
        let waiting = Waiting::begin(self, account, &wish)?;
        let deadline = inner.clock.of(until);
        let begun = inner.clock.now();
        let late = |due: Duration| Refusal::Late { retry_after: due.saturating_sub(begun) };
        let queued = account.queue(wish, deadline, inner.clock, &inner.tasks).map_err(late)?;
        let cause = queued.cause;
        let grant = queued.turn(deadline).await;
        let now = inner.clock.now();
        waiting.end();
        inner.waited(account, cause, now - begun);
        match grant {
            Some(grant) => Ok(Held::Own(grant)),
            None => {
                let due = account.estimate(&wish, now).saturating_sub(now);
                Err(Refusal::Late { retry_after: due.max(Duration::from_millis(100)) })
            }
        }
    }

    /// Forgets refused tokens, webhooks that are gone, invalid requests and bans: somebody has looked into it.
    pub fn clear(&self) {
        lock(&self.inner.guard).clear();
        lock(&self.inner.gone).clear();
        let accounts = self.inner.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.values().for_each(|account| account.clear());
        self.inner.metrics.invalid.set(0);
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The bytes of a body that are kept for another try.
    pub(crate) fn attempts(&self) -> u32 {
        self.inner.settings.attempts
    }
}

impl Inner {
    /// Whether Discord would take requests of this kind at all.
    fn may_go(&self, account: &Account, wish: &Wish) -> Result<(), Refusal> {
        let (now, exempt) = (self.clock.now(), wish.route.route().exempt);
        if now < account.refused_until() {
            return Err(Refusal::Token);
        }
        if exempt && self.is_gone(wish.major, now) {
            return Err(Refusal::Webhook);
        }
        lock(&self.guard).refuses(now).map_or(Ok(()), |standing| Err(guard::refusal(standing, now)))
    }

    /// A request of this account has waited.
    fn waited(&self, account: &Account, cause: Cause, time: Duration) {
        self.metrics.waited(cause, time);
        if cause == Cause::Global {
            account.global_was_wanted(self.clock.now());
        }
    }

    fn account(&self, authorization: &[u8]) -> Arc<Account> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(authorization) {
            return Arc::clone(account);
        }
        drop(accounts);
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= ACCOUNTS {
            let now = self.clock.now();
            accounts.retain(|_, account| Arc::strong_count(account) > 1 || !account.is_idle(now));
        }
        let settings = &self.settings;
        let lanes = || {
            let token =
                Sha256::digest(authorization)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
            Some(Lanes::new(self.store.clone()?, token, settings.clone(), self.tasks.clone()))
        };
        let fresh = || Arc::new(Account::new(settings, lanes()));
        Arc::clone(accounts.entry(authorization.into()).or_insert_with(fresh))
    }
}

/// Counts somebody who waits; counts as having left when dropped before the end.
struct Waiting<'l> {
    limits: &'l Limits,
    ended: bool,
}

impl<'l> Waiting<'l> {
    fn begin(limits: &'l Limits, account: &Account, wish: &Wish) -> Result<Self, Refusal> {
        let inner = &limits.inner;
        if inner.waiting.fetch_add(1, Ordering::Relaxed) >= inner.settings.max_waiting {
            inner.waiting.fetch_sub(1, Ordering::Relaxed);
            let now = inner.clock.now();
            let retry_after = account.estimate(wish, now).saturating_sub(now).max(Duration::from_secs(1));
            return Err(Refusal::Full { retry_after });
        }
        inner.metrics.waiting.inc();
        Ok(Self { limits, ended: false })
    }

    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.limits.inner.waiting.fetch_sub(1, Ordering::Relaxed);
        self.limits.inner.metrics.waiting.dec();
        if !self.ended {
            self.limits.inner.metrics.left.inc();
        }
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

/// A top-level resource as a number: an id as it is, what is no number by a hash of 64 bits (FNV-1a).
fn number(major: &str) -> u64 {
    major.parse().unwrap_or_else(|_| hash(major.as_bytes()))
}

fn hash(bytes: &[u8]) -> u64 {
    let step = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
