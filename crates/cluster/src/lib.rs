// SPDX-License-Identifier: AGPL-3.0-only
//! What outlives a process and what replicas share: session records, clients' records, guild checkpoints, permits
//! to identify. In: values to save, loads at start-up. Out: the same values, after whatever happened in between.
//! Kept in memory or in files of one directory, which one process owns at a time. The [`Store`] owns the thread
//! that writes; its last handle waits for it.

mod file;
mod permits;
mod record;
mod store;
mod stream;
mod write_behind;

pub use permits::{Exhausted, Permits, PermitsState};
pub use record::{ClientRecord, SessionRecord};
pub use store::{OpenError, Saved, SetAside, ShardStore, Store};
pub use stream::{NotAStream, StreamId};
pub use write_behind::WriteFailed;
