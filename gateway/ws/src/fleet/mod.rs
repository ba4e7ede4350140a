// SPDX-License-Identifier: AGPL-3.0-only
//! Which shards run in this process: a fixed range, or those that this replica has leases on.
//!
//! In: settings; with a store, what other replicas do. Out: shards that are started and stopped, [`Hubs`] that
//! everybody finds them in.

mod alone;
mod count;
mod handover;
mod hubs;
mod join;
mod metrics;
mod records;
mod replica;
mod reshard;
mod starter;
mod takeover;
mod tenure;

pub(crate) use alone::Alone;
pub(crate) use count::choose;
pub(crate) use hubs::Hubs;
pub(crate) use join::join;
pub(crate) use metrics::Metrics;
pub(crate) use records::{Pending, Records};
pub(crate) use replica::{Member, Replica};
pub(crate) use reshard::Desk;
pub(crate) use starter::{Running, Starter};
pub(crate) use tenure::Tenure;
