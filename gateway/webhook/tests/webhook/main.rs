// SPDX-License-Identifier: AGPL-3.0-only
//! The service between a broker and the simulated Discord.

mod bad_input;
mod cuts;
mod documented;
mod faults;
mod order;
mod restarts;
mod stage;
