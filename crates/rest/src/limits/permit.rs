// SPDX-License-Identifier: AGPL-3.0-only
//! The right to send one request. In: what became of it. Out: a better account. Dropped unsent it gives its places
//! back; dropped without an answer it counts as one that Discord may have counted.

use std::sync::Arc;
use std::time::Duration;

use holdfast_discord::rest::{Route, Scope, Told};

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::account::Account;
use super::shared::{End, SharedGrant};
use super::slot::{Grant, Wish};
use super::{Limits, lock};

/// The store has what a 429 says within this time, or is away.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// See the module.
pub struct Permit {
    limits: Limits,
    account: Arc<Account>,
    wish: Wish,
    grant: Option<Held>,
    sent: Option<Duration>,
}

/// The places that the request has, in the account of this process or in the one that replicas share.
pub(super) enum Held {
    Own(Grant),
    Shared(Box<SharedGrant>),
}

/// What a 429 says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limited {
    /// Whose limit it is; `None` if it is no limit of the API's, but a ban of the address.
    pub scope: Option<Scope>,
    /// How long to wait.
    pub retry_after: Duration,
    /// The bucket's figures.
    pub told: Option<Told>,
}

impl Permit {
    pub(super) fn new(limits: Limits, account: Arc<Account>, wish: Wish, grant: Held) -> Self {
        Self { limits, account, wish, grant: Some(grant), sent: None }
    }

    /// The request's route.
    #[must_use]
    pub fn route(&self) -> &'static Route {
        self.wish.route.route()
    }

    /// The request goes out now: from here on Discord may count it.
    pub fn sending(&mut self) {
        self.sent = Some(self.limits.inner.clock.now());
        if let Some(Held::Shared(grant)) = &mut self.grant {
            grant.sending();
        }
        self.limits.inner.metrics.in_flight.inc();
    }

    /// An answer came that is no 429: `told` and `bucket` from its headers.
    pub fn answered(mut self, status: u16, told: Option<Told>, bucket: Option<&str>) {
        let now = self.limits.inner.clock.now();
        self.measure(now);
        if let Some(told) = told {
            self.limits.inner.metrics.filled(self.wish.route, told.used(), told.limit);
        }
        match status {
            401 | 403 => self.limits.inner.count_invalid(),
            200..=299 if !self.route().exempt => self.account.authorised(),
            _ => {}
        }
        // Only an answer of Discord's own API shows by its silence that there is no bucket: what stands before it says
        // nothing of buckets either.
        let silent = told.is_none() && !(200..300).contains(&status);
        match self.grant.take() {
            Some(Held::Own(grant)) if silent => self.account.change(|state| state.lost(&grant, now)),
            Some(Held::Shared(grant)) if silent => drop(grant.end(End::Lost)),
            Some(Held::Own(grant)) => {
                self.account.change(|state| state.answered(&grant, &self.wish, told, bucket, now));
            }
            Some(Held::Shared(grant)) => {
                let (route, kin) = (self.route(), grant.key().kin);
                let news = bucket.filter(|name| self.account.is_news(name, kin));
                let name = news.map(|name| (name.to_owned(), self.wish.route.0, !route.by_age));
                drop(grant.end(End::Answered { told, cautious: route.unknown, name }));
            }
            None => {}
        }
    }

    /// A 429 came. Waits, for a moment at most, until all replicas know: what is sent next mustn't overtake that.
    pub async fn limited(mut self, limited: &Limited) {
        if let Some(told) = self.tell(limited) {
            let _ = timeout(KNOWN_WITHIN, told).await;
        }
    }

    fn tell(&mut self, limited: &Limited) -> Option<JoinHandle<()>> {
        let now = self.limits.inner.clock.now();
        self.measure(now);
        let inner = &self.limits.inner;
        inner.metrics.limited(limited.scope);
        if limited.scope != Some(Scope::Shared) {
            inner.count_invalid();
        }
        if limited.scope == Some(Scope::Global) && !self.route().exempt {
            self.account.global_was_too_high(now);
        }
        let until = now + limited.retry_after;
        if limited.scope.is_none() {
            lock(&inner.guard).banned(until);
        }
        let grant = match self.grant.take()? {
            Held::Own(grant) => grant,
            Held::Shared(grant) => {
                let wait = limited.retry_after;
                return Some(grant.end(match limited.scope {
                    None => End::Lost,
                    Some(Scope::Global) if !self.route().exempt => End::Global(wait),
                    _ => End::Limited { wait, told: limited.told },
                }));
            }
        };
        match limited.scope {
            None => self.account.change(|state| state.lost(&grant, now)),
            Some(Scope::Global) if !self.route().exempt => {
                self.account.change(|state| state.limited_globally(&grant, until, now));
            }
            scope => {
                let shared = scope == Some(Scope::Shared);
                self.account.change(|state| state.limited(&grant, limited.told, until, shared, now));
            }
        }
        None
    }

    /// Discord's answer to this request shows that it doesn't know the token.
    pub(crate) fn token_refused(&self) {
        let inner = &self.limits.inner;
        self.account.unauthorised(inner.clock.now() + inner.settings.token_refused_for);
    }

    /// Discord's answer to this request shows that it doesn't know the webhook.
    pub(crate) fn webhook_gone(&self) {
        self.limits.inner.note_gone(self.wish.major);
    }

    fn measure(&mut self, now: Duration) {
        if let Some(sent) = self.sent.take() {
            self.limits.inner.metrics.in_flight.dec();
            self.limits.inner.metrics.answered(self.wish.route, now - sent);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        if self.sent.is_some() {
            self.limits.inner.metrics.in_flight.dec();
        }
        // A shared one gives itself back.
        let Held::Own(grant) = grant else { return };
        let now = self.limits.inner.clock.now();
        if self.sent.is_some() {
            self.account.change(|state| state.lost(&grant, now));
        } else {
            self.account.change(|state| state.unused(&grant, now));
        }
    }
}
