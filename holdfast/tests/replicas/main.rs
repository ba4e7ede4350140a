// SPDX-License-Identifier: AGPL-3.0-only
//! Several real processes that share the shards of one bot by Redis and publish to RabbitMQ, before the simulated Discord:
//! every event is counted from where it is made to where it is consumed.
#![cfg(test)]

mod clients;
mod discord;
mod drain;
mod frozen;
mod killed;
mod outage;
mod refusals;
mod reshard;
mod scaling;
mod sessions;
mod support;
