// SPDX-License-Identifier: AGPL-3.0-only
//! One shard: its task, what it knows, and the handle on it.
//!
//! An event's way: [`task`] holds the connection, [`intake`] takes payloads from it, [`core`] applies it to the guild state and
//! appends it to the log, the hub wakes the readers. Commands go the other way through [`outbox`].

mod alarm;
mod awaited;
mod chunks;
mod core;
mod gateway;
mod hub;
mod identify;
mod intake;
mod keeper;
mod leaving;
mod members;
mod offer;
mod outbox;
mod pressure;
mod readers;
mod ready;
mod recover;
mod sessions;
mod task;
mod voice;
mod warming;

pub(crate) use alarm::Alarm;
pub(crate) use awaited::{Said, Wanted};
pub(crate) use chunks::{Ask, MAX_QUERY, from_state as members_from_state};
pub(crate) use core::{At, Core, Wishes};
pub(crate) use gateway::{Gateway, limit};
pub(crate) use hub::{Hub, unix_ms};
pub use hub::{Phase, ShardStatus};
pub(crate) use identify::Identity;
pub(crate) use keeper::{Keeper, Keeping};
pub(crate) use leaving::LEAVE_WITHIN;
pub(crate) use members::restore_nonce;
pub(crate) use offer::{MAX_OFFERS, Offer, Written};
pub(crate) use outbox::{Command, MAX_PAYLOAD, Outbox, Priority, Ticket};
pub(crate) use readers::{Answered, Reader};
pub(crate) use ready::{ForClient, Ready};
pub(crate) use recover::{Recovered, Recovery, recover};
pub(crate) use sessions::{
    Begun, Client as Identified, ClientSession, Limits as SessionLimits, Resume as Resumed,
    client_of_session, new_session_id,
};
pub use task::FatalClose;
pub(crate) use task::{ShardTask, reconnect_backoff};
pub(crate) use voice::Voice;
pub(crate) use warming::Opened;
