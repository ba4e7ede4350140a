// SPDX-License-Identifier: AGPL-3.0-only
//! What outlives a process and what replicas share: leases of shards, session records, clients' records, guild
//! checkpoints, permits to identify. In: heartbeats, wishes for shards, values to save. Out: who lives, who owns what,
//! the same values after whatever happened in between. [`Cluster`] is a replica's handle on what is shared, in Redis
//! or Valkey or in this process; [`Store`] is the directory of one process, and owns the thread that writes to it.

mod cluster;
mod directory;
mod file;
mod guilds;
mod id;
mod lease;
mod memory;
mod ownership;
mod permits;
mod placement;
mod record;
mod replica;
mod reshard;
mod settings;
mod shard;
mod store;
mod unavailable;
mod valkey;
mod write_behind;

pub use cluster::Cluster;
pub use directory::{OpenError, SetAside};
pub use guilds::{Checkpoint, Guilds};
pub use id::{NotAnId, ReplicaId, StreamId};
pub use lease::{Acquired, Fenced, Lease, Owner, Renewed, WriteError};
pub use memory::Memory;
pub use permits::{Exhausted, Permits, PermitsState};
pub use placement::place;
pub use record::{ClientRecord, CursorRecord, Progress, SessionRecord, SpreadRecord};
pub use replica::{Change, FleetConflict, HeartbeatError, Identity, Replica, Standing};
pub use reshard::{Reshard, ReshardBegun, ReshardPhase, Seen};
pub use settings::{Settings, Times};
pub use shard::{NotAShard, ShardId};
pub use store::{Saved, ShardStore, Store};
pub use unavailable::{StoreState, Unavailable};
pub use valkey::{CaFileError, RestBucket, RestEnd, RestNoted, RestStore, RestTaken, RestTicket, RestWish};
pub use write_behind::WriteFailed;
