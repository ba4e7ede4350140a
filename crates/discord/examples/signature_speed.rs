// SPDX-License-Identifier: AGPL-3.0-only
//! Measures the check of a signature: microseconds per request, for bodies as Discord posts them.
//! In: nothing. Out: a line per size, median and best of some runs.
//! `cargo run --release -p holdfast-discord --example signature_speed`

use std::hint::black_box;
use std::time::Instant;

use holdfast_discord::signature::PublicKey;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// Many short runs: on a busy machine the best of them are the undisturbed ones.
const RUNS: usize = 501;
const CHECKS: u32 = 20;

fn main() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes are a seed");
    let text: String = pair.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let key = PublicKey::parse(&text).expect("a key");
    for size in [100, 2_000, 20_000] {
        let message = vec![b'x'; size];
        let signed: [u8; 64] = pair.sign(&message).as_ref().try_into().expect("64 bytes");
        let mut microseconds: Vec<f64> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..CHECKS {
                    black_box(key.signed(black_box(&signed), black_box(&message)));
                }
                start.elapsed().as_secs_f64() * 1e6 / f64::from(CHECKS)
            })
            .collect();
        microseconds.sort_by(f64::total_cmp);
        println!("{size} bytes: median {:.1} µs, best {:.1} µs", microseconds[RUNS / 2], microseconds[0]);
    }
}
