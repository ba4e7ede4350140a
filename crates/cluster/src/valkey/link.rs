// SPDX-License-Identifier: AGPL-3.0-only
//! A connection that is always being had. In: what is needed to dial. Out: the connection of the moment, or at once
//! why there is none. One task owns the socket: it dials for ever, with jittered pauses, until the last handle on the
//! link is dropped; so leases can still be released while the process's other tasks end.

use std::time::Duration;

use holdfast_service::{Backoff, Tasks};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::select;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::dial::{Dialled, Dialler, Server};
use super::script;
use crate::unavailable::Cause;
use crate::{Change, StoreState, Unavailable};

/// Pauses between attempts: a store that is back is found within this and a connection's time, a fraction of the
/// expiry in which only the previous owners may come back.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A connection that lasted less was no success.
const LASTING: Duration = Duration::from_secs(5);
/// Connecting, TLS and a dozen round trips may take this many times what a call may.
const DIAL_TIMEOUTS: u32 = 3;

/// The connection of the moment.
#[derive(Clone, Debug)]
pub(super) struct Link {
    current: watch::Receiver<Current>,
}

#[derive(Clone, Debug)]
enum Current {
    Up(Live),
    Down(Unavailable),
}

/// A connection that was there a moment ago.
#[derive(Clone, Debug)]
pub(super) struct Live {
    connection: MultiplexedConnection,
    pub(super) server: Server,
    /// Told by a call that found it useless.
    broken: CancellationToken,
    timeout: Duration,
}

impl Link {
    /// Connects in the background. `changes`: told that some may have been missed, after each pause.
    pub(super) fn keep(
        dialler: Dialler,
        tasks: &Tasks,
        changes: Option<broadcast::Sender<Change>>,
    ) -> (Link, watch::Receiver<StoreState>) {
        let starting = Unavailable::from(Cause::Starting);
        let (current, receiver) = watch::channel(Current::Down(starting.clone()));
        let (state, states) = watch::channel(StoreState::Down { since: Instant::now(), why: starting });
        let keeper = Keeper { dialler, current, state, changes };
        tasks.spawn("store connection", keeper.run());
        (Link { current: receiver }, states)
    }

    pub(super) fn live(&self) -> Result<Live, Unavailable> {
        match &*self.current.borrow() {
            Current::Up(live) => Ok(live.clone()),
            Current::Down(why) => Err(why.clone()),
        }
    }

    /// The connection, waited for.
    pub(super) async fn up(&self, within: Duration) -> Result<Live, Unavailable> {
        let mut current = self.current.clone();
        let up = current.wait_for(|current| matches!(current, Current::Up(_)));
        // Whichever way the waiting ended, this says how things are.
        let _ = timeout(within, up).await.is_ok();
        self.live()
    }
}

struct Keeper {
    dialler: Dialler,
    current: watch::Sender<Current>,
    state: watch::Sender<StoreState>,
    changes: Option<broadcast::Sender<Change>>,
}

