// SPDX-License-Identifier: AGPL-3.0-only
//! The shards that run here, by number. Fronts, pages and metrics find them here, whoever starts and stops them.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use crate::shard::Hub;

/// See the module's documentation.
pub(crate) struct Hubs {
    /// Number of all shards of the bot.
    total: u32,
    held: RwLock<BTreeMap<u32, Arc<Hub>>>,
}

impl Hubs {
    /// Of a bot with `total` shards; none runs here yet.
    pub(crate) fn new(total: u32) -> Arc<Self> {
        Arc::new(Self { total, held: RwLock::default() })
    }

    /// Number of all shards of the bot, wherever they run.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// The shard, if it runs here.
    pub(crate) fn get(&self, shard: u32) -> Option<Arc<Hub>> {
        self.held().get(&shard).cloned()
    }

    /// All that run here, by number.
    pub(crate) fn all(&self) -> Vec<Arc<Hub>> {
        self.held().values().cloned().collect()
    }

    /// The shard runs here from now on.
    pub(crate) fn insert(&self, hub: Arc<Hub>) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).insert(hub.shard, hub);
    }

    /// The shard doesn't run here any more.
    pub(crate) fn remove(&self, shard: u32) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).remove(&shard);
    }

    fn held(&self) -> RwLockReadGuard<'_, BTreeMap<u32, Arc<Hub>>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }
}
