// SPDX-License-Identifier: AGPL-3.0-only
//! One token's account as tasks share it: the state under a lock, and a task that looks at it when something is due,
//! as long as anybody waits. In: wishes. Out: grants; whoever stops waiting gives back what came too late.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_discord::rest::Raised;
use holdfast_service::Tasks;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::lock;
use super::metrics::Cause;
use super::settings::LimitSettings;
use super::shared::Lanes;
use super::slot::{Grant, Key, Wish};
use super::state::State;

/// See the module.
#[derive(Debug)]
pub(super) struct Account {
    shared: Mutex<Shared>,
    /// Something is due earlier than was thought.
    earlier: Notify,
    /// Milliseconds of the clock until which Discord is taken not to know this token.
    refused_until: AtomicU64,
    /// 401s since the last answer that showed the token to be good.
    strikes: AtomicU64,
    /// The global limit as it has turned out to be.
    global: Mutex<Raised>,
    global_limit: AtomicU32,
    /// It goes by itself since the store is away.
    alone: AtomicBool,
    /// The account that replicas share, where they do.
    pub(super) lanes: Option<Arc<Lanes>>,
}

#[derive(Debug)]
struct Shared {
    state: State,
    /// A task looks after those who wait.
    driven: bool,
    due: Option<Duration>,
}

/// Time since the process's accounts began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Duration {
        self.0.elapsed()
    }

    pub(super) fn at(self, time: Duration) -> Instant {
        self.0 + time
    }

    pub(super) fn of(self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.0)
    }
}

/// A place in the queue.
pub(super) struct Queued {
    account: Arc<Account>,
    clock: Clock,
    grant: oneshot::Receiver<Grant>,
    pub(super) cause: Cause,
    /// The turn has come.
    served: bool,
}

impl Account {
    pub(super) fn new(settings: &LimitSettings, lanes: Option<Arc<Lanes>>) -> Self {
        let limit = settings.global_limit;
        let state = State::new(limit, settings.global_margin);
        Self {
            global: Mutex::new(Raised::new(limit, settings.global_limit_up_to)),
            global_limit: AtomicU32::new(limit),
            lanes,
            alone: AtomicBool::new(false),
            shared: Mutex::new(Shared { state, driven: false, due: None }),
            earlier: Notify::new(),
            refused_until: AtomicU64::new(0),
            strikes: AtomicU64::new(0),
        }
    }

    /// Requests a second, as far as is known.
    pub(super) fn global_limit(&self) -> u32 {
        self.global_limit.load(Ordering::Relaxed)
    }

    /// Somebody had to wait for the global limit until `now`.
    pub(super) fn global_was_wanted(&self, now: Duration) {
        let raised = lock(&self.global).wanted(now);
        self.use_global_limit(raised);
    }

    /// Discord has answered with a global 429.
    pub(super) fn global_was_too_high(&self, now: Duration) {
        let lowered = lock(&self.global).limited(now);
        self.use_global_limit(lowered);
    }

    fn use_global_limit(&self, changed: Option<u32>) {
        if let Some(limit) = changed {
            self.global_limit.store(limit, Ordering::Relaxed);
            self.change(|state| state.set_global_limit(limit));
        }
    }

    /// The store is away, or is back. What went by it last isn't known here, and is out of the global limit by `clean`.
    pub(super) fn goes_alone(&self, alone: bool, clean: Duration) {
        if self.alone.swap(alone, Ordering::Relaxed) != alone && alone {
            self.change(|state| state.hold(clean));
        }
    }

    /// Lets a request go at once, if it may.
    pub(super) fn try_now(&self, wish: &Wish, now: Duration) -> Option<Grant> {
        self.lock().state.try_now(wish, now)
    }

