// SPDX-License-Identifier: AGPL-3.0-only
//! Settings: a TOML file, the environment and arguments come in, checked values go out. A [`Document`] is what the
//! user wrote; each part of the program reads its own [`Section`] and gives defaults and ranges as it reads; every
//! problem is collected and reported at once, with its key, its origin and the nearest known key.

mod convert;
mod document;
mod effective;
mod nested;
mod quantity;
mod report;
mod section;
mod value;
mod written;

pub use document::{Document, Reading};
pub use effective::Effective;
pub use quantity::{parse_bytes, parse_duration, show_bytes, show_duration};
pub use report::{Problem, Problems};
pub use section::Section;
pub use value::{Node, Origin, Table, Value};
pub use written::{Translate, Translated, Written};

/// One kibibyte, in bytes.
pub const KIB: u64 = 1024;
/// One mebibyte, in bytes.
pub const MIB: u64 = 1024 * KIB;
/// One gibibyte, in bytes.
pub const GIB: u64 = 1024 * MIB;
