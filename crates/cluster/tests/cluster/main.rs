// SPDX-License-Identifier: AGPL-3.0-only
//! What replicas share, over the machine's Redis and over one process's memory, and over servers of its own where the
//! store has to fail. In: replicas that race, connections that break, servers that forget.

#![cfg(test)]
mod support;

mod agreement;
mod failover;
mod fleet;
mod leases;
mod outage;
mod permits;
mod records;
mod refusal;
mod reshard;
mod restart;
