// SPDX-License-Identifier: AGPL-3.0-only
//! The guilds of one shard. In: the `d` of dispatches with their position in the log. Out: the `d` of GUILD_CREATE
//! as Discord would send it now, answers to member requests, checkpoints. Owned by the shard's task; snapshots
//! are cheap clones that readers turn into bytes in their own tasks. `README.md` lists the rules.

mod base;
mod block;
mod changes;
mod checkpoint;
mod compact;
mod guilds;
mod json;
mod merge;
mod options;
mod patch;
mod record;
mod reduce;
mod section;
mod snapshot;
mod view;

pub use checkpoint::RestoreError;
pub use compact::{Compacted, Compaction};
pub use guilds::{Applied, Guilds, Memory};
pub use options::Options;
pub use snapshot::{Found, GuildSnapshot, Members, ReadError, Snapshot};
pub use view::View;
