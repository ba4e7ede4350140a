// SPDX-License-Identifier: AGPL-3.0-only
//! Pages about the shards of this process: `/shards`, `/shard-count` and `/guilds/{id}`. In: the shards. Out: text that
//! is made when somebody asks.

use std::sync::Arc;

use holdfast_service::{Page, Pages};

use crate::{fleet::Hubs, guilds};

/// Adds them.
pub(crate) fn add(pages: &Pages, hubs: &Arc<Hubs>) {
    let all = Arc::clone(hubs);
    pages.add("/shards", move || {
        let shards: Vec<_> = all.all().iter().map(|hub| hub.status()).collect();
        match serde_json::to_string(&shards) {
            Ok(json) => Page::json(json),
            Err(error) => Page::status(500, error.to_string()),
        }
    });
    guilds::page(pages, hubs);
    let counted = Arc::clone(hubs);
    pages.add("/shard-count", move || Page::text(counted.total().to_string()));
}
