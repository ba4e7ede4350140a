// SPDX-License-Identifier: AGPL-3.0-only
//! The service before the simulated Discord, over real sockets.

mod acceptance;
mod amqp;
mod bad_input;
mod capacity;
mod documented;
mod faults;
mod forwarding;
mod limits;
mod outage;
mod replicas;
mod sharing;
mod support;
mod sweep;
mod uploads;
