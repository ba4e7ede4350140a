// SPDX-License-Identifier: AGPL-3.0-only
//! No frame makes an inflater panic or go beyond its bound.
#![no_main]

use holdfast_discord::compress::Inflater;
use libfuzzer_sys::fuzz_target;

const MAX: usize = 100_000;

fuzz_target!(|frames: Vec<Vec<u8>>| {
    for mut inflater in [Inflater::zlib_stream(), Inflater::zlib_payload(), Inflater::zstd_stream()] {
        let mut out = Vec::new();
        for frame in &frames {
            match inflater.push(frame, &mut out, MAX) {
                Ok(true) => out.clear(),
                Ok(false) => {}
                Err(_) => break,
            }
            assert!(out.len() <= MAX);
        }
    }
});
