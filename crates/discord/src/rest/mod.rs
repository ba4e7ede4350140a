// SPDX-License-Identifier: AGPL-3.0-only
//! Discord's REST API as far as its limits go: which route a path is, which requests count together, when the next one
//! may be sent (topics/rate-limits). In: paths, times, headers of answers. Out: keys, permits, waits. Owned by whoever
//! keeps the account of a token.

mod bucket;
mod invalid;
mod raised;
mod rolling;
mod routes;
mod told;

pub use bucket::{Bucket, Ticket, Wait};
pub use invalid::{InvalidGuard, Standing};
pub use raised::Raised;
pub use rolling::{Place, Rolling};
pub use routes::{Age, Found, Route, RouteId, find, routes};
pub use told::{Scope, Told};
