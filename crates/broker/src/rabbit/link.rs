// SPDX-License-Identifier: AGPL-3.0-only
//! A connection that comes back: one task per link connects, declares what is remembered, lends the session out,
//! watches it, and begins anew when it has ended, without ever giving up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use holdfast_service::{Backoff, Tasks};
use lapin::Event;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::declare;
use super::refusal::words;
use super::session::{Connector, Failure, Session};
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::settings::BrokerSettings;
use crate::state::{Board, Role, State};
use crate::topology::Topology;

/// The library tells most ends of a connection, but not all (a close without an error). So it is looked at, too.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Lends out the session of one connection. Clones share it.
#[derive(Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    role: Role,
    session: watch::Sender<Option<Arc<Session>>>,
    blocked: watch::Sender<bool>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    topology: Arc<Mutex<Topology>>,
    shutdown: CancellationToken,
}

/// What the task needs besides.
struct Keeper {
    shared: Arc<Shared>,
    connector: Connector,
    backoff: Backoff,
    first: Option<tokio::sync::oneshot::Sender<Option<Refusal>>>,
}

/// What all links of a broker share.
pub(super) struct Common {
    pub(super) board: Arc<Board>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) topology: Arc<Mutex<Topology>>,
    pub(super) tasks: Tasks,
}

impl Link {
    /// Begins to connect. The receiver gets the outcome of the first attempt: a refusal, or none.
    pub(super) fn start(
        settings: &BrokerSettings,
        role: Role,
        common: &Common,
    ) -> Result<(Self, tokio::sync::oneshot::Receiver<Option<Refusal>>), Refusal> {
        let connector = Connector::new(settings, role)?;
        let shared = Arc::new(Shared {
            role,
            session: watch::Sender::new(None),
            blocked: watch::Sender::new(false),
            board: Arc::clone(&common.board),
            metrics: Arc::clone(&common.metrics),
            topology: Arc::clone(&common.topology),
            shutdown: common.tasks.token().clone(),
        });
        let (first, outcome) = tokio::sync::oneshot::channel();
        let backoff = Backoff::new(settings.reconnect_min, settings.reconnect_max);
        let keeper = Keeper { shared: Arc::clone(&shared), connector, backoff, first: Some(first) };
        common.tasks.spawn("broker connection", keeper.run());
        Ok((Self { shared }, outcome))
    }

    /// The session, as soon as there is one; `None` when the process ends.
    pub(super) async fn session(&self) -> Option<Arc<Session>> {
        let mut session = self.shared.session.subscribe();
        tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => None,
            found = session.wait_for(Option::is_some) => found.ok()?.clone(),
        }
    }

    /// Waits until the broker takes messages on this connection.
    pub(super) async fn unblocked(&self) {
        let mut blocked = self.shared.blocked.subscribe();
        // The sender lives as long as this link.
        let _ = blocked.wait_for(|blocked| !blocked).await;
    }

    pub(super) fn is_blocked(&self) -> bool {
        *self.shared.blocked.borrow()
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.shared.shutdown
    }

    /// What is remembered of a queue.
    pub(super) fn remembered(&self, queue: &str) -> Topology {
        self.shared.topology.lock().unwrap_or_else(PoisonError::into_inner).of_queue(queue)
    }
}

impl Keeper {
    async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        loop {
            let attempt = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                attempt = self.attempt() => attempt,
            };
            let failure = match attempt {
                Ok(session) => {
                    self.backoff.succeeded();
                    self.tell_first(None);
                    match self.hold(Arc::new(session)).await {
                        Some(reason) => Failure::Failed(reason),
                        None => return,
                    }
                }
                Err(failure) => failure,
            };
            self.failed(failure);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.backoff.failed()) => {}
            }
        }
    }

    /// Connects, and declares what is remembered before anybody uses the connection.
    async fn attempt(&self) -> Result<Session, Failure> {
        let session = self.connector.connect().await?;
        let known = self.shared.topology.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Exclusive queues belong to the connection that consumes from them.
        let mine = if self.shared.role == Role::Consume { known } else { known.shared() };
        if let Err(failure) = declare::all(&session, &mine).await {
            session.close().await;
            return Err(failure);
        }
        Ok(session)
    }

    fn failed(&mut self, failure: Failure) {
        let state = match failure {
            Failure::Refused(refusal) => {
                self.tell_first(Some(refusal.clone()));
                State::Refused(refusal)
            }
            Failure::Failed(reason) => {
                self.tell_first(None);
                State::Connecting { reason }
            }
        };
        self.shared.board.set(self.shared.role, state);
    }

    fn tell_first(&mut self, refusal: Option<Refusal>) {
        if let Some(first) = self.first.take() {
            // Nobody may be waiting any more.
            let _ = first.send(refusal);
        }
    }

    /// Lends the session out until it ends; gives the reason, or `None` when the process ends.
    async fn hold(&self, session: Arc<Session>) -> Option<String> {
        let shared = &self.shared;
        shared.board.set(shared.role, State::Connected);
        shared.session.send_replace(Some(Arc::clone(&session)));
        let reason = tokio::select! {
            biased;
            () = shared.shutdown.cancelled() => None,
            reason = self.watch(&session) => Some(reason),
        };
        shared.session.send_replace(None);
        shared.blocked.send_replace(false);
        match &reason {
            None => session.close().await,
            Some(_) => {
                session.cut();
                session.lost.cancel();
                shared.metrics.connections_lost.inc();
            }
        }
        reason
    }

    async fn watch(&self, session: &Session) -> String {
        let mut events = Box::pin(session.connection.events_listener());
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut reason = "the broker closed the connection".to_owned();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    // Errors of single channels come here as well; their owners see them, too.
                    Some(Event::Error(error)) => reason = words(&error),
                    Some(Event::ConnectionBlocked(words)) => self.blocked(Some(words)),
                    Some(Event::ConnectionUnblocked) => self.blocked(None),
                    Some(_) => {}
                    None => return reason,
                },
                _ = look.tick() => {}
            }
            if !session.connection.status().connected() {
                return reason;
            }
        }
    }

    fn blocked(&self, reason: Option<String>) {
        self.shared.blocked.send_replace(reason.is_some());
        let state = reason.map_or(State::Connected, |reason| State::Blocked { reason });
        self.shared.board.set(self.shared.role, state);
    }
}
