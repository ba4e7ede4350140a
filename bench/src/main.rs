// SPDX-License-Identifier: AGPL-3.0-only
//! To be written.
fn main() {}
