// SPDX-License-Identifier: AGPL-3.0-only
//! No term makes the decoder panic, and what it reads survives being written again.
#![no_main]

use holdfast_discord::etf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|term: &[u8]| {
    let Ok(value) = etf::decode(term, 64) else { return };
    let mut again = Vec::new();
    etf::encode(&value, &mut again);
    assert_eq!(etf::decode(&again, 64), Ok(value));
});
