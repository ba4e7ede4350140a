// SPDX-License-Identifier: AGPL-3.0-only
//! Compression of gateway connections ("Gateway", section "Encoding and Compression").
//! In: frames or payloads. Out: payloads or frames, by the four ways that Discord has.
//! One `Inflater` per connection that we read, one `Deflater` per connection that we write.

mod deflate;
mod fast;
mod inflate;

pub use deflate::Deflater;
pub use inflate::{InflateError, Inflater};

/// Every message of a `zlib-stream` ends with the marker of zlib's sync flush.
pub const ZLIB_SUFFIX: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