    /// Queues a request.
    ///
    /// # Errors
    /// When it couldn't be in time: when it could go, about.
    pub(super) fn queue(
        self: &Arc<Self>,
        wish: Wish,
        deadline: Duration,
        clock: Clock,
        tasks: &Tasks,
    ) -> Result<Queued, Duration> {
        let now = clock.now();
        let (sender, grant) = oneshot::channel();
        let mut shared = self.lock();
        let due = shared.state.estimate(&wish, now);
        if due > deadline {
            return Err(due);
        }
        let cause = shared.state.wait(wish, sender, now);
        let due = shared.state.advance(now);
        let earlier = due.is_some_and(|due| shared.due.is_none_or(|known| due < known));
        if !shared.driven {
            shared.driven = true;
            tasks.spawn("limits", Arc::clone(self).drive(clock, tasks.token().clone()));
        } else if earlier {
            self.earlier.notify_one();
        }
        drop(shared);
        Ok(Queued { account: Arc::clone(self), clock, grant, cause, served: false })
    }

    /// Changes the account, and wakes whom that lets go.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut shared = self.lock();
        change(&mut shared.state);
        // What the change has made due is known only once the task has looked.
        if shared.driven {
            self.earlier.notify_one();
        }
    }

    pub(super) fn key(&self, wish: &Wish) -> Key {
        self.lock().state.key(wish)
    }

    pub(super) fn adopt(&self, kins: &[(u16, u16)], groups: &[(u16, u8)]) {
        self.lock().state.adopt(kins, groups);
    }

    pub(super) fn is_news(&self, name: &str, kin: u16) -> bool {
        self.lock().state.is_news(name, kin)
    }

    pub(super) fn estimate(&self, wish: &Wish, now: Duration) -> Duration {
        self.lock().state.estimate(wish, now)
    }

    pub(super) fn is_idle(&self, now: Duration) -> bool {
        let shared = self.lock();
        self.lanes.as_ref().is_none_or(|lanes| lanes.is_idle())
            && !shared.driven
            && shared.state.is_idle(now)
            && now >= self.refused_until()
    }

    /// Until when Discord is taken not to know the token.
    pub(super) fn refused_until(&self) -> Duration {
        Duration::from_millis(self.refused_until.load(Ordering::Relaxed))
    }

    /// A 401. A token that was good a moment ago isn't given up for one of them: some routes answer so to good ones.
    pub(super) fn unauthorised(&self, until: Duration) {
        /// What a good token has to collect without a success in between.
        const STRIKES: u64 = 3;
        if self.strikes.fetch_add(1, Ordering::Relaxed) + 1 >= STRIKES {
            self.refused_until.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// The token is good.
    pub(super) fn authorised(&self) {
        if self.strikes.load(Ordering::Relaxed) != 0 {
            self.strikes.store(0, Ordering::Relaxed);
        }
    }

    /// Somebody has looked into it.
    pub(super) fn clear(&self) {
        self.strikes.store(0, Ordering::Relaxed);
        self.refused_until.store(0, Ordering::Relaxed);
    }

    /// Looks after those who wait, until nobody does.
    async fn drive(self: Arc<Self>, clock: Clock, ended: tokio_util::sync::CancellationToken) {
        loop {
            let due = {
                let mut shared = self.lock();
                let due = shared.state.advance(clock.now());
                shared.due = due;
                if shared.state.waiting() == 0 {
                    (shared.driven, shared.due) = (false, None);
                    return;
                }
                due
            };
            // Without a time: an answer brings the next change.
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(clock.at(due)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { biased;
                () = ended.cancelled() => return,
                () = self.earlier.notified() => {}
                () = sleep => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // The state holds no invariant that a panic could leave broken: counts are bounds.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queued {
    /// Waits for the turn, at most until `deadline`.
    pub(super) async fn turn(mut self, deadline: Duration) -> Option<Grant> {
        let until = self.clock.at(deadline);
        let grant = tokio::select! { biased;
            grant = &mut self.grant => grant.ok(),
            () = tokio::time::sleep_until(until) => None,
        };
        self.served = grant.is_some();
        grant
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let late = if self.served {
            None
        } else {
            self.grant.close();
            self.grant.try_recv().ok()
        };
        let (now, early) = (self.clock.now(), !self.served);
        self.account.change(|state| {
            state.left(early);
            if let Some(grant) = late {
                state.unused(&grant, now);
            }
        });
    }
}
