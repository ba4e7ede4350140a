// SPDX-License-Identifier: AGPL-3.0-only
//! Replies to one command. In: what is to be said. Out: numbered messages to whoever asked, in order. What is said
//! waits here when the broker takes nothing, up to a bound.

use holdfast_broker::Request;
use holdfast_contract::{
    SCHEMA,
    v1::{CommandReply, command_reply::Reply},
};
use tokio::sync::mpsc;
use tracing::debug;

use super::metrics::Metrics;

/// Replies that wait to be sent: a chunk of members has some 400 KiB.
const WAITING: usize = 8;

/// Where replies are said.
#[derive(Debug)]
pub(super) struct Replies(mpsc::Sender<Reply>);

/// Where they go.
#[derive(Debug)]
pub(super) struct Outgoing(mpsc::Receiver<Reply>);

pub(super) fn replies() -> (Replies, Outgoing) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Replies(sender), Outgoing(receiver))
}

impl Replies {
    /// Says something; waits while too much is waiting.
    pub(super) async fn say(&self, reply: Reply) {
        // Whoever sends them listens until there are no more.
        let _ = self.0.send(reply).await;
    }
}

impl Outgoing {
    /// Sends everything that is said, until nobody says any more.
    pub(super) async fn deliver(mut self, request: &Request, shard: (u32, u32), metrics: &Metrics) {
        let mut number = 0;
        let mut gone = false;
        while let Some(reply) = self.0.recv().await {
            let reply = CommandReply {
                schema: SCHEMA,
                shard: shard.0,
                shard_count: shard.1,
                number,
                reply: Some(reply),
            };
            number += 1;
            // After one that is missing, the rest would have a hole before it.
            gone = gone || !is_delivered(request, &reply).await;
            if gone && request.wants_reply() {
                metrics.replies_undelivered.inc();
            }
        }
    }
}

/// Sent again when its connection broke, it keeps its number, so that a second copy is recognised.
async fn is_delivered(request: &Request, reply: &CommandReply) -> bool {
    let sent = request.answer(reply).await;
    if let Err(error) = &sent {
        debug!(%error, "a reply can't be delivered");
    }
    sent.is_ok()
}
