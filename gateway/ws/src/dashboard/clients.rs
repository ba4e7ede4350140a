// SPDX-License-Identifier: AGPL-3.0-only
//! Clients with their lag. In: sessions of the shards that run here. Out: one line a client, who is furthest behind
//! first; a client of several shards is one. What a client merged at another replica has here is a line of its own.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use serde::Serialize;

use crate::shard::Hub;

/// Lines that are shown: more than anybody reads.
const LINES: usize = 50;

/// All clients of this process.
#[derive(Serialize)]
pub(super) struct Clients {
    /// How many there are, those waited for among them.
    count: usize,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    /// From its connection's query.
    name: Option<String>,
    /// The lowest of the shards that it reads, and how many these are.
    shard: u32,
    shards: usize,
    /// It is there; else it is waited for.
    connected: bool,
    /// Events in the log that it hasn't been given.
    behind: u64,
}

/// Looks at all of them.
pub(super) fn clients(hubs: &[Arc<Hub>]) -> Clients {
    // By session, which doesn't go out.
    let mut sessions: HashMap<String, Line> = HashMap::new();
    for hub in hubs {
        let core = hub.core();
        for (id, session) in core.sessions.all() {
            let whole = session.spread.as_ref().map_or(id, |spread| &spread.session_id);
            let line = sessions.entry(whole.clone()).or_insert_with(|| Line {
                name: session.name.clone(),
                shard: hub.shard,
                shards: 0,
                connected: false,
                behind: 0,
            });
            line.shards += 1;
            line.connected |= session.is_attached();
            line.behind += core.log.last().saturating_sub(session.written);
        }
    }
    let count = sessions.len();
    let mut lines: Vec<Line> = sessions.into_values().collect();
    lines.sort_by(|a, b| {
        let order = |line: &Line| (Reverse(line.behind), line.shard);
        order(a).cmp(&order(b)).then_with(|| a.name.cmp(&b.name))
    });
    lines.truncate(LINES);
    Clients { count, lines }
}
