// SPDX-License-Identifier: AGPL-3.0-only
//! One token's account where replicas share it: the store says who may go, here is who waits. In: wishes. Out: grants,
//! by the store's word. A bucket's queue has a task as long as anybody is in it. While the store is away, whoever waits
//! is sent on to the account of this process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_cluster::{RestBucket, RestEnd, RestStore, RestTaken, RestTicket, RestWish, Unavailable};
use holdfast_service::Tasks;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::account::Account;
use super::fair::{Fair, Priority};
use super::metrics::Cause;
use super::settings::LimitSettings;
use super::slot::{Key, NAME_TOPIC, Wish};
use super::to_the_end::ToTheEnd;

/// Answers at other replicas aren't heard of: who waits for one asks again after this.
const AGAIN: Duration = Duration::from_millis(20);

/// Places of those who have stopped waiting, besides as many as wait; about 100 bytes each.
const ABANDONED: usize = 256;

/// Whoever sent a request that isn't answered after this is taken to have died with it. One that takes longer (a large
/// upload) is counted as before; only what other requests learn from theirs may be a little wrong.
const PATIENCE: Duration = Duration::from_secs(10);

const SECOND: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes {
    store: RestStore,
    /// A hash of the token.
    token: String,
    settings: LimitSettings,
    tasks: Tasks,
    lanes: Mutex<HashMap<Key, Lane>>,
    global: Line,
    /// The version of what was learnt that the account has.
    learnt: AtomicU64,
}

/// Whose turn it is to ask for a place of the global limit: one queue at a time, else all would ask whenever one place
/// is free again. The urgent don't stand in line; of bulk work one stands in it.
#[derive(Debug, Default)]
struct Line {
    usual: AsyncMutex<()>,
    bulk: AsyncMutex<()>,
}

/// A place at the head of the line.
type HeadOfLine<'l> = [Option<AsyncMutexGuard<'l, ()>>; 2];

impl Line {
    async fn turn(&self, priority: Priority) -> HeadOfLine<'_> {
        let bulk = if priority == Priority::Low { Some(self.bulk.lock().await) } else { None };
        let usual = if priority == Priority::High { None } else { Some(self.usual.lock().await) };
        [usual, bulk]
    }
}

#[derive(Debug, Default)]
struct Lane {
    queue: Fair<Waiter>,
    answered: Arc<Notify>,
    /// The bucket lets nobody go before.
    due: Option<Instant>,
    /// How many waited when those who had left were taken out last.
    swept: usize,
}

#[derive(Debug)]
struct Waiter {
    turn: oneshot::Sender<Turn>,
    wish: Wish,
}

/// What comes to somebody who waits.
#[derive(Debug)]
enum Turn {
    Granted(Box<SharedGrant>),
    StoreAway,
}

/// The right to send one request, by the store's word; given back when it is dropped before its end.
#[derive(Debug)]
pub(super) struct SharedGrant {
    lanes: Arc<Lanes>,
    key: Key,
    bucket: RestBucket,
    ticket: RestTicket,
    wish: RestWish,
    sent: bool,
    ended: bool,
}

/// What became of a request, kept until it is told.
#[derive(Clone, Debug)]
pub(super) enum End {
    Answered { told: Option<holdfast_discord::rest::Told>, cautious: bool, name: Option<(String, u16, bool)> },
    Limited { wait: Duration, told: Option<holdfast_discord::rest::Told> },
    Global(Duration),
    Lost,
    Unused,
}

/// Why there is no grant.
#[derive(Debug)]
pub(super) enum NoGrant {
    /// The turn comes after the deadline, in about so long.
    Late(Duration),
    /// This process's own account has to do.
    StoreAway,
}

/// What the store says to a wish.
type Asked = Result<(RestTaken, Option<Box<SharedGrant>>), Unavailable>;

/// A grant, and what it has waited for.
pub(super) type Granted = (Box<SharedGrant>, Option<(Cause, Duration)>);

impl Lanes {
    pub(super) fn new(store: RestStore, token: String, settings: LimitSettings, tasks: Tasks) -> Arc<Self> {
        let (lanes, global, learnt) = (Mutex::default(), Line::default(), AtomicU64::new(0));
        Arc::new(Self { store, token, settings, tasks, lanes, global, learnt })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.store.is_connected()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }

