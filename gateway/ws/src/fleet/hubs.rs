// SPDX-License-Identifier: AGPL-3.0-only
//! The shards that run here, by number. Fronts, pages and metrics find them here, whoever starts and stops them.
//!
//! While the bot is resharded, those of the next count are gathered beside the current ones, and nobody sees them. Then
//! [`Hubs::switch`] makes them the current ones, and those of the former count are retired: their logs have ended, and
//! are kept for clients that haven't read them to the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use holdfast_cluster::{Owner, Replica, ShardId};
use tokio::sync::watch;

use crate::shard::Hub;

/// See the module's documentation.
pub(crate) struct Hubs {
    held: RwLock<Held>,
    /// Shards were switched to, and not all that are here have begun to serve.
    opening: watch::Sender<bool>,
}

struct Held {
    current: Fleet,
    next: Option<Fleet>,
    retired: Option<Arc<Fleet>>,
    /// Which replicas have shards of the former count, as far as others do.
    keepers: BTreeMap<ShardId, Owner>,
    /// Those that live, as last heard.
    replicas: Vec<Replica>,
}

/// Shards of one count that run here.
#[derive(Clone)]
pub(crate) struct Fleet {
    /// Number of all shards of the bot.
    pub(crate) total: u32,
    /// Those that are here.
    pub(crate) hubs: BTreeMap<u32, Arc<Hub>>,
}

impl Fleet {
    fn new(total: u32) -> Self {
        Self { total, hubs: BTreeMap::new() }
    }
}

impl Hubs {
    /// Of a bot with `total` shards; none runs here yet.
    pub(crate) fn new(total: u32) -> Arc<Self> {
        let held = Held {
            current: Fleet::new(total),
            next: None,
            retired: None,
            keepers: BTreeMap::new(),
            replicas: Vec::new(),
        };
        Arc::new(Self { held: RwLock::new(held), opening: watch::Sender::new(false) })
    }

    /// Number of all shards of the bot, wherever they run.
    pub(crate) fn total(&self) -> u32 {
        self.held().current.total
    }

    /// The shard, if it runs here.
    pub(crate) fn get(&self, shard: u32) -> Option<Arc<Hub>> {
        self.held().current.hubs.get(&shard).cloned()
    }

    /// All that run here, by number.
    pub(crate) fn all(&self) -> Vec<Arc<Hub>> {
        self.held().current.hubs.values().cloned().collect()
    }

    /// Those of the former count that ran here, for a while after the bot was resharded.
    pub(crate) fn retired(&self) -> Option<Arc<Fleet>> {
        self.held().retired.clone()
    }

    /// The shard, if it is of the former count and was here.
    pub(crate) fn former(&self, id: ShardId) -> Option<Arc<Hub>> {
        let held = self.held();
        held.retired.as_ref().filter(|retired| retired.total == id.total)?.hubs.get(&id.shard).cloned()
    }

    /// Which replica has a shard of the former count, if another does.
    pub(crate) fn keeper(&self, id: ShardId) -> Option<Owner> {
        self.held().keepers.get(&id).cloned()
    }

    /// Shards of the former count were cut at these replicas.
    pub(crate) fn are_kept(&self, keepers: impl Iterator<Item = (ShardId, Owner)>) {
        self.change().keepers.extend(keepers);
    }

    /// These replicas live: what others had of the former count is gone.
    pub(crate) fn live(&self, replicas: &[Replica]) {
        let lives = |owner: &Owner| replicas.iter().any(|replica| replica.id == owner.replica);
        if self.held().keepers.values().any(|owner| !lives(owner)) {
            self.change().keepers.retain(|_, owner| lives(owner));
        }
        if self.held().replicas != replicas {
            self.change().replicas = replicas.to_vec();
        }
    }

    /// The replicas that live, as last heard; none without a store.
    pub(crate) fn replicas(&self) -> Vec<Replica> {
        self.held().replicas.clone()
    }

    /// The replica that had a shard of the former count doesn't have it any more.
    pub(crate) fn forget_keeper(&self, id: ShardId) {
        self.change().keepers.remove(&id);
    }

    /// Shards of another count begin to gather. Some may be here already.
    pub(crate) fn expect(&self, total: u32) {
        let mut held = self.change();
        if held.current.total != total && held.next.as_ref().is_none_or(|next| next.total != total) {
            held.next = Some(Fleet::new(total));
        }
    }

    /// Shards of another count gather no more.
    pub(crate) fn expect_none(&self) {
        self.change().next = None;
    }

    /// The shards of the next count are the bot's from now on. They serve after [`Hubs::opened`].
    pub(crate) fn switch(&self) {
        let mut held = self.change();
        if let Some(next) = held.next.take() {
            held.retired = Some(Arc::new(std::mem::replace(&mut held.current, next)));
            held.keepers.clear();
            self.opening.send_replace(true);
        }
    }

    /// All shards that are here serve.
    pub(crate) fn opened(&self) {
        self.opening.send_if_modified(|opening| std::mem::replace(opening, false));
    }

    /// Waits until they do: at once, unless the bot is being resharded.
    async fn are_open(&self) {
        // The sender is ours: it doesn't go before we do.
        let _ = self.opening.subscribe().wait_for(|opening| !opening).await;
    }

    /// Number of all shards of the bot, when those that are here serve.
    pub(crate) async fn open_total(&self) -> u32 {
        loop {
            self.are_open().await;
            let total = self.total();
            if !*self.opening.borrow() {
                return total;
            }
        }
    }

    /// Nobody comes any more for what the retired shards of a count have.
    pub(crate) fn forget_retired(&self, total: u32) {
        let mut held = self.change();
        if held.retired.take_if(|retired| retired.total == total).is_some() {
            held.keepers.clear();
        }
    }

    /// Whether there are shards of a count, or are to be.
    pub(crate) fn uses(&self, total: u32) -> bool {
        let held = self.held();
        held.current.total == total || held.next.as_ref().is_some_and(|next| next.total == total)
    }

    /// The shard runs here from now on. One of the former count does until it is cut: its owner has died meanwhile.
    pub(crate) fn insert(&self, hub: Arc<Hub>) {
        let mut held = self.change();
        if let Some(fleet) = held.of(hub.total) {
            fleet.hubs.insert(hub.shard, hub);
        } else if let Some(retired) = held.retired.as_mut().filter(|retired| retired.total == hub.total) {
            Arc::make_mut(retired).hubs.insert(hub.shard, hub);
        }
    }

    /// The shard doesn't run here any more. One that is retired stays.
    pub(crate) fn remove(&self, hub: &Hub) {
        let mut held = self.change();
        if let Some(fleet) = held.of(hub.total) {
            fleet.hubs.remove(&hub.shard);
        }
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn of(&mut self, total: u32) -> Option<&mut Fleet> {
        if self.current.total == total {
            return Some(&mut self.current);
        }
        self.next.as_mut().filter(|next| next.total == total)
    }
}
