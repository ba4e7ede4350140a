// SPDX-License-Identifier: AGPL-3.0-only
//! twilight-gateway, as its users get it, before the simulated Discord and before Holdfast: what it gets
//! there it gets here. It is compiled for one compression; the features `zstd` and `zlib` say for which.
#![cfg(test)]

mod bot;
mod commands;
mod connecting;
mod flow;
mod ledger;
mod refusals;
mod restarts;
mod stage;