    /// Waits for the turn.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        account: &Arc<Account>,
        wish: Wish,
        deadline: Instant,
    ) -> Result<Granted, NoGrant> {
        let key = account.key(&wish);
        let mut cause = Cause::Bucket;
        let ahead = self.lock().get(&key).map(|lane| lane.due);
        if let Some(due) = ahead {
            if let Some(due) = due.filter(|due| *due > deadline) {
                return Err(NoGrant::Late(due - Instant::now()));
            }
        } else {
            let asking = Arc::clone(self).ask_anew(Arc::clone(account), wish);
            match ToTheEnd::new(asking, &self.tasks).await {
                Ok((RestTaken::Granted(_), Some(grant))) => return Ok((grant, None)),
                Ok((RestTaken::Wait { time: Some(time), .. }, _)) if Instant::now() + time > deadline => {
                    return Err(NoGrant::Late(time));
                }
                Ok((RestTaken::Wait { global: true, .. }, _)) => cause = Cause::Global,
                Ok(_) => {}
                Err(_) => return Err(NoGrant::StoreAway),
            }
        }
        let begun = Instant::now();
        let turn = self.queue(account, wish);
        match tokio::time::timeout_at(deadline, turn).await {
            Ok(Ok(Turn::Granted(grant))) => Ok((grant, Some((cause, begun.elapsed())))),
            Ok(_) => Err(NoGrant::StoreAway),
            Err(_) => Err(NoGrant::Late(SECOND)),
        }
    }

    fn queue(self: &Arc<Self>, account: &Arc<Account>, wish: Wish) -> oneshot::Receiver<Turn> {
        let (turn, receiver) = oneshot::channel();
        let key = account.key(&wish);
        let mut lanes = self.lock();
        let fresh = !lanes.contains_key(&key);
        let lane = lanes.entry(key).or_default();
        lane.queue.push(wish.priority, wish.caller, Waiter { turn, wish });
        // Most who have left are passed over when it is their turn; behind a long wait they mustn't pile up.
        if lane.queue.len() > 2 * lane.swept + ABANDONED {
            lane.queue.retain(|waiter| !waiter.turn.is_closed());
            lane.swept = lane.queue.len();
        }
        if fresh {
            let drive = Arc::clone(self).drive(Arc::clone(account), key, Arc::clone(&lane.answered));
            self.tasks.spawn("limits", drive);
        }
        receiver
    }

    /// Asks for whoever is first in a bucket's queue, until nobody is.
    async fn drive(self: Arc<Self>, account: Arc<Account>, key: Key, answered: Arc<Notify>) {
        let mut turn = None;
        while let Some(wish) = self.first(key) {
            let taken = self.ask(&account, &wish).await;
            let global = matches!(taken, Ok((RestTaken::Wait { global: true, .. }, _)));
            match taken {
                Ok((RestTaken::Wait { time: Some(_), .. }, _)) if global && turn.is_none() => {
                    // Meanwhile much may have changed: it asks again at once.
                    turn = Some(self.global.turn(wish.priority).await);
                    continue;
                }
                Ok((_, Some(grant))) => self.serve(key, &wish, grant),
                Ok((RestTaken::Wait { time: Some(time), .. }, _)) => {
                    // The hidden limit of names holds no other requests of the bucket.
                    if !global && !wish.name_topic {
                        self.is_due(key, Instant::now() + time);
                    }
                    // Of what waits for the same moment the urgent asks first.
                    let behind = match wish.priority {
                        Priority::High => Duration::ZERO,
                        Priority::Normal => Duration::from_millis(4),
                        Priority::Low => Duration::from_millis(12),
                    };
                    if self.tasks.token().run_until_cancelled(sleep(time + behind)).await.is_none() {
                        return;
                    }
                }
                Ok(_) => {
                    let _ = timeout(AGAIN, answered.notified()).await;
                }
                Err(_) => return self.forsake(key),
            }
            if !global {
                turn = None;
            }
        }
    }

    /// The store is away: all who wait are sent on.
    fn forsake(&self, key: Key) {
        let mut lane = self.lock().remove(&key).unwrap_or_default();
        while let Some(waiter) = lane.queue.pop() {
            let _ = waiter.turn.send(Turn::StoreAway);
        }
    }

    /// The wish of whoever is first; those who have left are passed over. Without anybody the queue goes.
    fn first(&self, key: Key) -> Option<Wish> {
        let mut lanes = self.lock();
        let lane = lanes.get_mut(&key)?;
        loop {
            match lane.queue.front() {
                Some((_, _, waiter)) if waiter.turn.is_closed() => {
                    lane.queue.pop();
                }
                Some((_, _, waiter)) => return Some(waiter.wish),
                None => {
                    lanes.remove(&key);
                    return None;
                }
            }
        }
    }

    /// Gives a grant to the first; to nobody if the first wants something else by now.
    fn serve(&self, key: Key, wish: &Wish, grant: Box<SharedGrant>) {
        let mut lanes = self.lock();
        let Some(lane) = lanes.get_mut(&key) else { return };
        let same = lane.queue.front().is_some_and(|(_, _, waiter)| {
            waiter.wish.name_topic == wish.name_topic && waiter.wish.voice == wish.voice
        });
        let waiter = if same { lane.queue.pop() } else { None };
        drop(lanes);
        if let Some(waiter) = waiter {
            // It may have left in this moment: then the grant gives itself back.
            let _ = waiter.turn.send(Turn::Granted(grant));
        }
    }

    /// The bucket lets nobody go before.
    fn is_due(&self, key: Key, due: Instant) {
        if let Some(lane) = self.lock().get_mut(&key) {
            lane.due = Some(due);
        }
    }

    async fn ask_anew(self: Arc<Self>, account: Arc<Account>, wish: Wish) -> Asked {
        self.ask(&account, &wish).await
    }

    async fn ask(self: &Arc<Self>, account: &Account, wish: &Wish) -> Asked {
        let route = wish.route.route();
        let asked = RestWish {
            voice: wish.voice,
            alone: route.untold,
            patience: PATIENCE,
            margin: self.settings.global_margin,
            global: (!route.exempt).then_some((account.global_limit(), SECOND)),
            hidden: wish.name_topic.then_some(NAME_TOPIC),
        };
        let key = account.key(wish);
        let bucket = self.store.bucket(&self.token, key.kin, key.group, key.major);
        let (taken, version) = self.store.take(&bucket, &asked).await?;
        if version != self.learnt.load(Ordering::Relaxed) {
            let (kins, groups) = self.store.learnt(&bucket).await?;
            account.adopt(&kins, &groups);
            self.learnt.store(version, Ordering::Relaxed);
        }
        let RestTaken::Granted(ticket) = &taken else { return Ok((taken, None)) };
        let (lanes, ticket) = (Arc::clone(self), ticket.clone());
        let grant = SharedGrant { lanes, key, bucket, ticket, wish: asked, sent: false, ended: false };
        if account.key(wish) == key {
            return Ok((taken, Some(Box::new(grant))));
        }
        // It counts as something else than was thought; the grant gives itself back.
        Ok((RestTaken::Wait { time: Some(Duration::ZERO), global: false }, None))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedGrant {
    pub(super) fn key(&self) -> Key {
        self.key
    }

    pub(super) fn sending(&mut self) {
        self.sent = true;
    }

    /// Tells the store what became of the request, behind the caller's back.
    pub(super) fn end(mut self, end: End) -> JoinHandle<()> {
        self.tell(end)
    }

    fn tell(&mut self, end: End) -> JoinHandle<()> {
        self.ended = true;
        let (lanes, bucket, ticket) = (Arc::clone(&self.lanes), self.bucket.clone(), self.ticket.clone());
        let (wish, key) = (self.wish, self.key);
        self.lanes.tasks.spawn("limits", async move {
            // If it doesn't get there, it counts as one without an answer.
            let _ = lanes.store.end(&bucket, &ticket, &wish, &end.borrow(&wish)).await;
            if let Some(lane) = lanes.lock().get(&key) {
                lane.answered.notify_one();
            }
        })
    }
}

impl Drop for SharedGrant {
    fn drop(&mut self) {
        if !self.ended {
            drop(self.tell(if self.sent { End::Lost } else { End::Unused }));
        }
    }
}

impl End {
    fn borrow(&self, wish: &RestWish) -> RestEnd<'_> {
        match self {
            Self::Answered { told, cautious, name } => {
                let name = name.as_ref().map(|(name, route, joins)| (name.as_str(), *route, *joins));
                RestEnd::Answered { told: *told, cautious: *cautious, name }
            }
            // There was room: it is the limit that no header tells.
            Self::Limited { wait, told }
                if wish.hidden.is_some() && told.is_some_and(|told| told.remaining > 0) =>
            {
                RestEnd::Hidden(*wait)
            }
            Self::Limited { wait, told } => RestEnd::Limited { wait: *wait, told: *told },
            Self::Global(wait) => RestEnd::Global(*wait),
            Self::Lost => RestEnd::Lost,
            Self::Unused => RestEnd::Unused,
        }
    }
}
