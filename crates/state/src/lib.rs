// SPDX-License-Identifier: AGPL-3.0-only
//! The guilds of one shard. In: the `d` of dispatches with their position in the log. Out: the `d` of GUILD_CREATE
//! as Discord would send it now, answers to member requests, checkpoints. Owned by the shard's task; snapshots
//! are cheap clones that readers turn into bytes in their own tasks. `README.md` lists the rules.

mod skeleton;
pub use skeleton::*;
