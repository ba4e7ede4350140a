// SPDX-License-Identifier: AGPL-3.0-only
//! Discord, simulated: gateway v10, the REST routes that a gateway client needs, and what it posts to an application, as
//! strict as the real one.
//!
//! In: clients, and wishes of a test (a world, traffic, faults). Out: what Discord would send, and a record of
//! everything that clients did. It shares no encoder with the services that it tests.
mod chatter;
mod clock;
mod commands;
mod connection;
mod control;
mod emit;
mod encode;
mod etf;
mod faults;
mod faulty;
mod guild;
mod hub;
mod identify;
mod intents;
mod interactions;
mod limits;
mod message;
mod mixed;
mod model;
mod posting;
mod records;
mod requests;
mod resources;
mod rest;
mod rest_faults;
mod rest_limits;
mod routes;
mod scenario;
mod session;
mod simulator;
mod socket;
mod template;
mod traffic;
mod view;
mod webhooks;
mod words;
mod world;

pub use control::{Control, TimedOut};
pub use faults::{Cut, Fault, FaultKind};
pub use interactions::{Followed, Press, Pressed};
pub use limits::{Keys, Limits, Trim};
pub use posting::{Posted, Signing};
pub use records::{Record, Request, Violation};
pub use rest_faults::RestFault;
pub use rest_limits::{Bucket, Refill, RestLimits, SubLimit, operations};
pub use scenario::{Scenario, Step, StepError, Wish};
pub use simulator::{Options, Simulator, StartError};
pub use traffic::{Emit, Sent, Traffic, TrafficKind};
pub use webhooks::WebhookMessage;
pub use world::{BOT_USER, WorldSpec, guild_id};
