// SPDX-License-Identifier: AGPL-3.0-only
//! The scenarios, one per module: each starts its stacks, measures, and shows its results.
//! In: the setup and the scenario's own flags. Out: a table, and a JSON file.

pub(crate) mod amqp;
pub(crate) mod api;
pub(crate) mod burst;
pub(crate) mod fanout;
pub(crate) mod idle;
pub(crate) mod interactions;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod ready;
pub(crate) mod replicas;
pub(crate) mod start;
mod steady;

/// Bytes in a MiB, and in a KiB.
const MIB: f64 = (1u64 << 20) as f64;
const KIB: f64 = 1024.0;
