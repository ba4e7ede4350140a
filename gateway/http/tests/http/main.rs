// SPDX-License-Identifier: AGPL-3.0-only
//! The service between a simulated Discord, which posts and judges, and workers at RabbitMQ and over HTTP.

mod answers;
mod bad_input;
mod events;
mod late;
mod outage;
mod support;
mod workers;
