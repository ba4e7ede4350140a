// SPDX-License-Identifier: AGPL-3.0-only
//! twilight-gateway, and twilight-http, as their users get them, before the simulated Discord and before Holdfast: what they get
//! there they get here. The former is compiled for one compression; the features `zstd` and `zlib` say for which.
#![cfg(test)]

mod bot;
mod commands;
mod connecting;
mod flow;
mod ledger;
mod refusals;
mod rest;
mod restarts;
mod stage;
