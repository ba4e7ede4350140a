// SPDX-License-Identifier: AGPL-3.0-only
//! The messages that workers in any language exchange with Holdfast: Rust types of `proto/holdfast/v1`.
//! In and out: values and their bytes. The `.proto` files document each field; `docs/contract.md` says which
//! message goes where. Beside the generated types only what needs nothing but them.

mod body;
mod debug;
mod error;
mod event;
mod id;

pub use body::{Body, CONTENT_TYPE, SCHEMA};
pub use error::Class;
pub use event::GAP;
pub use id::{EventId, NotAnId};

/// The first version of the contract, and so far the only one.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/holdfast.v1.rs"));
}
