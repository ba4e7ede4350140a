// SPDX-License-Identifier: AGPL-3.0-only
//! Prints every message that the bot sees. Replace `handle` by what your bot does.

use anyhow::Result;
use holdfast_rust_worker::BoxError;
use holdfast_rust_worker::consumer::{Received, consume};
use holdfast_rust_worker::inbox::Inbox;
use serde_json::Value;

/// Comes back only when an event could not be handled. Let whatever runs this start it again: the event comes again.
pub(crate) async fn run(url: &str, queue: &str) -> Result<()> {
    Err(consume(url, queue, &mut Inbox::default(), handle).await.into())
}

async fn handle(received: &Received) -> Result<(), BoxError> {
    match received {
        // Whoever keeps state of the shard's guilds reads it anew here.
        Received::Gap(gap) => {
            println!("shard {}: events may be missing between {} and {}", gap.shard, gap.from, gap.to);
        }
        Received::Event(event) => {
            // The same JSON that Discord's gateway sends as `d`.
            let data: Value = serde_json::from_slice(&event.data)?;
            let author = data["author"]["username"].as_str().unwrap_or_default();
            let content = data["content"].as_str().unwrap_or_default();
            println!("shard {}  guild {}  {author}: {content:.80}", event.shard, event.guild_id);
        }
    }
    Ok(())
}
