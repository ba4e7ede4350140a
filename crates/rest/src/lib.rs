// SPDX-License-Identifier: AGPL-3.0-only
//! Discord's REST API for our own services. [`Client`] asks what a service itself needs to know, one request at a time;
//! whoever asks decides about trying again. [`Forwarder`] sends what others want to have sent, within [`Limits`].

mod answers;
mod client;
mod error;
mod forward;
mod gateway_url;
mod ledger;
mod limits;

pub use answers::{Application, CurrentUser, GatewayBot, SessionStartLimit};
pub use client::Client;
pub use error::RestError;
pub use forward::{
    AfterLoss, Body, BodyError, Call, CallError, Connector, Forwarder, Payload, Stream, Upstream,
    UpstreamError, connector, webhook_is_gone,
};
pub use gateway_url::same_place;
pub use ledger::{Entry, Ledger, ledger_key};
pub use limits::{
    Ask, Caller, Cause, LimitSettings, Limited, Limits, Metrics as RestMetrics, Permit, Priority, Refusal,
};
