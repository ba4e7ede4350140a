// SPDX-License-Identifier: AGPL-3.0-only
//! The service before the simulated Discord, over real sockets.

mod amqp;
mod bad_input;
mod documented;
mod faults;
mod forwarding;
mod limits;
mod replicas;
mod sharing;
mod support;
mod sweep;
mod uploads;
