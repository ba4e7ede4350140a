// SPDX-License-Identifier: AGPL-3.0-only
//! What replicas share, in Redis or Valkey. In: what [`Cluster`](crate::Cluster) is asked. Out: scripts that do each
//! step whole, on one slot of keys. The only user of a Redis client.

mod address;
mod dial;
mod keys;
mod leases;
mod link;
mod permits;
mod records;
mod replicas;
mod reply;
mod reshard;
mod rest;
mod script;

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_service::Tasks;
use redis::{PushInfo, PushKind};
use tokio::sync::{Semaphore, broadcast, watch};

pub(crate) use self::address::Address;
pub use self::dial::CaFileError;
use self::dial::Dialler;
use self::keys::Keys;
use self::link::{Link, Live};
pub(crate) use self::permits::Shared as SharedPermits;
pub use self::rest::{RestBucket, RestEnd, RestNoted, RestStore, RestTaken, RestTicket, RestWish};
use crate::memory::CHANGES;
use crate::{Change, Identity, Settings, StoreState, Unavailable};

/// Calls with large bodies that are under way at once: each bounded by [`records::BATCH`], so that none waits for
/// more than a few MiB before its own bytes.
const LARGE_CALLS: usize = 4;

/// A replica's connections to the store.
///
/// The client library is `redis`, without its optional parts. It has a connection that many callers share (each call
/// is a message to the task that owns the socket, replies come back in order), pipelines, pushed messages over RESP3,
/// and takes any stream for a socket, so that TLS is ours; Redis's own people keep it up. `fred` does more by itself
/// (it reconnects, follows Sentinels), is released rarely, and brings half as many crates again. What is left to do is
/// little, and better known than trusted: to find the server, to reconnect for ever, to load scripts before the first
/// call, to give up in time.
#[derive(Clone, Debug)]
pub(crate) struct Valkey {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    identity: Identity,
    settings: Settings,
    keys: Keys,
    tasks: Tasks,
    /// Leases, registrations, permits: small calls that must not wait behind large ones.
    control: Link,
    /// Records and checkpoints.
    bulk: Link,
    large: Semaphore,
    state: watch::Receiver<StoreState>,
    changes: broadcast::Sender<Change>,
    /// The count of shards with which the store has had this replica on its list: then it must be there still, or the
    /// store has lost something.
    registered: Mutex<Option<u32>>,
}

impl Valkey {
    pub(crate) fn start(
        settings: &Settings,
        identity: Identity,
        tasks: &Tasks,
    ) -> Result<Valkey, CaFileError> {
        let keys = Keys::new(&settings.prefix, identity.application);
        let changes = broadcast::Sender::new(CHANGES);
        let bulk = Dialler::new(settings)?;
        let told = changes.clone();
        let listener = Arc::new(move |push: PushInfo| {
            if let Some(change) = change(&push) {
                // Nobody listens: nobody needs to know.
                let _ = told.send(change);
            }
            Ok::<(), std::convert::Infallible>(())
        });
        let control = bulk.listening(keys.changes(), listener);
        let (control, state) = Link::keep(control, tasks, Some(changes.clone()));
        let (bulk, _) = Link::keep(bulk, tasks, None);
        Ok(Valkey {
            inner: Arc::new(Inner {
                identity,
                settings: settings.clone(),
                keys,
                tasks: tasks.clone(),
                control,
                bulk,
                large: Semaphore::new(LARGE_CALLS),
                state,
                changes,
                registered: Mutex::default(),
            }),
        })
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    pub(crate) fn state(&self) -> watch::Receiver<StoreState> {
        self.inner.state.clone()
    }

    pub(crate) fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }

    /// Runs small calls within the bound on time.
    async fn control<T, F>(&self, calls: impl FnOnce(Live) -> F) -> Result<T, Unavailable>
    where
        F: Future<Output = Result<T, Unavailable>>,
    {
        let live = self.inner.control.live()?;
        live.bounded(calls(live.clone())).await
    }

    /// Runs a large call within the bound on time, which begins when it is its turn.
    async fn bulk<T, F>(&self, calls: impl FnOnce(Live) -> F) -> Result<T, Unavailable>
    where
        F: Future<Output = Result<T, Unavailable>>,
    {
        let within = self.inner.settings.times.timeout;
        // Both connections go and come back together, but not at the same moment.
        let _ = self.inner.control.live()?;
        let _ = self.inner.bulk.up(within).await?;
        // Never closed; whoever waits here fails as fast as those before it, once the connection is known to be lost.
        let _turn = self.inner.large.acquire().await;
        let live = self.inner.bulk.live()?;
        live.bounded(calls(live.clone())).await
    }

    fn registered(&self) -> Option<u32> {
        *self.inner.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_registered(&self, total: Option<u32>) {
        *self.inner.registered.lock().unwrap_or_else(PoisonError::into_inner) = total;
    }
}

/// What a pushed message says: `replicas`, `reshard`, or `released 3/16`.
fn change(push: &PushInfo) -> Option<Change> {
    if push.kind != PushKind::Message {
        return None;
    }
    let [_, redis::Value::BulkString(message)] = push.data.as_slice() else { return None };
    match std::str::from_utf8(message).ok()? {
        "replicas" => Some(Change::Replicas),
        "reshard" => Some(Change::Reshard),
        message => message.strip_prefix("released ")?.parse().ok().map(Change::Released),
    }
}