impl Keeper {
    async fn run(self) {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        loop {
            let dialled = select! { biased;
                () = self.current.closed() => return,
                dialled = self.dial() => dialled,
            };
            let why = match dialled {
                Ok(dialled) => {
                    let connected = Instant::now();
                    let Some(why) = self.serve(dialled).await else { return };
                    if connected.elapsed() >= LASTING {
                        backoff.succeeded();
                    }
                    why
                }
                Err(why) => why,
            };
            self.down(why);
            let pause = backoff.failed();
            select! { biased;
                () = self.current.closed() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn dial(&self) -> Result<Dialled, Unavailable> {
        let within = self.dialler.timeout * DIAL_TIMEOUTS;
        match timeout(within, self.dialler.dial()).await {
            Ok(dialled) => dialled,
            Err(_) => Err(Cause::Silent(within).into()),
        }
    }

    /// Lends the connection out until it ends; `None`: nobody wants it any more.
    async fn serve(&self, dialled: Dialled) -> Option<Unavailable> {
        let Dialled { connection, mut driver, server } = dialled;
        let broken = CancellationToken::new();
        let live = Live { connection, server, broken: broken.clone(), timeout: self.dialler.timeout };
        self.current.send_replace(Current::Up(live));
        if !self.state.send_replace(StoreState::Connected).is_connected() && self.changes.is_some() {
            tracing::info!("the shared store is connected");
        }
        if let Some(changes) = &self.changes {
            // Nobody listens: nobody needs to know.
            let _ = changes.send(Change::Missed);
        }
        select! { biased;
            () = self.current.closed() => None,
            () = broken.cancelled() => Some(Cause::Silent(self.dialler.timeout).into()),
            () = &mut driver => Some(Cause::Unreachable("it hung up".to_owned()).into()),
        }
    }

    fn down(&self, why: Unavailable) {
        self.current.send_replace(Current::Down(why.clone()));
        self.state.send_modify(|state| match state {
            StoreState::Down { why: before, .. } if *before == why => {}
            StoreState::Down { why: before, .. } => {
                tracing::debug!(%why, "the shared store is still away");
                *before = why;
            }
            StoreState::Connected => {
                if self.changes.is_some() {
                    tracing::warn!(%why, "the shared store is away: everybody goes on with what they have");
                }
                *state = StoreState::Down { since: Instant::now(), why };
            }
        });
    }
}

impl Live {
    /// Gives calls their time; a connection on which they don't end in it is given up.
    pub(super) async fn bounded<T>(
        &self,
        calls: impl Future<Output = Result<T, Unavailable>>,
    ) -> Result<T, Unavailable> {
        match timeout(self.timeout, calls).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.broken.cancel();
                Err(Cause::Silent(self.timeout).into())
            }
        }
    }

    /// Makes one call.
    pub(super) async fn call(&self, call: Cmd) -> Result<Value, Unavailable> {
        self.calls(vec![call]).await?.pop().ok_or_else(super::reply::strange)
    }

    /// Makes calls in one round trip; replies are in their order. All of them can be made twice.
    pub(super) async fn calls(&self, calls: Vec<Cmd>) -> Result<Vec<Value>, Unavailable> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        match self.send(&calls).await {
            // Somebody made the store forget its scripts.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let scripts: Vec<Cmd> = script::ALL.iter().map(|script| script.load()).collect();
                self.send(&scripts).await.map_err(|error| self.failed(&error))?;
                self.send(&calls).await.map_err(|error| self.failed(&error))
            }
            outcome => outcome.map_err(|error| self.failed(&error)),
        }
    }

    async fn send(&self, calls: &[Cmd]) -> Result<Vec<Value>, RedisError> {
        let mut pipeline = redis::Pipeline::with_capacity(calls.len());
        for call in calls {
            pipeline.add_command(call.clone());
        }
        let replies = self.connection.clone().send_packed_commands(&pipeline, 0, calls.len()).await?;
        replies.into_iter().map(Value::extract_error).collect()
    }

    fn failed(&self, error: &RedisError) -> Unavailable {
        use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly};
        // It lives, but isn't the server that we want any more: another dial may find that.
        let elsewhere = matches!(
            error.kind(),
            ErrorKind::Server(ReadOnly | BusyLoading | MasterDown | ClusterDown) | ErrorKind::Io
        );
        if elsewhere || error.is_unrecoverable_error() {
            self.broken.cancel();
        }
        judge(error)
    }
}

/// What an error of the library's means to us. A server may quote what it was sent, passwords too: only errors that
/// never do are quoted in turn.
pub(super) fn judge(error: &RedisError) -> Unavailable {
    const QUOTED: [&str; 8] =
        ["WRONGPASS", "NOPERM", "OOM", "READONLY", "MISCONF", "WRONGTYPE", "LOADING", "NOREPLICAS"];
    let text = match (error.kind(), error.code()) {
        (ErrorKind::Io, _) => return Cause::Unreachable(error.to_string()).into(),
        (ErrorKind::RESP3NotSupported, _) => {
            return Cause::Refused("it is older than Redis 6, the first that can push messages".into())
                .into();
        }
        (_, Some(code)) => match error.detail().filter(|_| QUOTED.contains(&code)) {
            Some(detail) => format!("{code} {detail}"),
            None => code.to_owned(),
        },
        (_, None) => error.category().to_owned(),
    };
    match error.code() {
        _ if error.kind() == ErrorKind::AuthenticationFailed => {}
        Some("WRONGPASS" | "NOAUTH" | "NOPERM") => {}
        _ => return Cause::Failed(text).into(),
    }
    Cause::Refused(format!("{text} (user and password stand in cluster.url)")).into()
}
